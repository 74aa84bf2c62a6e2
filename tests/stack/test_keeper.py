"""What the keeper says about differences: each once, and again when it comes back."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from contracts.tracker_twin import DecisionTwin
from slipway.jobs.reconcile import Finding
from slipway.keeper import Keeper, Metrics
from slipway.ports import Decision


def test_a_lasting_difference_is_said_once_and_again_after_it_was_gone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    registry = CollectorRegistry()
    nothing: Any = None
    keeper = Keeper(nothing, Metrics(registry))
    lasting = Finding("alias", "iris", "MLflow does not answer", repaired=False)
    fixed = Finding("slot", "iris", "slot blue should run version 1", repaired=True)

    def differences() -> float | None:
        return registry.get_sample_value("keeper_differences", {"part": "registry"})

    for findings in ([lasting, fixed], [lasting]):
        keeper._report("registry", findings)
        assert differences() == 1
    keeper._report("registry", [])
    assert differences() == 0
    keeper._report("registry", [lasting])
    said = [record.getMessage() for record in caplog.records]
    assert [text.split(" ")[0] for text in said] == ["alias", "slot", "alias"]
    assert said[0].endswith("(not repaired)")
    assert said[1].endswith("(repaired)")


def test_drift_quality_and_a_stopped_retraining_are_exported_from_the_newest_decisions() -> None:
    registry, log = CollectorRegistry(), DecisionTwin()
    slipway: Any = SimpleNamespace(decision_log=log)
    keeper = Keeper(slipway, Metrics(registry))
    at = datetime(2026, 11, 21, tzinfo=UTC)

    def exported(name: str, **labels: str) -> float | None:
        keeper._export_judgement("iris")
        return registry.get_sample_value(name, {"model": "iris", **labels})

    assert exported("model_retrain_blocked") == 0
    evidence = {"score": 0.4, "quality": {"metric": "accuracy", "value": 0.8}}
    log.record(Decision("d1", "iris", "drift", "drift", (), evidence, at))
    log.record(Decision("r1", "iris", "retrain", "alert", (), {}, at))
    assert exported("model_drift_score") == 0.4
    assert exported("model_quality", metric="accuracy") == 0.8
    assert exported("model_retrain_blocked") == 1
    log.record(Decision("r2", "iris", "retrain", "not_needed", (), {}, at + timedelta(days=1)))
    assert exported("model_retrain_blocked") == 0
