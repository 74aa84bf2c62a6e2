from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from faults import challengers
from faults.challengers import EXPECTED, LANES, MODELS, MOST_STOOD_STILL, Challengers, Trial, why_failed
from faults.results import load_results
from loop.open_load import Reply

GOOD = Trial("equal", "live", "", 10.0, 500, {}, 0.5, "")
STILL = Trial("equal", "live", "", 10.0, 3, {}, 0.5, "")
WRONG_AND_STILL = Trial("equal", "rolled_back", "latency", 10.0, 3, {}, 0.5, "rolled_back: latency")


@pytest.mark.parametrize(
    ("played", "kept"),
    [
        ([STILL, GOOD, STILL, GOOD], ["", ""]),
        ([WRONG_AND_STILL, GOOD], ["rolled_back: latency", ""]),
        (
            [STILL] * (MOST_STOOD_STILL + 1) + [GOOD],
            ["the load stood still: this machine is too busy for a trial", ""],
        ),
    ],
)
def test_a_trial_whose_load_stood_still_is_repeated_unless_it_ended_wrongly(
    played: list[Trial], kept: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faults.results.RESULTS", tmp_path / "faults.json")
    monkeypatch.setattr(challengers, "LANES", (("equal_a",),))
    monkeypatch.setattr(challengers, "OpenLoad", lambda *_, **__: nullcontext())
    monkeypatch.setattr(challengers, "Labels", lambda *_: nullcontext())
    monkeypatch.setattr("time.sleep", lambda _: None)
    trials = iter([Trial(**vars(trial)) for trial in played])
    monkeypatch.setattr(Challengers, "_trial", lambda *_: next(trials))
    Challengers(tmp_path, repeats=2).run()
    assert next(trials, None) is None
    assert [trial["problem"] for trial in load_results()["challengers"]["equal"]] == kept


def test_a_trial_keeps_why_requests_failed() -> None:
    replies = [
        Reply(0.0, 0.1, 200, "1", "blue"),
        Reply(0.0, 0.1, 429, error="requests wait too long"),
        Reply(0.0, 0.1, 0, error="EOFError: "),
        Reply(0.0, 0.1, 0, error="EOFError: "),
    ]
    assert why_failed(replies) == {"429 requests wait too long": 1, "0 EOFError: ": 2}


def test_every_kind_has_its_turn() -> None:
    names = [name for lane in LANES for name in lane]
    assert sorted(names) == sorted(MODELS)
    assert {kind for name in names for kind in MODELS[name]} == set(EXPECTED)
