"""Migrations, constraints, locks, ledger and decisions on a real Postgres."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from contracts.services import Cluster, free_port
from contracts.twins import package
from contracts.world import QUICK
from slipway.adapters.postgres import Database, migrate
from slipway.adapters.postgres_ledger import PostgresDecisionLog, PostgresLedger, append
from slipway.adapters.postgres_releases import PostgresReleaseStore
from slipway.core.rollout_record import Phase, Rollout
from slipway.core.verdict import Check, Verdict
from slipway.errors import ConflictError, NotFoundError, StoreError
from slipway.ports import Decision

pytestmark = pytest.mark.services
NOW = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url)
    yield made
    made.close()


@pytest.fixture
def store(database: Database) -> PostgresReleaseStore:
    return PostgresReleaseStore(database, slot_port_base=22400)


def rollout(name: str = "r1", model: str = "iris", version: str = "1") -> Rollout:
    return Rollout(
        id=name,
        model=model,
        version=version,
        kind="release",
        phase=Phase.PACKAGED,
        slot="blue",
        policy=QUICK,
        actor="a",
        reason="r",
        started_at=NOW,
        phase_since=NOW,
        driven_at=NOW,
    )


def begin(store: PostgresReleaseStore, made: Rollout) -> None:
    store.begin(made, package(made.model, made.version), lambda port: True)


def test_migrating_twice_and_at_once_is_one_migration(postgres: Cluster) -> None:
    postgres.execute("create database fresh")
    url = postgres.url("fresh")
    revisions: list[str] = []
    threads = [threading.Thread(target=lambda: revisions.append(migrate(url))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(revisions) == 3
    assert len(set(revisions)) == 1


def test_a_server_that_is_away_is_an_error_of_ours() -> None:
    url = f"postgresql+psycopg2://slipway:s3cret@127.0.0.1:{free_port()}/slipway"
    for attempt in (lambda: migrate(url), lambda: PostgresLedger(Database(url)).history()):
        with pytest.raises(StoreError, match="slipway status postgres") as caught:
            attempt()
        assert "s3cret" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_rollout_is_read_back_as_it_was_saved(store: PostgresReleaseStore) -> None:
    made = rollout()
    begin(store, made)
    assert store.rollout("r1") == made
    moved = made.moved(Phase.SHIFTING, NOW + timedelta(seconds=5), step=0, failure="why")
    store.save(moved)
    assert store.active("iris") == moved
    with pytest.raises(NotFoundError):
        store.rollout("r2")


def test_one_active_rollout_per_model(store: PostgresReleaseStore) -> None:
    begin(store, rollout("r1"))
    with pytest.raises(ConflictError, match="active rollout"):
        begin(store, rollout("r2", version="2"))
    begin(store, rollout("r3", model="housing"))
    assert [active.id for active in store.all_active()] == ["r3", "r1"]


def test_a_command_is_not_lost_to_a_driver_that_saves_at_the_same_time(store: PostgresReleaseStore) -> None:
    made = rollout()
    begin(store, made)
    assert store.command(made, "abort", actor="ops", reason="no", now=NOW)
    store.save(made.moved(Phase.STARTING, NOW))
    active = store.active("iris")
    assert active is not None
    assert (active.phase, active.command) == (Phase.STARTING, "abort")


def test_a_driver_that_lost_its_lock_does_not_wake_up_what_has_ended(store: PostgresReleaseStore) -> None:
    made = rollout()
    begin(store, made)
    store.end(made, Phase.ABORTED, NOW)

    def shift(old: Rollout) -> None:
        store.shift(old, {"green": 100}, NOW)

    for late in (store.save, shift, lambda old: store.go_live(old, alias_moved=True, now=NOW)):
        with pytest.raises(ConflictError, match="has ended meanwhile"):
            late(made)
    assert store.rollout(made.id).phase is Phase.ABORTED
    assert store.traffic_of("iris").live_version is None


def test_packages_say_what_was_released(store: PostgresReleaseStore) -> None:
    begin(store, rollout())
    assert store.package("iris", "1") == package("iris", "1")
    with pytest.raises(NotFoundError, match="no released version 7; released versions: 1"):
        store.package("iris", "7")


def test_nobody_can_rewrite_the_ledger(database: Database) -> None:
    with database.begin() as connection:
        append(connection, at=NOW, model="iris", event="live", actor="a", reason="r", version="1", slot="blue")
    for statement in ("UPDATE ledger SET version = '2'", "DELETE FROM ledger", "TRUNCATE ledger"):
        with pytest.raises(StoreError, match="append-only"), database.begin() as connection:
            connection.execute(text(statement))
    assert [row.version for row in PostgresLedger(database).history("iris")] == ["1"]


def test_the_ledger_has_no_gaps_under_concurrency_and_failures(database: Database) -> None:
    def write(name: str) -> None:
        for number in range(10):
            try:
                with database.begin() as connection:
                    append(connection, at=NOW, model=name, event="traffic", actor="a", reason="r")
                    if number % 3 == 0:
                        connection.execute(text("SELECT 1 / 0"))
            except StoreError:
                pass

    threads = [threading.Thread(target=write, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seqs = [row.seq for row in PostgresLedger(database).history(limit=1000)]
    assert sorted(seqs) == list(range(1, 19))


def test_what_was_live_at_a_time(database: Database) -> None:
    ledger = PostgresLedger(database)
    for minute, version in ((0, "1"), (10, "2"), (20, "1")):
        at = NOW + timedelta(minutes=minute)
        with database.begin() as connection:
            append(connection, at=at, model="iris", event="live", actor="a", reason="r", version=version)
            detail = {"weights": {"blue": 100 - minute, "green": minute}}
            append(connection, at=at, model="iris", event="traffic", actor="a", reason="r", detail=detail)
    asked = {minute: ledger.live_at("iris", NOW + timedelta(minutes=minute)) for minute in (-1, 0, 9, 10, 25)}
    assert {minute: row and row.version for minute, row in asked.items()} == {
        -1: None,
        0: "1",
        9: "1",
        10: "2",
        25: "1",
    }
    assert ledger.weights_at("iris", NOW + timedelta(minutes=15)) == {"blue": 90, "green": 10}
    assert ledger.weights_at("iris", NOW - timedelta(minutes=1)) == {}
    assert ledger.live_at("housing", NOW) is None


def test_weights_that_do_not_add_up_are_refused_by_the_table(store: PostgresReleaseStore) -> None:
    begin(store, rollout())
    with pytest.raises(StoreError, match="check constraint"):
        store.split("iris", {"blue": 60, "green": 60}, NOW, actor="a", reason="r")


def test_a_lock_has_one_holder_and_ends_with_it(database: Database, database_url: str) -> None:
    other = Database(database_url)
    with database.lock("iris"), pytest.raises(ConflictError, match="worked on by another"), other.lock("iris", 0.1):
        pytest.fail("two holders")
    with database.lock("iris"), other.lock("housing", 0.1):
        pass
    with pytest.raises(ZeroDivisionError), database.lock("iris"):
        raise ZeroDivisionError
    with other.lock("iris", 0.1):
        pass
    other.close()


def test_concurrent_publishers_each_see_the_others_rows(store: PostgresReleaseStore) -> None:
    models = [f"m{number}" for number in range(6)]
    for model in models:
        begin(store, rollout(model, model=model))
    published: list[dict[str, int]] = []

    def publish(model: str) -> None:
        store.split(model, {"blue": 100}, NOW, actor="a", reason="r")
        with store.lock("the gateway's routes"):
            published.append({row.model: row.blue for row in store.traffic()})

    threads = [threading.Thread(target=publish, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert published[-1] == dict.fromkeys(models, 100)


def test_decisions_are_recorded_once_by_key(database: Database) -> None:
    log = PostgresDecisionLog(database)
    made = Decision("gate-1", "iris", "gate", "pass", ("better", "enough rows"), {"p": 0.01}, NOW)
    later = Decision("drift-1", "iris", "drift", "warn", (), {}, NOW + timedelta(hours=1))
    assert log.record(made)
    assert not log.record(Decision("gate-1", "iris", "gate", "fail", (), {}, NOW))
    assert log.record(later)
    assert list(log.recent("iris")) == [later, made]
    assert list(log.recent("iris", "gate")) == [made]
    assert list(log.recent("iris", limit=1)) == [later]
    assert list(log.recent("housing")) == []


def test_evidence_may_quote_any_character(database: Database) -> None:
    """A quarantined text with a NUL in it once ended the task that wanted to say so."""
    log = PostgresDecisionLog(database)
    told = Decision(
        "nul", "texts", "data", "quarantined", ("too long: a\0\ud800b",), {"seen": ["a\0", {"é😀": 1}]}, NOW
    )
    assert log.record(told)
    (kept,) = log.recent("texts")
    assert kept.reasons == ("too long: a\ufffd\ufffdb",)
    assert kept.evidence == {"seen": ["a\ufffd", {"é😀": 1}]}


def test_a_rollout_whose_numbers_are_not_finite_is_saved_all_the_same(store: PostgresReleaseStore) -> None:
    begin(store, rollout())
    odd = {"new_ms": float("inf"), "worse_by": [float("nan"), 1.0], "rows": 3}
    checks = (Check("latency_p99", Verdict.FAIL, "slow", odd),)
    made = replace(rollout(), checks=checks, baseline={"new": {"x": float("-inf")}}, evidence={"log": {"d": odd}})
    store.save(made)
    saved, kept = store.rollout("r1"), {"new_ms": None, "worse_by": [None, 1.0], "rows": 3}
    assert (saved.checks[0].evidence, saved.evidence["log"]["d"], saved.baseline["new"]) == (kept, kept, {"x": None})
    store.end(made, Phase.ROLLED_BACK, NOW)
    assert PostgresLedger(store._database).history("iris")[0].detail["checks"][0]["evidence"] == kept
