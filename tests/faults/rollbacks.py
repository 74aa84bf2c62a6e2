"""How long a rollback takes with Airflow and MLflow stopped: from the command to the former version's first answer.

`make faults-rollback` is the acceptance run: the medians of 5 warm and of 5 cold ones, each by `slipway rollback` in a
process of its own as a person types it, and of 5 warm ones before Airflow and MLflow are stopped. It fails above 1 s
warm and 8 s cold. Results are in `var/bench/faults.json`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import median

import httpx

from faults.results import begin, update_result
from faults.whole_stack import ROW, FaultStack, until
from slipway.core.routes import other_slot
from slipway.stack.supervisor import Supervisor

LIMIT_SECONDS = {"warm": 1.0, "cold": 8.0}
STOPPED = ("airflow-scheduler", "airflow-api-server", "airflow-dag-processor", "airflow-triggerer", "mlflow")
_LONGEST_SECONDS = 60.0
_POLL_SECONDS = 0.01


def stop(stack: FaultStack) -> None:
    """Stop Airflow and MLflow, and wait until they are; what they had started may need longer to end than they do."""
    supervisor = Supervisor(stack.settings)
    for part in STOPPED:
        supervisor.stop(part)
    until(lambda: stack.stopped(*STOPPED), 90, "Airflow and MLflow to be stopped")
    if left := stack.orphans(60):
        raise TimeoutError(f"still there after Airflow and MLflow were stopped: {'; '.join(left)}")


def start(stack: FaultStack) -> None:
    supervisor = Supervisor(stack.settings)
    for part in STOPPED:
        supervisor.start(part)


def end_warmth(stack: FaultStack) -> None:
    """End the time for which the slot without traffic is kept warm, and wait until the keeper has stopped it."""
    live = stack.slipway.store.traffic_of("iris").live_slot
    if live is None:
        raise RuntimeError("no version of iris is live")
    now, idle = datetime.now(UTC), other_slot(live)
    stack.slipway.store.keep_warm("iris", idle, now, now)
    until(lambda: stack.stopped(f"slot-iris-{idle}"), 60, "the slot without traffic to be stopped")


def rollback(stack: FaultStack) -> dict[str, float]:
    """One rollback between the two versions: seconds until the former one answered, and until the command ended."""
    live = stack.slipway.store.traffic_of("iris").live_version
    version = "1" if live == "2" else "2"
    command = [sys.executable, "-m", "slipway.cli", "rollback", "iris", "--to", version]
    answered = 0.0
    with httpx.Client(base_url=stack.settings.gateway_uri, timeout=30) as client:
        client.post("/predict/iris", json=ROW)  # the connection is there before the clock runs
        began = time.monotonic()
        with subprocess.Popen(command, env=stack.stack.env, stdout=subprocess.DEVNULL) as process:
            while not answered:
                answer = client.post("/predict/iris", json=ROW)
                if answer.status_code != 200:
                    raise RuntimeError(f"a request failed during the rollback: {answer.status_code} {answer.text}")
                if answer.headers["x-model-version"] == version:
                    answered = time.monotonic() - began
                elif time.monotonic() - began > _LONGEST_SECONDS:
                    raise TimeoutError(f"version {version} does not answer")
                time.sleep(_POLL_SECONDS)
            if process.wait(_LONGEST_SECONDS):
                raise RuntimeError(f"slipway rollback exited {process.returncode}")
        return {"answered": round(answered, 3), "ended": round(time.monotonic() - began, 3)}


def measure(stack: FaultStack, rounds: int, kinds: Sequence[str], where: str) -> list[str]:
    """All rounds of these kinds; what took too long."""
    problems = []
    for kind in kinds:
        name, limit, taken = f"{kind} {where}", LIMIT_SECONDS[kind], []
        for _ in range(rounds):
            if kind == "cold":
                end_warmth(stack)
            taken.append(rollback(stack))
            stack.say(f"{name}: the former version answered after {taken[-1]['answered']:.2f} s")
        middle = median(one["answered"] for one in taken)
        found = {"median_seconds": middle, "limit_seconds": limit, "rounds": taken, "load_average": os.getloadavg()[0]}
        update_result("rollbacks", name, lambda _, found=found: found)
        stack.say(f"{name}: median {middle:.2f} s, at most {limit:g} s are allowed")
        if middle > limit:
            problems.append(f"{name}: {middle:.2f} s instead of {limit:g} s")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of each kind")
    chosen = parser.parse_args()
    FaultStack.say(begin("rollbacks", fresh=True))
    with FaultStack().running(versions=2) as stack:
        stack.cli("release", "iris", "--version", "2")
        stack.settle(180)
        problems = measure(stack, chosen.rounds, ["warm"], "beside Airflow and MLflow")
        stop(stack)
        problems += measure(stack, chosen.rounds, ["warm", "cold"], "without them")
        start(stack)
        stack.settle(180)
    stack.say("; ".join(problems) or "rollbacks are quick, also without Airflow and MLflow")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
