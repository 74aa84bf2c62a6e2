"""Challengers of six kinds as real bentos under real traffic, with the default canary policy.

`make faults-challengers` is the acceptance run: 20 repeats of each kind, several models beside each other, results in
`var/bench/faults.json`. A kind that has its repeats with this very code is not run again; `--fresh` begins anew. The
same kinds in simulated time, which take a minute, are in `tests/jobs/test_challengers.py`.

A bad version is the serving code with `misbehaving.py` built into it. The champion answers 6 % of the rows
wrongly, so that there is something to do better; labels come for a part of the requests.
"""

from __future__ import annotations

import argparse
import math
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from faults.results import begin, load_results, update_result
from faults.whole_stack import FaultStack, until
from loop.open_load import OpenLoad, Reply
from slipway.adapters.bentoml import BentoPackager
from slipway.core.rollout_record import Rollout
from slipway.settings import PROJECT_DIR
from slipway.spec import load_model
from slipway.stack.supervisor import Supervisor

SECTION = "challengers"
# One error in a hundred is seen in the first step's minute, before more of the traffic meets it, from 600 requests.
# An equal or better version waits for 920 answers of its own in each step.
RATES = {"raises": 200.0} | dict.fromkeys(("equal_a", "equal_b", "equal_c", "better_a", "better_b", "better_c"), 70.0)
RATE = 50.0
LABELS_PER_SECOND = 20
STAGGER_SECONDS = 15.0
MOST_STOOD_STILL = 10
FIRST_STEP_PERCENT = 5
MISBEHAVING = Path(__file__).parent / "misbehaving.py"
# Added to the end of predictor/model.py of a bad version.
_BUILT_IN = """
from predictor.misbehaving import misbehaving

load_model = misbehaving(load_model, "{kind}")
"""
# What must end each kind, by the name that the rollout's failure starts with; None: it must be promoted.
EXPECTED: dict[str, tuple[str, ...] | None] = {
    "slow": ("latency_p50", "latency_p99", "replay: latency"),
    "raises_on_1_per_cent": ("error_rate", "replay: errors"),
    "crashes_after_30_s": ("readiness", "stability", "error_rate"),
    "shifted": ("divergence", "replay: predictions"),
    "equal": None,
    "better": None,
}
# The models and the kinds of their challengers. Long trials have more models, so that all end at about the same time.
MODELS = {
    "slow_shifted": ("slow", "shifted"),
    "crashes": ("crashes_after_30_s",),
    "raises": ("raises_on_1_per_cent",),
    "equal_a": ("equal",),
    "equal_b": ("equal",),
    "equal_c": ("equal",),
    "better_a": ("better",),
    "better_b": ("better",),
    "better_c": ("better",),
}
# Lanes go beside each other, the models of a lane one after another: all at once are more than two cores can carry.
LANES = (("slow_shifted", "crashes", "raises"), *((name,) for name in MODELS if name.startswith(("equal", "better"))))
_SPEC = """from slipway.settings import PROJECT_DIR
from slipway.spec import RolloutPolicy, load_model

REAL = load_model(PROJECT_DIR / "include" / "fleet", "iris")
MODEL = REAL.model_copy(update={{"name": "{name}", "rollout": RolloutPolicy(), "candidates": REAL.candidates[:1]}})
"""


@dataclass
class Trial:
    """One release of one challenger.

    Attributes:
        failed_requests: how many had which status and detail.
        exposed_share: of the requests during the rollout, those that the challenger answered.
        problem: empty when it ended as it must.
    """

    kind: str
    phase: str
    failure: str
    seconds: float
    requests: int
    failed_requests: dict[str, int]
    exposed_share: float
    problem: str


def rows_and_labels(count: int = 1000) -> tuple[list[dict[str, Any]], list[str]]:
    """Flowers like the training data's, and their species."""
    spec = load_model(PROJECT_DIR / "include" / "fleet", "iris")
    frame, random = spec.loader(), np.random.default_rng(7)
    drawn = frame.iloc[random.integers(0, len(frame), count)].reset_index(drop=True)
    names = [feature.name for feature in spec.features]
    values = (drawn[names] + random.normal(0.0, 0.05, (count, len(names)))).clip(lower=0.05).round(3)
    return values.to_dict("records"), drawn[spec.target.name].tolist()


