"""The proof of releases: everything that takes part is killed at every phase of a rollout, under a steady load.

`make faults` is the whole run: ten rounds of each cell, results in `var/bench/faults.json`. A cell that has its rounds
is not run again, so a run that was stopped goes on where it was. `make faults FAULTS_QUICK=1` runs one round of a few.

A cell is who is killed, and when: `postgres at shifting`, or `driver after wanted`, a fault point between act and save.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from faults.swaps import swaps
from faults.whole_stack import RESULTS, ROW, FaultStack, load_results, save_result, until
from loop.open_load import OpenLoad, Reply
from slipway.core.rollout_record import Phase, Rollout

PHASES = (
    "packaged",
    "starting",
    "verifying",
    "replaying",
    "shadowing",
    "shifting",
    "baking",
    "promoting",
    "rolling_back",
)
PARTS = ("driver", "keeper", "envoy", "postgres", "old bento", "new bento", "airflow-scheduler")
POINTS = (
    "begun", "assigned", "started", "replayed", "wanted", "published", "applied", "aliased", "stopped",
    *(f"saved:{phase}" for phase in PHASES if phase != "packaged"),
)  # fmt: skip
ROLLBACK_POINTS = ("stopped", "saved:rolling_back")
NOT_UP_YET = ("packaged", "starting")
RECOVERY_SECONDS = 15.0
DAG = "iris_release"
QUICK = (
    "driver at shifting",
    "postgres at shifting",
    "envoy at baking",
    "new bento at verifying",
    "old bento at shifting",
    "keeper at promoting",
    "airflow-scheduler at shifting",
    "driver after aliased",
    "driver after wanted",
    "driver after assigned",
    "driver at rolling_back",
)


def cells() -> list[str]:
    """Every cell; what cannot be killed at a phase because it does not run yet is left out."""
    at = [
        f"{part} at {phase}" for phase in PHASES for part in PARTS if not (part == "new bento" and phase in NOT_UP_YET)
    ]
    return [*at, *(f"driver after {point}" for point in POINTS)]


@dataclass
class Round:
    """What came of one round; `problems` must be empty.

    Attributes:
        excused: failed requests while the one slot or the gateway that they needed was dead, which nothing can save.
    """

    cell: str
    ended: str = ""
    problems: list[str] = field(default_factory=list)
    requests: int = 0
    excused: int = 0
    outage_seconds: float = 0.0
    seconds: float = 0.0


def _next_version(stack: FaultStack) -> str:
    """One that is neither live nor warm, so that its bento really starts."""
    held = {slot.version for slot in stack.slipway.store.slots("iris")}
    versions = [one.version for one in stack.slipway.mlflow.versions("iris")]
    return next(version for version in versions if version not in held)


class Driver:
    """Whatever drives the rollout: the command line, or Airflow's release workflow."""

    def __init__(self, stack: FaultStack, version: str, *, airflow: bool) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._stack, self._run = stack, ""
        if airflow:
            stack.slipway.airflow.wait_for_dag(DAG)
            stack.slipway.airflow.unpause(DAG)
            self._run = stack.slipway.airflow.trigger(DAG, {"version": version, "reason": "fault run"})
            return
        command = [sys.executable, "-m", "slipway.cli", "release", "iris", "--version", version]
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(command, env=stack.stack.env, stdout=quiet, stderr=quiet)

    def end(self) -> str | None:
        """None when it ended by itself in time; Airflow tries a killed task again, which then has nothing to do."""
        if self._run:
            airflow, run, self._run = self._stack.slipway.airflow, self._run, ""
            try:
                until(lambda: airflow.run_state(DAG, run) in ("success", "failed"), 400, "the release workflow to end")
            except TimeoutError as error:
                return str(error)
        if self.process is None:
            return None
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return "the driver did not end after its rollout had"
        return None


