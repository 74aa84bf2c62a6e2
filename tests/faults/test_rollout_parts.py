"""The harness itself: what it plans, that its hook obeys an order once, and that swaps and nights are judged."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from contracts.services import Backend, eventually
from faults.judging import Round
from faults.month import _growth, sizes
from faults.results import load_results
from faults.rollout_run import POINTS, QUICK, UPKEEP, cells, run, verdict
from faults.swaps import _result, wrong
from faults.whole_stack import FaultStack
from loop.open_load import _LONGEST_IDLE_SECONDS, OpenLoad, Reply, _Connection

HOOK = Path(__file__).parent / "hook.py"


def test_every_part_is_killed_at_every_phase_that_it_lives_in() -> None:
    found = cells()
    assert len(found) == len(set(found)) == 9 * 7 - 2 + len(POINTS) + len(UPKEEP)
    assert "postgres at shifting" in found
    assert "driver after aliased" in found
    assert "keeper after taken_down" in found
    assert set(QUICK) <= set(found)


def test_every_fault_point_of_a_release_is_in_a_cell() -> None:
    jobs = HOOK.parents[2] / "include" / "slipway" / "jobs"
    code = "".join((jobs / f"{name}.py").read_text() for name in ("release", "traffic", "reconcile", "rollback"))
    named = {part.split('"')[0] for part in code.split('fault_point("')[1:]}
    without_a_rollout = {"split"}  # in tests/jobs/test_killed_drivers.py
    assert named - set(POINTS) - set(UPKEEP) == without_a_rollout


HARNESSES = [path.stem for path in sorted(HOOK.parent.glob("[!t]*.py")) if "def main(" in path.read_text()]


@pytest.mark.parametrize("harness", HARNESSES)
def test_every_harness_can_be_started(harness: str) -> None:
    assert callable(importlib.import_module(f"faults.{harness}").main)


def test_cells_that_were_not_played_prove_nothing() -> None:
    wanted = ["a", "b", "c", "d"]
    held = {"done": 1, "problems": []}
    assert verdict({"a": held, "b": held}, wanted, 1, 0.5) == []
    assert verdict({"a": held}, wanted, 1, 0.5) == ["only 1 of 4 cells were played"]
    assert verdict(dict.fromkeys(wanted, held), wanted, 2, 1.0) == ["only 0 of 4 cells were played"]
    bad = {"done": 1, "problems": ["it broke"]}
    assert verdict({"a": held, "b": bad}, wanted, 1, 0.5) == ["b: it broke"]


ROUNDS = [
    (["passed", ""], {"done": 1, "overtaken": 1, "problems": []}),
    ([""], {"done": 1, "overtaken": 0, "problems": []}),
    (["passed"] * 3, {"done": 0, "overtaken": 3, "problems": ["passed, 3 times in a row"]}),
]


@pytest.mark.parametrize(("overtaken", "kept"), ROUNDS)
def test_a_round_in_which_nothing_was_killed_does_not_count(
    overtaken: list[str], kept: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faults.results.RESULTS", tmp_path / "faults.json")
    rounds = iter([Round("driver at baking", ended="live", overtaken=why) for why in overtaken])
    monkeypatch.setattr("faults.rollout_run._round", lambda *_: next(rounds))
    run(FaultStack(home=tmp_path), "rounds", ["driver at baking"], 1, 60)
    assert next(rounds, None) is None
    found = load_results()["rounds"]["driver at baking"]
    assert kept.items() <= found.items()


def test_why_a_version_was_rolled_back_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("faults.results.RESULTS", tmp_path / "faults.json")
    rounds = iter([Round("new bento at baking", ended="rolled_back", failure="stability: it restarted"), Round("live")])
    monkeypatch.setattr("faults.rollout_run._round", lambda *_: next(rounds))
    run(FaultStack(home=tmp_path), "rounds", ["new bento at baking"], 2, 60)
    assert load_results()["rounds"]["new bento at baking"]["failures"] == ["stability: it restarted"]
    assert "rolled_back (stability: it restarted) in 0.0 s" in capsys.readouterr().err


def reply(at: float, status: int = 200, version: str = "1", seconds: float = 0.01) -> Reply:
    return Reply(at, at + seconds, status, version, "blue")


TIMES, QUIET = [(10.0, 11.0, "2"), (20.0, 21.0, "1")], [(5.0, 6.0), (15.0, 16.0), (25.0, 26.0)]


def test_an_answer_without_weight_is_counted() -> None:
    replies = [reply(10.5, version="1"), reply(12.0, version="2"), reply(13.0, version="1"), reply(22.0, version="1")]
    found = _result(TIMES, QUIET, 0, replies)
    assert (found.answered_without_weight, found.failed_requests, found.requests) == (1, 0, 4)
    assert found.longest_swap_seconds == 1.0
    assert wrong(found, replies, 1.0, 8.0, judge_latency=False) == ["1 requests were answered by a slot without weight"]


def test_an_answer_that_came_after_the_next_swap_had_begun_may_be_that_ones() -> None:
    for seconds, strays in ((0.9, 1), (1.1, 0)):
        late = [reply(12.0, version="2"), reply(19.0, version="1", seconds=seconds), reply(22.0, version="1")]
        assert _result(TIMES, QUIET, 0, late).answered_without_weight == strays


def test_the_slowness_of_swaps_is_that_of_the_quiet_times_beside_them() -> None:
    quiet = [reply(5.5, seconds=0.004), reply(15.5, version="2", seconds=0.005), reply(25.5, seconds=0.02)]
    unlike = [reply(7.0, seconds=9.0), reply(18.0, version="2", seconds=9.0)]  # neither quiet nor swapping
    swapping = [reply(10.5, seconds=0.007), reply(11.1, version="2", seconds=0.01), reply(21.1, seconds=0.03)]
    found = _result(TIMES, QUIET, 0, [*quiet, *unlike, *swapping])
    assert (found.p99_quiet_ms, found.p99_swapping_ms) == (20.0, 30.0)
    assert (found.ratios, found.ratio) == ([2.0, 1.5], 1.75)


def test_one_slow_moment_of_the_machine_does_not_decide_on_two_hundred_swaps() -> None:
    times = [(10.0 * number, 10.0 * number + 1, "2") for number in range(1, 6)]
    quiet = [(10.0 * number - 5, 10.0 * number - 4) for number in range(1, 7)]
    replies = [reply(start + 0.5, version="2") for start, _ in quiet] + [reply(start + 0.5) for start, _, _ in times]
    stood_still = [reply(30.6, seconds=3.0)]
    assert (_result(times, quiet, 0, [*replies, *stood_still]).ratio, _result(times, quiet, 0, replies).ratio) == (1, 1)
    slowed = [reply(start + 0.6, seconds=0.03) for start, _, _ in times]
    assert _result(times, quiet, 0, [*replies, *slowed]).ratio == 3


def test_swaps_that_slow_the_answers_down_or_that_nobody_watched_do_not_hold() -> None:
    replies = [reply(5.5), reply(10.5), reply(12.0, version="2"), reply(21.1, version="1"), reply(25.5)]
    held = _result(TIMES, QUIET, 0, replies)
    assert wrong(held, replies, 1.0, 4.0) == []
    slow = replace(held, ratio=2.01)
    assert wrong(slow, replies, 1.0, 4.0) == ["p99 while swapping is 2.01 times that of the quiet times"]
    assert wrong(slow, replies, 1.0, 4.0, judge_latency=False) == []
    nobody = _result(TIMES, QUIET, 0, [])
    assert wrong(nobody, [], 300.0, 10.0) == [
        "only 0 of 3000 requests were made",
        "p99 while swapping is 0 times that of the quiet times",
    ]
    failed = replace(held, failed_requests=3, swaps_that_failed=1)
    assert wrong(failed, replies, 1.0, 4.0) == ["3 requests failed", "1 swaps failed"]


def test_growth_beyond_the_first_week_is_found() -> None:
    flat = [{"bentos": 5.0, "rows of ledger": 5.0 * night} for night in range(30)]
    assert _growth(flat) == []
    growing = [{"bentos": float(night), "rows of ledger": 5.0} for night in range(30)]
    assert _growth(growing) == ["bentos: 29 after the month, 8 after the first week"]


def test_bytes_may_grow_with_time_only_where_time_or_size_bounds_them() -> None:
    def month_of(kind: str, a_night: float) -> list[dict[str, float]]:
        return [{f"bytes of {kind}": 5e6 + a_night * night} for night in range(30)]

    for kind in ("bentoml", "mlflow", "lake/datasets", "lake/reports", "spool", "whatever is new"):
        assert _growth(month_of(kind, 0)) == []
        assert len(_growth(month_of(kind, 1e5))) == 1, kind
    for kind in ("logs", "database slipway"):
        assert _growth(month_of(kind, 5e4)) == [], kind
        assert len(_growth(month_of(kind, 3e5))) == 1, kind


def test_every_file_of_the_home_is_weighed_once(tmp_path: Path) -> None:
    for name in ("lake/reports/a.html", "lake/predictions/b", "logs/c.log", "mlflow/d/e", "postgres/pg_wal/f", ".env"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"123")
    found = sizes(tmp_path)
    weighed = {"lake/reports", "lake/predictions", "logs", "mlflow", "files beside"}
    assert found == {f"bytes of {kind}": 3.0 for kind in weighed}  # the database is asked for its own size


@pytest.mark.parametrize(("role", "order", "code"), [("driver", "kill", -signal.SIGKILL), ("keeper", "kill", 0)])
def test_the_hook_obeys_an_order_for_its_role_once(tmp_path: Path, role: str, order: str, code: int) -> None:
    for name in ("orders", "hits"):
        (tmp_path / "faults" / name).mkdir(parents=True)
    (tmp_path / "faults" / "orders" / "driver@wanted").write_text(order)
    script = (
        "import sys; from pathlib import Path\nfrom slipway.core.faults import fault_point, install_file\n"
        f"install_file(Path({str(HOOK)!r}))\nfault_point('other'); fault_point('wanted')\n"
    )
    env = {**os.environ, "SLIPWAY_HOME": str(tmp_path), "PYTHONPATH": "include"}
    command = [sys.executable, "-c", script, *(["keeper"] if role == "keeper" else [])]
    for expected in (code, 0):
        assert subprocess.run(command, env=env, check=False, cwd=HOOK.parents[2]).returncode == expected
    taken = (tmp_path / "faults" / "hits" / "driver@wanted").exists()
    assert taken == (code != 0)


def test_without_the_setting_there_is_no_hook() -> None:
    from slipway.core import faults
    from slipway.settings import Settings

    assert Settings.model_fields["fault_hook"].default is None
    assert faults._hook is None


def test_the_load_counts_answers_and_broken_connections() -> None:
    backend = Backend("blue")
    with OpenLoad(backend.port, "iris", {"width": 1.0}, rate=100) as load:
        eventually(lambda: len(load.replies) > 20, what="answers")
        backend.status = 503
        eventually(lambda: load.failures(), what="refusals")
        backend.close()
    statuses = {reply.status for reply in load.replies}
    assert {200, 503} <= statuses <= {0, 200, 503}
    assert {reply.slot for reply in load.replies if reply.status == 200} == {"blue"}
    assert backend.requests[0][:2] == ("POST", "/predict/iris")


def test_the_load_does_not_use_a_connection_that_the_gateway_may_be_closing() -> None:
    async def stale(idle_seconds: float, closed: bool) -> bool:
        reader = asyncio.StreamReader()
        if closed:
            reader.feed_eof()
        return _Connection(reader, Mock(spec=asyncio.StreamWriter), time.monotonic() - idle_seconds).stale()

    assert not asyncio.run(stale(0.0, closed=False))
    assert asyncio.run(stale(0.0, closed=True))
    assert asyncio.run(stale(_LONGEST_IDLE_SECONDS + 1, closed=False))
