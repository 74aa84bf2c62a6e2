"""How often the retrain decision is right, through the real learning loop: watch, decide, assemble, train, gate.

Traffic is drawn from each model's own data (`Loop.traffic`). What is replaced: MLflow, the lake and the decision table
by their twins, and Evidently's report, which decides nothing, by an empty page.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from contracts.tracker_twin import DecisionTwin
from decisions.case import Case, Outcome
from jobs.loop_cases import END, IRIS, START, Loop
from slipway.core.retrain import Quality
from slipway.jobs import retrain as retrain_jobs
from slipway.ports import Decision
from slipway.spec import Candidate, DriftPolicy, Feature, Metric, ModelSpec, RetrainPolicy, Target

_ROWS = 1000
_LOGISTIC_ONLY = tuple(one for one in IRIS.candidates if one.name == "logistic")


class NoReport:
    """The `DriftReporter` port, without a report."""

    def report(self, reference: pd.DataFrame, window: pd.DataFrame, result: Any) -> tuple[str, str]:
        return "", "{}"


def _load_cancer() -> pd.DataFrame:
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    frame = pd.DataFrame(bunch.data, columns=[name.replace(" ", "_") for name in bunch.feature_names])
    frame = frame[list(frame.columns[:10])]
    frame["diagnosis"] = np.array(["malignant", "benign"])[bunch.target]
    return frame


def _forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_estimators=20, random_state=7)


def _cancer() -> ModelSpec:
    names = [name for name in _load_cancer().columns if name != "diagnosis"]
    return ModelSpec(
        name="cancer",
        task="classification",
        features=tuple(Feature(name=name) for name in names),
        target=Target(name="diagnosis", classes=("malignant", "benign")),
        description="",
        loader=_load_cancer,
        candidates=(Candidate(name="forest", build=_forest),),
        metric=Metric(name="accuracy", floor=0.8),
        golden_rows=(dict.fromkeys(names, 1.0),),
        drift=DriftPolicy(confirm=1, confirm_of=1, null_windows=200),
    )


def _iris() -> ModelSpec:
    drift = IRIS.drift.model_copy(update={"null_windows": 200})
    return IRIS.model_copy(update={"candidates": _LOGISTIC_ONLY, "drift": drift, "retrain": RetrainPolicy()})


SPECS: dict[str, Callable[[], ModelSpec]] = {"iris": _iris, "cancer": _cancer}


def loop_of(spec: ModelSpec) -> Loop:
    """A fresh installation with a champion."""
    loop = Loop(spec=spec, reporter=NoReport())
    loop.first_champion()
    return loop


def _copy(loop: Loop) -> Loop:
    """The same champion, with empty logs."""
    fresh = Loop(spec=loop.spec, reporter=NoReport(), validator=loop.validator)
    fresh.tracker, fresh.lake.frames = loop.tracker, dict(loop.lake.frames)
    fresh.decisions = DecisionTwin()
    return fresh


@dataclass(frozen=True)
class Night:
    """What one night came to: the watch, the decision, and the gate's evidence where there was a training."""

    watched: dict[str, Any]
    decision: dict[str, Any]
    evidence: dict[str, Any] | None

    @property
    def promoted(self) -> bool:
        return self.evidence is not None and self.evidence["verdict"] == "pass"


def night(loop: Loop, start: datetime = START, end: datetime = END) -> Night:
    """Judge what is logged, and train if that is decided."""
    watched = loop.watch(start, end)
    decision = loop.decide(watched)
    if not decision["retrain"]:
        return Night(watched, decision, None)
    trained = loop.train(loop.assemble(decision), "drift")
    return Night(watched, decision, loop.gate(trained["run_id"], "drift"))


def flip_labels(loop: Loop, share: float, random: np.random.Generator, *, only: str | None = None) -> None:
    """Give a share of the labelled rows another class at random, those of class `only` if it is named."""
    classes = loop.spec.target.classes or ()
    labels = loop.lake.labelled["label"].to_numpy(dtype=object).copy()
    eligible = np.flatnonzero(labels == only) if only else np.arange(len(labels))
    count = min(round(share * len(labels)), len(eligible))
    for row in random.choice(eligible, count, replace=False):
        labels[row] = random.choice([name for name in classes if name != labels[row]])
    loop.lake.labelled["label"] = labels


def nothing_new(scale: float) -> list[Outcome]:
    """Traffic like the training data, all of it labelled: nothing is trained."""
    found = []
    for name, build in SPECS.items():
        trials, base = max(2, round(20 * scale)), loop_of(build())
        retrained = 0
        for trial in range(trials):
            loop = _copy(base)
            loop.traffic(_ROWS, labels=True, seed=trial)
            retrained += night(loop).decision["retrain"]
        found.append(Outcome(f"{name}, nothing new: retrains", retrained / trials, 0.05, True, trials))
    return found


def harmless_drift(scale: float) -> list[Outcome]:
    """A shift in features that the model hardly uses: reported as drift, and nothing is trained."""
    trials, base = max(2, round(20 * scale)), loop_of(_iris())
    seen = retrained = 0
    for trial in range(trials):
        loop = _copy(base)
        loop.traffic(_ROWS, labels=True, shifts={"sepal_width": 0.5}, seed=trial)
        outcome = night(loop)
        seen += outcome.watched["verdict"] == "drift"
        retrained += outcome.decision["retrain"]
    return [
        Outcome("drift that does not hurt: reported", seen / trials, 0.95, False, trials),
        Outcome("drift that does not hurt: retrains", retrained / trials, 0.0, True, trials),
    ]