def play(stack: FaultStack, cell: str, load: OpenLoad) -> Round:
    """One round of one cell."""
    began, outcome = time.time(), Round(cell)
    who, how, where = cell.rpartition(" at ") if " at " in cell else cell.rpartition(" after ")
    before = stack.slipway.store.latest("iris")
    live = stack.slipway.releases.live("iris").version
    version = _next_version(stack)
    rolls_back = where in ("rolling_back", *ROLLBACK_POINTS)
    point = f"decided:{where}" if how == " at " else where
    order = f"driver@{point}"
    kill_by_hook = who == "driver"
    first = "driver@decided:baking" if rolls_back else order
    stack.order(first, "kill" if kill_by_hook and not rolls_back else "hold")
    driver = Driver(stack, version, airflow=who == "airflow-scheduler")
    killed_at = time.time()
    try:
        until(lambda: stack.hit(first), 90, f"the driver to come to {first}")
        rollout = _rollout_after(stack, before)
        if rolls_back:
            _abort(stack, rollout)
            stack.order(order, "kill" if kill_by_hook else "hold")
            stack.go(first)
            until(lambda: stack.hit(order), 60, f"the driver to come to {order}")
        killed_at = time.time()
        part = _part(who, rollout)
        if part:
            stack.kill(part)
        stack.clear_orders()
        ended = until(lambda: (found := stack.slipway.store.rollout(rollout.id)).ended and found, 200, "the end")
        outcome.ended = str(ended.phase)
        outcome.problems += [text for text in [driver.end()] if text]
        stack.settle()
        time.sleep(0.5)
        outcome.problems += _broken(stack, ended, live)
    except TimeoutError as error:
        outcome.problems.append(str(error))
    finally:
        stack.clear_orders()
        driver.end()
    finished = time.time()
    _judge_clients(outcome, who, where, load.between(began, finished), killed_at, {live, version})
    outcome.seconds = round(finished - began, 1)
    return outcome


def _rollout_after(stack: FaultStack, before: Rollout | None) -> Rollout:
    def newest() -> Rollout | None:
        found = stack.slipway.store.latest("iris")
        return found if found and (before is None or found.id != before.id) else None

    rollout: Rollout = until(newest, 30, "the rollout to begin")
    return rollout


def _abort(stack: FaultStack, rollout: Rollout) -> None:
    store, clock = stack.slipway.store, stack.slipway.releases.parts.clock
    store.command(rollout, "abort", actor="faults", reason="to be rolled back", now=clock.now())


def _part(who: str, rollout: Rollout) -> str | None:
    """Supervisor's name of what is killed; None when the driver killed itself."""
    if who == "driver":
        return None
    slots = {"old bento": rollout.previous_slot, "new bento": rollout.slot}
    return f"slot-iris-{slots[who]}" if who in slots else who


def _broken(stack: FaultStack, rollout: Rollout, live: str) -> list[str]:
    """Invariants that the survey does not know of."""
    ledger = stack.slipway.releases.parts.ledger
    events = [row.event for row in ledger.of_rollout(rollout.id)]
    ends = [event for event in events if event in ("live", "rolled_back", "aborted")]
    problems = []
    if events.count("started") != 1 or ends != [str(rollout.phase)]:
        problems.append(f"the ledger's rows of the rollout are {events}")
    promotions = [row.detail["promotion"] for row in ledger.went_live("iris")]
    if promotions != list(range(1, len(promotions) + 1)):
        problems.append(f"promotions are numbered {promotions}")
    now = stack.slipway.releases.live("iris").version
    if now != (rollout.version if rollout.phase is Phase.LIVE else live):
        problems.append(f"version {now} is live after a rollout that ended {rollout.phase}")
    problems += [f"orphan: {line}" for line in stack.orphans()]
    return problems


