"""The proof of releases: everything that takes part is killed at every phase of a rollout, under a steady load.

`make faults` is the whole run: ten rounds of each cell, results in `var/bench/faults.json`. A cell that has its rounds
with this very code is not run again, so a run that was stopped goes on where it was; `--fresh` begins anew. With
`FAULTS_STACKS=2` two stacks share the cells. `make faults FAULTS_QUICK=1` runs one round of a few.

A cell is who is killed, and when: `postgres at shifting`, or `driver after wanted`, a fault point between act and save.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from faults.judging import TAKE_OVER_SECONDS, Before, Round, Story, judge_clients
from faults.record import keep_record, log_sizes
from faults.results import RESULTS, begin, load_results, update_result
from faults.swaps import swaps
from faults.upkeep import UPKEEP, conclude, play_upkeep
from faults.whole_stack import HOME, ROW, FaultStack, until
from loop.host import ProcessorTime
from loop.open_load import OpenLoad
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
RATE = 50.0
# Longer than the deadline of a rollout: whatever has not happened by then does not happen.
PATIENCE_SECONDS = 200.0
FAILED = RESULTS.parent / "failed"
ATTEMPTS = 3
# How a rollout ends in which nothing was killed, by whether it was aborted.
UNSHAKEN_END = {False: Phase.LIVE, True: Phase.ABORTED}
LEAST_QUICK_SHARE = 0.5
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
    return [*at, *(f"driver after {point}" for point in POINTS), *(f"keeper after {point}" for point in UPKEEP)]


def _next_version(stack: FaultStack) -> str:
    """One that is neither live nor warm, so that its bento really starts."""
    held = {slot.version for slot in stack.slipway.store.slots("iris")}
    versions = [one.version for one in stack.slipway.mlflow.versions("iris")]
    return next(version for version in versions if version not in held)


class OvertakenError(Exception):
    """The keeper, who drives on after two silent seconds, passed the point at which the driver was to be stopped."""

    def __init__(self, order: str, rollout: Rollout) -> None:
        super().__init__(f"the rollout ended without {order}")
        self.rollout = rollout


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


def play(stack: FaultStack, cell: str, number: int) -> tuple[Round, Story]:
    """One round of one cell; of a bento, the even ones kill the parent process alone."""
    who, how, where = cell.rpartition(" at ") if " at " in cell else cell.rpartition(" after ")
    version = _next_version(stack)
    if how == " after " and where in UPKEEP:
        return play_upkeep(stack, cell, where, version)
    outcome, story, releases = Round(cell), Story(began=time.time()), stack.slipway.releases
    newest = stack.slipway.store.latest("iris")
    before = Before.look(releases, releases.parts.clock.now())
    rolls_back = where in ("rolling_back", *ROLLBACK_POINTS)
    point = f"decided:{where}" if how == " at " else where
    order = f"driver@{point}"
    kill_by_hook = who == "driver"
    first = "driver@decided:baking" if rolls_back else order
    stack.order(first, "kill" if kill_by_hook and not rolls_back else "hold")
    driver = Driver(stack, version, airflow=who == "airflow-scheduler")
    try:
        _come(stack, first, newest)
        shaken_from = time.time()
        rollout = _rollout_after(stack, newest)
        if rolls_back:
            _abort(stack, rollout)
            stack.order(order, "kill" if kill_by_hook else "hold")
            stack.go(first)
            _come(stack, order, newest)
        if part := _part(who, rollout):
            story.killed = stack.kill(part, whole=number % 2 == 1)
        stack.clear_orders()
        story.shaken = (shaken_from, time.time() + TAKE_OVER_SECONDS)
        _finish(stack, driver, outcome, story, before, rollout)
    except OvertakenError as passed:
        outcome.overtaken = str(passed)
        stack.clear_orders()
        _finish(stack, driver, outcome, story, before, passed.rollout)
        if outcome.ended != (wanted := UNSHAKEN_END[rolls_back and stack.hit(first)]):
            outcome.problems.append(f"nothing was killed, and yet it did not end {wanted}")
    except TimeoutError as error:
        outcome.problems.append(str(error))
    finally:
        stack.clear_orders()
        driver.end()
    story.over = time.time()
    return outcome, story


def _come(stack: FaultStack, order: str, before: Rollout | None) -> None:
    """Wait until the driver has obeyed an order.

    Raises:
        OvertakenError: the rollout has ended, and the driver never came there.
        TimeoutError: neither happened in time.
    """

    def there() -> bool:
        if stack.hit(order):
            return True
        newest = _newer(stack, before)
        if newest and newest.ended and not stack.hit(order):
            raise OvertakenError(order, newest)
        return False

    until(there, PATIENCE_SECONDS, f"the driver to come to {order}")


def _finish(stack: FaultStack, driver: Driver, outcome: Round, story: Story, before: Before, rollout: Rollout) -> None:
    """Wait until the rollout and its driver have ended and all agrees, and look at what is left."""
    try:
        ended = until(
            lambda: (found := stack.slipway.store.rollout(rollout.id)).ended and found, PATIENCE_SECONDS, "the end"
        )
        outcome.ended = str(ended.phase)
        if ended.phase is Phase.ROLLED_BACK:
            outcome.failure = ended.failure or "no reason kept"
        outcome.problems += [text for text in [driver.end()] if text]
        conclude(stack, outcome, story, before, ended)
    except TimeoutError as error:
        outcome.problems.append(str(error))


def _newer(stack: FaultStack, before: Rollout | None) -> Rollout | None:
    found = stack.slipway.store.latest("iris")
    return found if found and (before is None or found.id != before.id) else None


def _rollout_after(stack: FaultStack, before: Rollout | None) -> Rollout:
    rollout: Rollout = until(lambda: _newer(stack, before), 30, "the rollout to begin")
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


def _round(stack: FaultStack, cell: str, number: int) -> Round:
    """Play one round under load, wait for every reply, and judge it; keep the record of one that failed."""
    stack.settle()
    logs = stack.settings.log_dir
    sizes, then = log_sizes(logs), ProcessorTime.now()
    with OpenLoad(stack.settings.gateway_port, "iris", ROW, rate=RATE) as load:
        outcome, story = play(stack, cell, number)
    parts = stack.slipway.releases.parts
    rows = parts.ledger.until("iris", parts.clock.now())
    outcome.seconds = round(story.over - story.began, 1)
    outcome.withheld_share = round(ProcessorTime.now().withheld_share_since(then), 2)
    judge_clients(outcome, story, load.replies, rows, RATE)
    if outcome.problems:
        folder = keep_record(FAILED, outcome, story, load.replies, rows, parts.store.latest("iris"), logs, sizes)
        stack.say(f"the record of this round is in {folder}")
    return outcome


def run(stack: FaultStack, section: str, wanted: Sequence[str], rounds: int, budget_seconds: float) -> None:
    """Play every cell until it has its rounds in this section of the results, or the time is over."""
    deadline = time.monotonic() + budget_seconds
    for number in range(1, rounds + 1):
        for cell in wanted:
            if _done(section, cell) >= number:
                continue
            if time.monotonic() > deadline:
                stack.say(f"the time is over before {cell}")
                return
            _play_until_shaken(stack, section, cell, number)


def _play_until_shaken(stack: FaultStack, section: str, cell: str, number: int) -> None:
    """One round that counts; one whose driver was overtaken is judged as well, but nothing was killed in it."""
    for attempt in range(1, ATTEMPTS + 1):
        outcome = _round(stack, cell, number)
        if outcome.overtaken and attempt == ATTEMPTS:
            outcome.problems.append(f"{outcome.overtaken}, {ATTEMPTS} times in a row")
        _keep(section, cell, outcome)
        again = outcome.overtaken and attempt < ATTEMPTS
        verdict = "; ".join(outcome.problems) or (f"{outcome.overtaken}; once more" if again else "held")
        outage = f", {outcome.excused} excused in {outcome.outage_seconds} s" if outcome.excused else ""
        why = f" ({outcome.failure})" if outcome.failure else ""
        withheld = f", {outcome.withheld_share:.0%} of the processors withheld" if outcome.withheld_share >= 0.1 else ""
        facts = f"{outcome.ended}{why} in {outcome.seconds} s, {outcome.requests} requests{outage}{withheld}"
        stack.say(f"{cell} ({number}): {facts}: {verdict}")
        if not again:
            return


def _done(section: str, cell: str) -> int:
    return int(load_results().get(section, {}).get(cell, {}).get("done", 0))


def _keep(section: str, cell: str, outcome: Round) -> None:
    def add(known: dict[str, Any] | None) -> dict[str, Any]:
        known = known or {}
        ends = known.get("ended", {})
        return {
            "done": known.get("done", 0) + (not outcome.overtaken),
            "overtaken": known.get("overtaken", 0) + bool(outcome.overtaken),
            "problems": [*known.get("problems", []), *outcome.problems],
            "ended": {**ends, outcome.ended: ends.get(outcome.ended, 0) + 1},
            "failures": [*known.get("failures", []), *([outcome.failure] if outcome.failure else [])],
            "requests": known.get("requests", 0) + outcome.requests,
            "excused": known.get("excused", 0) + outcome.excused,
            "longest_outage_seconds": max(known.get("longest_outage_seconds", 0.0), outcome.outage_seconds),
            "most_withheld_share": max(known.get("most_withheld_share", 0.0), outcome.withheld_share),
            "seconds": round(known.get("seconds", 0.0) + outcome.seconds, 1),
        }

    update_result(section, cell, add)


def verdict(found: dict[str, dict[str, Any]], wanted: Sequence[str], rounds: int, least_share: float) -> list[str]:
    """What keeps a section's results from being a proof: cells with problems, or too few that were played."""
    played = [cell for cell in wanted if found.get(cell, {}).get("done", 0) >= rounds]
    problems = [
        f"{cell}: {'; '.join(found[cell]['problems'])}" for cell in wanted if found.get(cell, {}).get("problems")
    ]
    if len(played) < least_share * len(wanted):
        problems.append(f"only {len(played)} of {len(wanted)} cells were played")
    return problems


