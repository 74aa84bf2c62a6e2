"""The page that shows champion and challenger side by side."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np

from jobs.loop_cases import IRIS, Loop
from slipway.core.gate import judge, judge_first
from slipway.core.intervals import metric_intervals
from slipway.core.metrics import Predictions
from slipway.core.recovery import Recovery
from slipway.jobs.gate_page import gate_page
from slipway.spec import GatePolicy, Metric

_VOID = {"meta", "rect", "line"}
_AT = datetime(2026, 11, 20, tzinfo=UTC)


class _Balanced(HTMLParser):
    """Fails on a tag that is not closed where it should be."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag


def _page(reason: str, *, first: bool = False) -> str:
    spec = IRIS.model_copy(
        update={"description": "<script>alert(1)</script>", "gate": GatePolicy(resamples=200, slices=("petal_width",))}
    )
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, 400)
    champion, challenger = (
        Predictions(np.where(random.random(400) < share, truth, 0), random.dirichlet([1, 1, 1], 400))
        for share in (0.7, 0.9)
    )
    metric = Metric(name="accuracy", floor=0.5)
    if first:
        result, answers = judge_first(metric, truth, challenger, reason), {"challenger": challenger}
    else:
        slices = {"<b>small</b>": np.arange(400) < 250}
        recovery = Recovery(0.9, 0.1) if reason == "drift" else None
        result = judge(metric, spec.gate, truth, champion, challenger, reason, slices=slices, recovery=recovery)
        answers = {"champion": champion, "challenger": challenger}
    found = metric_intervals(["accuracy", "log_loss"], truth, answers, draws=100)
    return gate_page(
        spec,
        result,
        found,
        champion=None if first else "3",
        candidate="forest <50>",
        run_id="a" * 32,
        snapshot="b" * 64,
        at=_AT,
        older_rows=None if first else {"rows": 37.0, "champion": 0.97, "challenger": 0.61, "worse": 1.0},
    )


def test_the_page_is_whole_needs_nothing_else_and_escapes_names() -> None:
    for page in (_page("drift"), _page("scheduled"), _page("data", first=True)):
        parser = _Balanced()
        parser.feed(page)
        assert parser.open == []
        assert "<script" not in page
        assert not re.search(r"(src|href)=|url\(|@import", page)
        assert "&lt;script&gt;" in page
        assert "forest &lt;50&gt;" in page
        assert "prefers-color-scheme: dark" in page


def test_the_page_says_the_rule_the_verdict_and_the_slices_in_words() -> None:
    drift = _page("drift")
    assert "Passed" in drift
    assert "has to be better" in drift
    assert "has to heal" in drift
    assert "&lt;b&gt;small&lt;/b&gt;" in drift
    assert drift.count("<rect") > 10
    assert "on 37 rows of the champion" in drift
    scheduled = _page("scheduled")
    assert "must not be worse" in scheduled
    assert "needed -0.0" in scheduled
    first = _page("data", first=True)
    assert "floor of the spec" in first
    assert "<svg" not in first


def test_the_picture_stays_inside_its_frame() -> None:
    for page in (_page("drift"), _page("scheduled")):
        bars = re.findall(r"<rect class='bar' x='([\d.-]+)' y='([\d.-]+)' width='([\d.]+)' height='([\d.]+)'", page)
        assert len(bars) > 10
        for x, y, width, height in (map(float, bar) for bar in bars):
            assert 0 <= x < x + width <= 720
            assert 20 <= y <= y + height <= 170.1
        places = [float(x) for x in re.findall(r"<line class='(?:zero|bound|needed)' x1='([\d.-]+)'", page)]
        assert len(places) >= 2
        assert all(0 <= x <= 720 for x in places)


def test_the_gate_writes_the_page_and_says_where() -> None:
    loop = Loop()
    loop.first_champion()
    trained = loop.train(loop.snapshot(), "manual")
    evidence = loop.gate(trained["run_id"], "manual")
    assert evidence["report"].removeprefix("memory://") in loop.lake.reports
    assert loop.tracker.run(trained["run_id"]).tags["slipway.gate_report"] == evidence["report"]
    page = loop.lake.reports[evidence["report"].removeprefix("memory://")].decode()
    assert "champion 1 beside challenger" in page
    assert "log_loss" in page
