"""The harness itself: what it plans, how it judges clients, and that its hook obeys an order once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.services import Backend, eventually
from faults.month import _growth
from faults.rollout_run import POINTS, QUICK, Round, _judge_clients, cells
from faults.swaps import _result
from loop.open_load import OpenLoad, Reply

HOOK = Path(__file__).parent / "hook.py"


def test_every_part_is_killed_at_every_phase_that_it_lives_in() -> None:
    found = cells()
    assert len(found) == len(set(found)) == 9 * 7 - 2 + len(POINTS)
    assert "postgres at shifting" in found
    assert "driver after aliased" in found
    assert set(QUICK) <= set(found)


def reply(at: float, status: int = 200, version: str = "1") -> Reply:
    return Reply(at, at + 0.01, status, version, "blue")


@pytest.mark.parametrize(
    ("who", "where", "failed_at", "problems"),
    [
        ("postgres", "shifting", 100.5, 1),
        ("envoy", "shifting", 100.5, 0),
        ("envoy", "shifting", 99.0, 1),
        ("envoy", "shifting", 160.0, 1),
        ("new bento", "verifying", 100.5, 1),
        ("new bento", "baking", 100.5, 0),
        ("old bento", "baking", 100.5, 1),
        ("old bento", "shifting", 100.5, 0),
    ],
)
def test_only_what_the_killed_part_alone_could_answer_is_excused(
    who: str, where: str, failed_at: float, problems: int
) -> None:
    outcome = Round("a cell")
    replies = [reply(98.0), reply(failed_at, 503), reply(170.0)]
    _judge_clients(outcome, who, where, replies, 100.0, {"1", "2"})
    assert len(outcome.problems) == problems
    assert outcome.excused == 1 - problems


def test_an_answer_of_a_third_version_is_a_problem() -> None:
    outcome = Round("a cell")
    _judge_clients(outcome, "driver", "shifting", [reply(1.0, version="3")], 1.0, {"1", "2"})
    assert outcome.problems == ["answered by versions ['3']"]


def test_an_answer_without_weight_is_counted() -> None:
    times = [(10.0, 11.0, "2"), (20.0, 21.0, "1")]
    replies = [reply(10.5, version="1"), reply(12.0, version="2"), reply(13.0, version="1"), reply(22.0, version="1")]
    found = _result(times, 0, replies, 10.0)
    assert (found.answered_without_weight, found.failed_requests, found.requests) == (1, 0, 4)
    assert (found.ratio, found.longest_swap_seconds) == (1.0, 1.0)


def test_growth_beyond_the_first_week_is_found() -> None:
    flat = [{"bentos": 5.0, "rows of ledger": 5.0 * night} for night in range(30)]
    assert _growth(flat) == []
    growing = [{"bentos": float(night), "rows of ledger": 5.0} for night in range(30)]
    assert _growth(growing) == ["bentos: 29 after the month, 8 after the first week"]


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