def _side_by_side(stacks: int, arguments: Sequence[str]) -> None:
    """Share the cells between several stacks, each with a process of its own."""
    command = [sys.executable, "-m", "faults.rollout_run", *arguments]
    running = [subprocess.Popen([*command, "--part", f"{one}/{stacks}"]) for one in range(1, stacks + 1)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        for process in running:
            process.wait()
    finally:
        for process in running:
            process.terminate()  # each takes its stack down
        for process in running:
            process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--cells", nargs="*", help="only these, for example 'postgres at shifting'")
    parser.add_argument("--quick", action="store_true", help="one round of a few cells and 20 swaps, in four minutes")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results of these cells")
    parser.add_argument("--stacks", type=int, default=1, help="so many stacks beside each other share the cells")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    wanted = chosen.cells or (list(QUICK) if chosen.quick else cells())
    if unknown := set(wanted) - set(cells()):
        parser.error(f"no such cell: {', '.join(sorted(unknown))}")
    section, rounds, held = ("quick", 1, True) if chosen.quick else ("rounds", chosen.rounds, True)
    began = time.monotonic()
    if chosen.part is None:
        FaultStack.say(begin(section, fresh=chosen.fresh or chosen.quick, keys=chosen.cells))
    if chosen.stacks > 1:
        _side_by_side(chosen.stacks, ["--rounds", str(rounds), *(["--cells", *wanted] if chosen.cells else [])])
    else:
        number, of = (int(one) for one in (chosen.part or "1/1").split("/"))
        wanted = wanted[number - 1 :: of]
        with FaultStack(home=HOME if of == 1 else HOME.with_name(f"faults-{number}")).running(versions=3) as stack:
            if chosen.quick:
                held = swaps(stack, count=20, rate=300, judge_latency=False)
            budget_seconds = 200 - (time.monotonic() - began) if chosen.quick else float("inf")
            run(stack, section, wanted, rounds, budget_seconds)
    found = load_results().get(section, {})
    problems = verdict(found, wanted, rounds, LEAST_QUICK_SHARE if chosen.quick else 1.0)
    for problem in problems:
        FaultStack.say(problem)
    played = sum(found.get(cell, {}).get("done", 0) >= rounds for cell in wanted)
    summary = f"{played} of {len(wanted)} cells were played, {rounds} rounds each"
    held = held and not problems
    FaultStack.say(f"{summary}: every invariant held" if held else f"{summary}: FAILED; see {RESULTS}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