def _judge_clients(
    outcome: Round, who: str, where: str, replies: Sequence[Reply], killed_at: float, versions: set[str]
) -> None:
    """No failed request, but for those that only what was killed could have answered, until it was back."""
    outcome.requests = len(replies)
    failed = [reply for reply in replies if reply.status != 200]
    carries = who == "envoy" or (who.endswith("bento") and where in _carrying(who))
    excused = [
        reply for reply in failed if carries and reply.done >= killed_at and reply.sent <= killed_at + RECOVERY_SECONDS
    ]
    outcome.excused = len(excused)
    if excused:
        outcome.outage_seconds = round(max(reply.sent for reply in excused) - killed_at, 2)
    if unexcused := len(failed) - len(excused):
        seen = sorted({f"{reply.status} {reply.error}".strip() for reply in failed})
        outcome.problems.append(f"{unexcused} requests failed: {'; '.join(seen)[:300]}")
    wrong = {reply.version for reply in replies if reply.status == 200} - versions
    if wrong:
        outcome.problems.append(f"answered by versions {sorted(wrong)}")


def _carrying(who: str) -> tuple[str, ...]:
    """Phases in which a slot has traffic."""
    if who == "new bento":
        return ("shifting", "baking", "promoting", "rolling_back")
    return ("packaged", "starting", "verifying", "replaying", "shadowing", "shifting", "rolling_back")


def run(stack: FaultStack, section: str, wanted: Sequence[str], rounds: int, budget_seconds: float) -> bool:
    """Play every cell until it has its rounds in this section of the results; whether all of them held."""
    deadline, held = time.monotonic() + budget_seconds, True
    port = stack.settings.gateway_port
    for number in range(1, rounds + 1):
        for cell in wanted:
            known: dict[str, Any] = load_results().get(section, {}).get(cell, {"done": 0, "problems": []})
            if rounds > 1 and known["done"] >= number:
                continue
            if time.monotonic() > deadline:
                stack.say(f"the time is over before {cell}")
                return held
            stack.settle()
            with OpenLoad(port, "iris", ROW, rate=50) as load:
                outcome = play(stack, cell, load)
            _keep(section, cell, known, outcome)
            verdict = "; ".join(outcome.problems) or "held"
            outage = f", {outcome.excused} excused in {outcome.outage_seconds} s" if outcome.excused else ""
            facts = f"{outcome.ended} in {outcome.seconds} s, {outcome.requests} requests{outage}"
            stack.say(f"{cell} ({number}): {facts}: {verdict}")
            held = held and not outcome.problems
    return held


def _keep(section: str, cell: str, known: dict[str, Any], outcome: Round) -> None:
    kept = {
        "done": known["done"] + 1,
        "problems": [*known["problems"], *outcome.problems],
        "ended": {**known.get("ended", {}), outcome.ended: known.get("ended", {}).get(outcome.ended, 0) + 1},
        "requests": known.get("requests", 0) + outcome.requests,
        "excused": known.get("excused", 0) + outcome.excused,
        "longest_outage_seconds": max(known.get("longest_outage_seconds", 0.0), outcome.outage_seconds),
        "seconds": round(known.get("seconds", 0.0) + outcome.seconds, 1),
    }
    save_result(section, cell, kept)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--cells", nargs="*", help="only these, for example 'postgres at shifting'")
    parser.add_argument("--quick", action="store_true", help="one round of a few cells and 20 swaps, in four minutes")
    chosen = parser.parse_args()
    wanted = chosen.cells or (list(QUICK) if chosen.quick else cells())
    began = time.monotonic()
    with FaultStack().running(versions=3) as stack:
        if chosen.quick:
            held = swaps(stack, count=20, rate=300)
            held = run(stack, "quick", wanted, 1, 200 - (time.monotonic() - began)) and held
        else:
            run(stack, "rounds", wanted, chosen.rounds, float("inf"))
            held = not any(load_results()["rounds"][cell]["problems"] for cell in wanted)
    stack.say("every invariant held" if held else f"FAILED; see {RESULTS}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
