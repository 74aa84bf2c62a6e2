"""Drift verdicts measured: false alarms where nothing changed, and how often a change is seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from decisions.case import Case, Outcome
from slipway.core.drift import Column, Reference, confirmed
from slipway.spec import DriftPolicy

__all__ = ["CASES"]

FEATURES, WINDOW_ROWS, REFERENCE_ROWS = 20, 1_000, 20_000
POLICY = DriftPolicy()
_REFERENCES = 5
Frame = NDArray[np.float64]
_AR = 0.9


def independent(random: np.random.Generator, rows: int) -> Frame:
    """Rows that know nothing of each other."""
    return np.asarray(random.normal(size=(rows, FEATURES)))


def autocorrelated(random: np.random.Generator, rows: int) -> Frame:
    """AR(1) with coefficient 0.9 and unit variance, the first hundred rows thrown away."""
    noise = random.normal(size=(rows + 100, FEATURES)) * np.sqrt(1 - _AR**2)
    return np.asarray(lfilter([1.0], [1.0, -_AR], noise, axis=0))[100:]


def reference_of(frame: Frame, *, ordered: bool, seed: int, policy: DriftPolicy = POLICY) -> Reference:
    columns = [Column(f"x{j}", "number", frame[:, j], frame[:0, j]) for j in range(frame.shape[1])]
    return Reference(columns, policy, ordered=ordered, seed=seed)


def verdicts(reference: Reference, windows: Sequence[Frame]) -> list[str]:
    return [reference.judge([window[:, j] for j in range(window.shape[1])]).verdict for window in windows]


def _acts(seen: Sequence[str]) -> int:
    """Windows at which the drift is confirmed, as `{model}_drift` would count them night by night."""
    return sum(
        confirmed(verdict, list(reversed(seen[:at])), POLICY)  # type: ignore[arg-type]
        for at, verdict in enumerate(seen)
    )


def quiet(name: str, make: Callable[[np.random.Generator, int], Frame], *, ordered: bool) -> Case:
    """Windows that follow their reference and come from where it came from."""

    def run(scale: float) -> list[Outcome]:
        each = max(20, int(1000 * scale) // _REFERENCES)
        warned = acted = 0
        for seed in range(_REFERENCES):
            random = np.random.default_rng([seed, 1])
            series = make(random, REFERENCE_ROWS + each * WINDOW_ROWS)
            reference = reference_of(series[:REFERENCE_ROWS], ordered=ordered, seed=seed)
            seen = verdicts(reference, np.split(series[REFERENCE_ROWS:], each))
            warned += seen.count("drift")
            acted += _acts(seen)
        total = each * _REFERENCES
        share = _evidently(make)
        notes = {
            "evidently_defaults_that_warn": share,
            "beside": f"Evidently's defaults warn in {share:.0%}",
        }
        return [
            Outcome(f"{name}: quiet windows that warn", warned / total, 0.02, True, total, notes=notes),
            Outcome(f"{name}: quiet windows that act", acted / total, 0.002, True, total),
        ]

    return Case(f"no drift, {name}", run)


def _evidently(make: Callable[[np.random.Generator, int], Frame], windows: int = 10) -> float:
    """The share of quiet windows in which Evidently with its defaults finds at least one drifted column."""
    import pandas as pd
    from evidently import Report
    from evidently.presets import DataDriftPreset

    random, names = np.random.default_rng(5), [f"x{j}" for j in range(FEATURES)]
    series = make(random, 5_000 + windows * WINDOW_ROWS)
    reference = pd.DataFrame(series[:5_000], columns=names)
    found = 0
    for window in np.split(series[5_000:], windows):
        report = Report([DataDriftPreset(columns=names)]).run(pd.DataFrame(window, columns=names), reference)
        found += report.dict()["metrics"][0]["value"]["count"] > 0
    return found / windows


def _seen(
    name: str, change: Callable[[np.random.Generator, Frame], Frame], least: float, *, within: int, trials: int
) -> Case:
    """How often a change is seen in one of `within` windows after it."""

    def run(scale: float) -> list[Outcome]:
        count, hits = max(20, int(trials * scale)), 0
        references = [
            reference_of(independent(np.random.default_rng([seed, 2]), REFERENCE_ROWS), ordered=False, seed=seed)
            for seed in range(min(_REFERENCES, count))
        ]
        for trial in range(count):
            random = np.random.default_rng([trial, 3])
            windows = [change(random, independent(random, WINDOW_ROWS)) for _ in range(within)]
            hits += "drift" in verdicts(references[trial % len(references)], windows)
        return [Outcome(name, hits / count, least, False, count)]

    return Case(name, run)


def _shifted(_: np.random.Generator, window: Frame) -> Frame:
    moved = window.copy()
    moved[:, 7] += 0.2
    return moved


def flip(scale: float) -> list[Outcome]:
    """The correlation of two columns changes its sign, from 0.6 to -0.6; each by itself stays as it was."""

    def pair(random: np.random.Generator, rows: int, correlation: float) -> Frame:
        frame = independent(random, rows)
        frame[:, 1] = correlation * frame[:, 0] + np.sqrt(1 - correlation**2) * frame[:, 1]
        return frame

    count, hits = max(20, int(200 * scale)), 0
    references = [
        reference_of(pair(np.random.default_rng([seed, 4]), REFERENCE_ROWS, 0.6), ordered=False, seed=seed)
        for seed in range(_REFERENCES)
    ]
    for trial in range(count):
        random = np.random.default_rng([trial, 5])
        windows = [pair(random, WINDOW_ROWS, -0.6) for _ in range(2)]
        hits += "drift" in verdicts(references[trial % _REFERENCES], windows)
    return [Outcome("a correlation flips: seen within 2 windows", hits / count, 0.95, False, count)]


def category(scale: float) -> list[Outcome]:
    """A category that grows from 2 % to 10 %, beside 19 numbers that stay."""

    def drawn(random: np.random.Generator, rows: int, share: float) -> list[NDArray[Any]]:
        frame = random.normal(size=(rows, FEATURES - 1))
        names = np.where(random.random(rows) < share, "rare", np.where(random.random(rows) < 0.5, "a", "b"))
        return [*(frame[:, j] for j in range(FEATURES - 1)), names.astype(object)]

    count, hits = max(20, int(200 * scale)), 0
    references = []
    for seed in range(_REFERENCES):
        values = drawn(np.random.default_rng([seed, 6]), REFERENCE_ROWS, 0.02)
        columns = [
            Column(f"x{j}", "number" if j < FEATURES - 1 else "category", one, one[:0]) for j, one in enumerate(values)
        ]
        references.append(Reference(columns, POLICY, seed=seed))
    for trial in range(count):
        window = drawn(np.random.default_rng([trial, 7]), WINDOW_ROWS, 0.10)
        hits += references[trial % _REFERENCES].judge(window).verdict == "drift"
    return [Outcome("a category grows from 2 % to 10 %: seen", hits / count, 0.95, False, count)]


def nulls(scale: float) -> list[Outcome]:
    """20 % of a column's values vanish: the data checks stop the window before any statistic."""
    from fleet import iris
    from slipway.adapters.gx import GxValidator
    from slipway.jobs.data_checks import check_frame

    count, stopped = max(5, int(50 * scale)), 0
    source = iris.load()
    for trial in range(count):
        random = np.random.default_rng(trial)
        frame = source.iloc[random.integers(0, len(source), WINDOW_ROWS)].reset_index(drop=True)
        frame.loc[random.random(WINDOW_ROWS) < 0.2, iris.MODEL.feature_names[trial % 4]] = np.nan
        outcome = check_frame(iris.MODEL, frame, GxValidator(), min_rows=1, target=False)
        stopped += not outcome.passed
    return [Outcome("20 % nulls appear: stopped by the data checks", stopped / count, 1.0, False, count)]


CASES = [
    quiet("independent rows", independent, ordered=False),
    quiet("AR(1) 0.9", autocorrelated, ordered=True),
    _seen("0.2 deviations in one of 20: seen in one window", _shifted, 0.90, within=1, trials=500),
    Case("a correlation flips", flip),
    Case("a category grows", category),
    Case("nulls appear", nulls),
]