def judge(kind: str, rollout: Rollout, replies: list[Reply]) -> Trial:
    """Compare what came of a trial with what must come of its kind."""
    expected, failure = EXPECTED[kind], rollout.failure or ""
    answered = [reply for reply in replies if reply.status == 200]
    exposed = sum(reply.version == rollout.version for reply in replies) / max(1, len(replies))
    problem = ""
    if expected is None:
        problem = "" if rollout.phase.value == "live" else f"{rollout.phase.value}: {failure}"
    elif rollout.phase.value != "rolled_back" or not failure.startswith(expected):
        problem = f"{rollout.phase.value}: {failure or 'no failure'}"
    elif exposed > _most_exposed(len(replies)):
        problem = f"{exposed:.1%} of the traffic met it"
    wrong = {reply.version for reply in answered} - {rollout.version, rollout.previous_version}
    if wrong:
        problem = f"answered by versions {sorted(wrong)}"
    seconds = (rollout.finished_at - rollout.started_at).total_seconds() if rollout.finished_at else 0.0
    failed, share = why_failed(replies), round(exposed, 4)
    return Trial(kind, rollout.phase.value, failure, seconds, len(replies), failed, share, problem)


def why_failed(replies: list[Reply]) -> dict[str, int]:
    """How many of the failed requests had which status and detail."""
    return dict(Counter(f"{reply.status} {reply.error}" for reply in replies if reply.status != 200))


def _most_exposed(requests: int) -> float:
    """The first step's share, with three standard deviations of a random choice per request."""
    share = FIRST_STEP_PERCENT / 100
    return share + 3 * math.sqrt(share * (1 - share) / max(1, requests))


class Labels:
    """Sends the true labels of some of the answered requests, a second after the answer."""

    def __init__(self, gateway_uri: str, model: str, load: OpenLoad, labels: list[str]) -> None:
        self._uri, self._load, self._labels = f"{gateway_uri}/feedback/{model}", load, labels
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Labels:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        seen = 0
        with httpx.Client(timeout=10) as client:
            while not self._stop.wait(1.0):
                new, seen = self._load.replies[seen:], len(self._load.replies)
                chosen = [reply for reply in new if reply.status == 200][:LABELS_PER_SECOND]
                body = [{"request_id": one.request_id, "label": self._labels[one.row]} for one in chosen]
                if body:
                    client.post(self._uri, json=body)


