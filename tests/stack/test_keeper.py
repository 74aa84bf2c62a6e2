"""What the keeper says about differences: each once, and again when it comes back."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from contracts.tracker_twin import DecisionTwin
from slipway.core.rollout_record import Phase, Rollout
from slipway.jobs.reconcile import Finding
from slipway.keeper import Keeper
from slipway.keeper_metrics import Exporter, Metrics, longest_period_seconds
from slipway.policy import RolloutPolicy
from slipway.ports import Decision
from slipway.settings import Settings


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


AT = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def exporter(registry: CollectorRegistry, **parts: Any) -> Exporter:
    slipway: Any = SimpleNamespace(**parts)
    return Exporter(slipway, Metrics(registry))


def test_drift_quality_and_a_stopped_retraining_are_exported_from_the_newest_decisions(
    registry: CollectorRegistry,
) -> None:
    log = DecisionTwin()
    facts = exporter(registry, decision_log=log)

    def exported(name: str, live_version: str = "1", **labels: str) -> float | None:
        facts.judgement("iris", live_version, AT + timedelta(hours=1))
        return registry.get_sample_value(name, {"model": "iris", **labels})

    assert exported("model_retrain_blocked") == 0
    assert exported("model_drift_age_seconds") is None
    evidence = {"score": 0.4, "quality": {"metric": "accuracy", "value": 0.8}, "champion": "1", "confirmed": True}
    log.record(Decision("d1", "iris", "drift", "drift", (), evidence, AT))
    log.record(Decision("r1", "iris", "retrain", "alert", (), {}, AT))
    assert exported("model_drift_score") == 0.4
    assert exported("model_quality", metric="accuracy") == 0.8
    assert exported("model_drift_age_seconds") == 3600
    assert exported("model_drift_verdict", verdict="drift") == 1
    assert exported("model_drift_verdict", verdict="no_drift") == 0
    assert exported("model_drift_confirmed") == 1
    assert exported("model_drift_verdict", live_version="2", verdict="drift") == 0, "it was about another version"
    assert exported("model_drift_confirmed", live_version="2") == 0
    assert exported("model_retrain_blocked") == 1
    log.record(Decision("r2", "iris", "retrain", "not_needed", (), {}, AT + timedelta(days=1)))
    assert exported("model_retrain_blocked") == 0


def test_a_rollouts_clocks_are_exported_and_go_back_to_zero(registry: CollectorRegistry) -> None:
    facts = exporter(registry)
    running = Rollout(
        id="r",
        model="iris",
        version="2",
        kind="release",
        phase=Phase.BAKING,
        slot="green",
        policy=RolloutPolicy(deadline_seconds=60),
        actor="test",
        reason="test",
        started_at=AT,
        phase_since=AT + timedelta(seconds=30),
        driven_at=AT + timedelta(seconds=90),
    )
    now = AT + timedelta(seconds=100)

    def exported(rollout: Rollout | None) -> dict[str, float | None]:
        facts.rollout("iris", rollout, now)
        names = ("rollout_phase_age_seconds", "rollout_silent_seconds", "rollout_overdue_seconds")
        found = {name: registry.get_sample_value(name, {"model": "iris"}) for name in names}
        return found | {
            "asked": registry.get_sample_value("rollout_awaits_approval", {"model": "iris"}),
            "baking": registry.get_sample_value("rollout_phase", {"model": "iris", "phase": "baking"}),
        }

    assert list(exported(running).values()) == [70, 10, 40, 0, 1]
    asked = replace(running, approval_asked_at=AT + timedelta(seconds=50))
    assert list(exported(asked).values()) == [70, 10, 0, 1, 1], "the deadline waits with us for the person"
    holds = running.policy.model_copy(update={"on_inconclusive": "hold"})
    held = replace(running, policy=holds)
    assert list(exported(held).values()) == [70, 10, 0, 0, 1], "its policy lets it wait; the driver is not silent"
    for phase in (Phase.STARTING, Phase.PROMOTING, Phase.ROLLING_BACK):
        assert exported(replace(held, phase=phase))["rollout_overdue_seconds"] == 40, "nothing is held here"
    assert list(exported(None).values()) == [0, 0, 0, 0, 0]


def test_the_logs_gaps_the_disks_and_the_calendar_are_exported(
    registry: CollectorRegistry, tmp_path: Path, settings: Settings
) -> None:
    log = DecisionTwin()
    fleet = settings.model_copy(update={"home": tmp_path})
    facts = exporter(registry, decision_log=log, settings=fleet)
    for number, hour in enumerate((AT - timedelta(hours=2), AT - timedelta(days=9))):
        evidence = {"start": f"{hour:%Y-%m-%dT%H:%M:%SZ}"}
        key = f"data:iris:coverage:{number}"
        log.record(Decision(key, "iris", "data", "quarantined", (), evidence, AT))
    facts.accounts(["iris"], AT)
    value = registry.get_sample_value
    assert value("prediction_log_incomplete_hours", {"model": "iris"}) == 1, "the older one is no news"
    assert value("model_drift_period_seconds", {"model": "iris"}) == 24 * 3600
    assert value("prediction_log_spool_limit_bytes") == settings.spool_max_bytes
    free, size = (value(f"storage_{name}_bytes", {"folder": "home"}) for name in ("free", "size"))
    assert free is not None
    assert size is not None
    assert 0 < free <= size


@pytest.mark.parametrize(("cron", "hours"), [("0 2 * * *", 24), ("0 2 * * 1-5", 72), ("*/15 * * * *", 0.25)])
def test_a_calendars_longest_pause(cron: str, hours: float) -> None:
    assert longest_period_seconds(cron, AT) == hours * 3600