def loss_without_drift(scale: float) -> list[Outcome]:
    """The features stay, their meaning changes: two classes exchange names. Labels alone ask, and the retrain heals."""
    trials, base = max(2, round(20 * scale)), loop_of(_iris())
    drifted = retrained = healed = 0
    for trial in range(trials):
        loop = _copy(base)
        loop.traffic(_ROWS, labels=True, seed=trial)
        exchange = {"versicolor": "virginica", "virginica": "versicolor"}
        loop.lake.labelled["label"] = loop.lake.labelled["label"].replace(exchange)
        outcome = night(loop)
        drifted += outcome.watched["verdict"] == "drift"
        retrained += outcome.decision["retrain"]
        healed += outcome.promoted
    return [
        Outcome("loss without drift: calls it drift", drifted / trials, 0.1, True, trials),
        Outcome("loss without drift: retrains", retrained / trials, 1.0, False, trials),
        Outcome("loss without drift: challenger passes", healed / trials, 0.8, False, trials),
    ]


def poisoned(scale: float) -> list[Outcome]:
    """A fifth of the window's labels is wrong: at random, or all of one class. Nothing trained on them is promoted."""
    found = []
    for name, build in SPECS.items():
        base = loop_of(build())
        # Most of a rare class renamed is the worst: a model that calls all of it the other one fits such labels best.
        kinds = {"at random": None, "of one class": (base.spec.target.classes or ("",))[0]}
        for kind, only in kinds.items():
            trials = max(1, round(40 * scale))
            promoted, retrained, better, losses = 0, 0, 0, []
            for trial in range(trials):
                loop, random = _copy(base), np.random.default_rng([7, trial])
                loop.traffic(_ROWS, labels=True, seed=trial)
                flip_labels(loop, 0.2, random, only=only)
                outcome = night(loop)
                retrained += outcome.decision["retrain"]
                promoted += outcome.promoted
                if outcome.evidence:
                    losses.append(outcome.evidence["remaining_loss_bound"])
                    better += outcome.evidence["lower_bound"] > 0
            # So many were shown to be better than the champion on the wrong labels: without healing they would pass.
            notes = {"retrained": retrained, "better": better, "least_remaining_loss_bound": min(losses, default=None)}
            text = f"{name}, 20 % wrong labels {kind}: promoted"
            found.append(Outcome(text, promoted / trials, 0.0, True, trials, notes=notes))
    return found


def always_drifting(
    nights: int, policy: RetrainPolicy, *, gate_passes: bool, serves: Callable[[], bool] = lambda: True
) -> list[dict[str, Any]]:
    """Nights on which everything drifts and hurts; each retrain is followed by the gate's judgement.

    Args:
        serves: asked after each night whether the champion still answers.
    """
    spec = IRIS.model_copy(update={"retrain": policy})
    decisions, found, champion = DecisionTwin(), [], 1
    lossy = Quality("accuracy", 1000, 1000, 0.6, 0.95, 0.37, 0.33).as_dict()
    for index in range(nights):
        start = START + index * timedelta(days=1)
        now = start + timedelta(days=1, minutes=5)
        span = {"start": start.isoformat(), "end": (start + timedelta(days=1)).isoformat()}
        watched = {"model": spec.name, "champion": str(champion), "verdict": "drift", "confirmed": True, **span}
        decision = retrain_jobs.decide(spec, {**watched, "quality": lossy}, decisions=decisions, now=now)
        found.append({"at": now, "served": serves(), **decision})
        if decision["retrain"]:
            verdict = "pass" if gate_passes else "fail"
            later = now + timedelta(hours=1)
            decisions.record(
                Decision(f"gate:{index}", spec.name, "gate", verdict, ("replayed",), {"reason": "drift"}, later)
            )
            champion += gate_passes
    return found


def most_in_a_week(decided: list[dict[str, Any]]) -> int:
    """The largest number of retrains in any 7 days."""
    times = [one["at"] for one in decided if one["retrain"]]
    return max((sum(timedelta(0) <= at - first < timedelta(days=7) for at in times) for first in times), default=0)


def breaker(scale: float) -> list[Outcome]:
    """Sixty nights of a feed that always drifts, with a gate that always passes and with one that always refuses."""
    nights, policy, loop = 60, RetrainPolicy(), loop_of(_iris())
    golden = pd.DataFrame(list(loop.spec.golden_rows))

    def serves() -> bool:
        champion = loop.tracker.by_alias(loop.spec.name, "champion")
        scorer = loop.files.read(loop.tracker.artefacts / champion.run_id / "model")
        return list(scorer.predict(golden).values) == [0, 1, 2]

    passing = always_drifting(nights, policy, gate_passes=True, serves=serves)
    refused = always_drifting(nights, policy, gate_passes=False, serves=serves)
    served = sum(one["served"] for one in passing + refused)
    after = next((index for index, one in enumerate(passing) if one["verdict"] == "alert"), nights)
    silent = sum(one["verdict"] not in ("retrain", "alert", "held") or not one["reasons"] for one in passing + refused)
    return [
        Outcome("most retrains in any 7 days", most_in_a_week(passing), policy.max_per_week, True, nights, "retrains"),
        Outcome("nights until the first alert", after, policy.max_per_week, True, nights, "nights"),
        Outcome(
            "retrains while the gate refuses",
            sum(one["retrain"] for one in refused),
            policy.max_rejected_in_a_row,
            True,
            nights,
            "retrains",
        ),
        Outcome("nights after which the champion answers", served / (2 * nights), 1.0, False, 2 * nights),
        Outcome("nights without decision and reason", silent / (2 * nights), 0.0, True, 2 * nights),
    ]


CASES = [
    Case("nothing new", nothing_new),
    Case("drift that does not hurt", harmless_drift),
    Case("loss without drift", loss_without_drift),
    Case("poisoned labels", poisoned),
    Case("circuit breaker", breaker),
]