class Challengers:
    """The stack with one model for each line of `MODELS`."""

    def __init__(self, fleet: Path, repeats: int) -> None:
        for name in MODELS:
            (fleet / f"{name}.py").write_text(_SPEC.format(name=name))
        self.stack, self.repeats = FaultStack(fleet), repeats
        self.rows, self.labels = rows_and_labels()
        self._lock = threading.Lock()
        self._begun: dict[str, int] = {}
        self._stood_still = 0
        self._drivers: dict[str, subprocess.Popen[bytes]] = {}
        self._stopping = False

    def prepare(self) -> None:
        """Version 1 of each model live, and one version for each kind registered and packaged."""
        stack = self.stack
        for part in ("scheduler", "dag-processor", "triggerer", "api-server"):  # nothing here needs Airflow
            Supervisor(stack.settings).stop(f"airflow-{part}")
        for name, kinds in MODELS.items():
            for kind in ("equal", *kinds):
                with tempfile.TemporaryDirectory(prefix="slipway-serving-") as folder:
                    stack.make_version(name, self._packager(kind, Path(folder) / "bentos"))
            stack.say(f"{name}: versions for {kinds} are packaged")
        with ThreadPoolExecutor(len(MODELS)) as pool:
            list(pool.map(lambda name: stack.cli("release", name, "--version", "1"), MODELS))

    def _packager(self, kind: str, folder: Path) -> BentoPackager:
        slipway, settings = self.stack.slipway, self.stack.settings
        shutil.copytree(PROJECT_DIR / "bentos", folder, ignore=shutil.ignore_patterns(".venv", "__pycache__"))
        with (folder / "predictor" / "model.py").open("a") as code:
            code.write(_BUILT_IN.format(kind=kind))
        shutil.copy(MISBEHAVING, folder / "predictor" / "misbehaving.py")
        mlflow = slipway.mlflow
        return BentoPackager(mlflow, mlflow, settings.serving_python, folder, settings.bentoml_home)

    def run(self) -> None:
        """Every model goes through its trials under its own load."""
        with ThreadPoolExecutor(len(LANES)) as pool:
            for done in [pool.submit(self._lane, lane, place) for place, lane in enumerate(LANES)]:
                done.result()

    def _lane(self, names: Sequence[str], place: int) -> None:
        time.sleep(place * STAGGER_SECONDS)
        for name in names:
            self._trials(name)

    def _trials(self, name: str) -> None:
        settings = self.stack.settings
        with (
            OpenLoad(settings.gateway_port, name, self.rows, rate=RATES.get(name, RATE)) as load,
            Labels(settings.gateway_uri, name, load, self.labels),
        ):
            time.sleep(5)
            for number, kind in enumerate(MODELS[name]):
                while not self._stopping and self._wanted(kind):
                    trial = self._trial(name, kind, str(2 + number), load)
                    if self._stopping:
                        return
                    if not trial.problem and trial.requests < trial.seconds * RATES.get(name, RATE) / 2:
                        trial.problem = "the load stood still: this machine is too busy for a trial"
                        if self._may_repeat(kind):
                            self.stack.say(f"{name}: {trial.problem}; once more: {asdict(trial)}")
                            continue
                    self._keep(trial)
                    self.stack.say(f"{name}: {trial.problem or 'as it must'}: {asdict(trial)}")

    def _trial(self, name: str, kind: str, version: str, load: OpenLoad) -> Trial:
        stack, began = self.stack, time.time()
        command = [sys.executable, "-m", "slipway.cli", "release", name, "--version", version]
        quiet = subprocess.DEVNULL
        with subprocess.Popen(command, env=stack.stack.env, stdout=quiet, stderr=quiet) as driver:
            self._drivers[name] = driver
            driver.wait(3900)
        rollout = until(lambda: stack.slipway.store.latest(name), 30, "the rollout")
        replies = load.between(began, time.time())
        if rollout.version == version and rollout.phase.value == "live":
            stack.cli("rollback", name, "--to", "1")
        until(lambda: stack.slipway.releases.live(name).version == "1", 60, "the champion to be back")
        return judge(kind, rollout, replies)

    def _wanted(self, kind: str) -> bool:
        """Whether one more trial is to begin; models that share a kind share its repeats."""
        with self._lock:
            begun = self._begun.setdefault(kind, len(load_results().get(SECTION, {}).get(kind, [])))
            self._begun[kind] = begun + 1
            return begun < self.repeats

    def _may_repeat(self, kind: str) -> bool:
        """Whether a trial that proves nothing may be left out, as a few may; its repeat is free again then."""
        with self._lock:
            self._stood_still += 1
            if self._stood_still > MOST_STOOD_STILL:
                return False
            self._begun[kind] -= 1
            return True

    def stop(self) -> None:
        """End the running trials without a result, so that the stack can be stopped."""
        self._stopping = True
        for driver in self._drivers.values():
            driver.terminate()

    def _keep(self, trial: Trial) -> None:
        update_result(SECTION, trial.kind, lambda known: [*(known or []), asdict(trial)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    chosen = parser.parse_args()
    FaultStack.say(begin(SECTION, fresh=chosen.fresh))
    with tempfile.TemporaryDirectory(prefix="slipway-fleet-") as folder:
        harness = Challengers(Path(folder), chosen.repeats)
        with harness.stack.running(versions=0):
            harness.prepare()
            signal.signal(signal.SIGTERM, lambda *_: harness.stop())
            harness.run()
    found = load_results().get(SECTION, {})
    for kind, trials in found.items():
        wrong = [trial["problem"] for trial in trials if trial["problem"]]
        harness.stack.say(f"{kind}: {len(trials)} trials, {len(wrong)} wrong {wrong[:3]}")
    held = all(len(found.get(kind, [])) >= chosen.repeats for kind in EXPECTED)
    return 0 if held and not any(trial["problem"] for trials in found.values() for trial in trials) else 1


if __name__ == "__main__":
    sys.exit(main())
