"""What the cockpit keeps and reads: the audit of actions, traffic by the minute, and whole-fleet reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import update

from contracts.traffic_twin import Behaviour, TrafficTwin
from contracts.world import QUICK, World
from slipway.adapters import postgres_tables as tables
from slipway.adapters.postgres import Database
from slipway.adapters.postgres_actions import PostgresActions
from slipway.adapters.postgres_cockpit import PostgresCockpit
from slipway.adapters.postgres_ledger import PostgresDecisionLog
from slipway.adapters.postgres_samples import PostgresSamples
from slipway.core.rollout_record import Phase
from slipway.core.routes import BackendStats
from slipway.errors import ConflictError, NotFoundError, StackError
from slipway.ports import Decision
from slipway.settings import Settings
from slipway.spec import canary
from slipway.wiring import Wiring

pytestmark = pytest.mark.services
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url)
    yield made
    made.close()


def test_an_action_is_on_record_before_it_is_done_and_its_first_outcome_stands(database: Database) -> None:
    actions = PostgresActions(database)
    asked = {"actor": "ann", "via": "session", "action": "abort", "model": "iris"}
    first = actions.ask(**asked, detail={"reason": "slow"}, at=NOW)
    assert [row["outcome"] for row in actions.recent("iris")] == ["asked"]
    actions.finish(first, "done", "", NOW + MINUTE)
    actions.finish(first, "failed", "late", NOW + 2 * MINUTE)
    actions.ask(**(asked | {"model": "solar"}), detail={}, at=NOW + MINUTE)
    row = actions.recent("iris")[0]
    assert (row["outcome"], row["message"], row["finished_at"]) == ("done", "", NOW + MINUTE)
    assert [row["model"] for row in actions.recent()] == ["solar", "iris"]


def test_every_end_of_an_action_is_noted(database: Database) -> None:
    slipway = Wiring(Settings(control_key=SecretStr("k")))
    slipway.__dict__["database"] = database

    def fails(error: Exception) -> Any:
        def work() -> Any:
            raise error

        return work

    who = {"actor": "ann", "via": "key"}
    assert slipway.noted("retrain", "iris", {}, lambda: "begun", **who) == "begun"
    for error in (ConflictError("busy"), StackError("down"), KeyError("/secret/path")):
        with pytest.raises(type(error)):
            slipway.noted("abort", "iris", {}, fails(error), **who)
    told = {(row["outcome"], row["message"]) for row in slipway.recent_actions("iris")}
    assert told == {("done", ""), ("refused", "busy"), ("failed", "down"), ("failed", "KeyError")}


def test_traffic_is_the_difference_of_counters_and_a_restart_counts_from_zero(database: Database) -> None:
    samples = PostgresSamples(database)
    counters = [(100, 1), (160, 1), (200, 3), (30, 0), (90, 0)]  # the fourth look is after a restart
    for minute, counted in enumerate(counters):
        samples.keep({("iris", "blue"): (0, 0), ("iris", "green"): counted}, NOW + minute * MINUTE)
    samples.keep({("iris", "green"): (95, 2)}, NOW + 4 * MINUTE)  # the same minute again: the last look counts
    series = samples.series(NOW, 60, 5)
    assert series == {"iris": {"requests": [0, 60, 40, 30, 65], "errors": [0, 0, 2, 0, 2]}}
    assert samples.series(NOW, 120, 3)["iris"]["requests"] == [60, 70, 65]
    assert samples.series(NOW, 60, 5, "solar") == {}
    samples.forget(NOW + 4 * MINUTE)
    assert samples.series(NOW, 60, 5)["iris"]["requests"] == [0, 0, 0, 0, 0]


def test_what_a_slot_counted_in_a_pause_is_no_traffic(database: Database) -> None:
    samples = PostgresSamples(database)
    for minute, counted in ((0, (100, 1)), (2, (160, 2)), (5, (900, 700)), (6, (950, 703))):
        samples.keep({("iris", "green"): counted}, NOW + minute * MINUTE)
    assert samples.series(NOW, 60, 7) == {
        "iris": {"requests": [0, 0, 60, 0, 0, 0, 50], "errors": [0, 0, 1, 0, 0, 0, 3]}
    }


def test_only_slots_with_traffic_are_sampled(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    slipway = Wiring(Settings(control_key=SecretStr("k")))
    slipway.__dict__ |= {"database": world.database, "releases": world.releases}
    idle: dict[tuple[str, str], tuple[int, int]] = {}
    traffic = TrafficTwin(world, versions={"2": Behaviour(fails=1.0)})

    def look(minute: int, second: int = 30) -> dict[str, list[int]]:
        now = NOW + minute * MINUTE + timedelta(seconds=second)
        monkeypatch.setattr("slipway.wiring.tending.now_utc", lambda: now)
        slipway.sample_traffic(idle)
        return slipway.samples.series(NOW, 60, 10).get("iris", {})

    rollout = world.begin("1")
    assert look(0) == {"requests": [0] * 10, "errors": [0] * 10}
    world.finish(rollout)
    traffic.pass_time(1)
    met = traffic.met["1"]
    assert look(0, 50)["requests"][:2] == [met, 0], "the first minute counts from where the slot was idle"

    world.begin("2", QUICK.model_copy(update={"shadow_percent": 50, "shadow_seconds": 300.0, "steps": canary(50)}))
    world.until(Phase.SHADOWING)
    world.releases.advance("iris")
    for minute in (1, 2, 3, 4):
        mirrored = world.gateway.stats.get("iris_green", BackendStats())
        world.gateway.stats["iris_green"] = replace(mirrored, requests=mirrored.requests + 500, errors=400)
        traffic.pass_time(1)
        seen = look(minute)
        assert (seen["requests"][minute], seen["errors"][minute]) == (traffic.met["1"] - met, 0)
        met = traffic.met["1"]
        side = world.releases.sides("iris")["challenger"]
        assert (side.version, side.weight, side.requests, side.errors) == ("2", 0, 0, 0)
    world.clock.sleep(300)
    world.until(Phase.SHIFTING)
    world.releases.advance("iris")
    traffic.pass_time(1)
    assert look(5)["errors"][5] == 0
    before = traffic.met["2"]
    traffic.pass_time(1)
    world.releases.abort("iris", actor="ops", reason="bad")
    assert look(6)["errors"][6] == traffic.met["2"] - before, "the last answers of a slot that was rolled back"


def test_the_newest_decision_of_each_kind_is_found_for_every_model(database: Database) -> None:
    log, cockpit = PostgresDecisionLog(database), PostgresCockpit(database)
    for model in ("iris", "solar"):
        for hour, verdict in enumerate(("no_drift", "drift")):
            at = NOW + timedelta(hours=hour)
            log.record(Decision(f"{model}{hour}", model, "drift", verdict, ("r",), {"confirmed": bool(hour)}, at))
    log.record(Decision("g", "iris", "gate", "pass", (), {"columns": [1], "rows": 9}, NOW))
    newest = cockpit.newest_decisions(["iris", "solar", "rose"], ["drift", "gate"])
    assert {key: row["verdict"] for key, row in newest.items()} == {
        ("iris", "drift"): "drift",
        ("solar", "drift"): "drift",
        ("iris", "gate"): "pass",
    }
    assert newest["iris", "drift"]["confirmed"] is True
    brief = cockpit.decisions(model="iris", kinds=["gate"], before=None, limit=5, whole=False)
    assert brief[0]["evidence"] == {"rows": 9}
    older = cockpit.decisions(model=None, kinds=None, before=NOW + timedelta(minutes=30), limit=9)
    assert {row["key"] for row in older} == {"iris0", "solar0", "g"}


class Asks:
    """Airflow, as far as it is asked to answer: what it knows of a run, and what it was told."""

    def __init__(self, **knows: Exception | None) -> None:
        self.knows, self.told = knows, list[Any]()

    def answer(self, dag_id: str, run_id: str, task_id: str, option: str) -> None:
        self.told.append((dag_id, run_id, task_id, option))
        if error := self.knows[run_id]:
            raise error


def test_what_was_answered_elsewhere_is_answered_in_airflow_once(world: World) -> None:
    rollouts = {model: world.begin("1", model=model) for model in ("agreed", "ended", "early", "asks", "by_hand")}
    asked = datetime.now(UTC)
    with world.database.begin() as connection:
        for model, rollout in rollouts.items():
            values = {
                "dag_run": None if model == "by_hand" else model,
                "approval_asked_at": asked,
                "approved_at": asked + MINUTE if model in ("agreed", "early", "by_hand") else None,
                "finished_at": asked if model == "ended" else None,
            }
            connection.execute(update(tables.rollouts).where(tables.rollouts.c.id == rollout.id).values(values))
    slipway = Wiring(Settings(control_key=SecretStr("k")))
    airflow = Asks(agreed=None, ended=ConflictError("answered"), early=NotFoundError("not yet"))
    slipway.__dict__ |= {"database": world.database, "airflow": airflow}
    settled: set[str] = set()
    slipway.settle_questions(settled)
    assert sorted(airflow.told) == [
        ("agreed_release", "agreed", "approve", "Approve"),
        ("early_release", "early", "approve", "Approve"),
        ("ended_release", "ended", "approve", "Reject"),
    ]
    airflow.told.clear()
    airflow.knows["early"] = None
    slipway.settle_questions(settled)
    slipway.settle_questions(settled)
    assert airflow.told == [("early_release", "early", "approve", "Approve")]
