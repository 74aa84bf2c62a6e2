"""A world for release tests: real Postgres, twins for the rest, and shorthands that read well."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from contracts.twins import (
    TwinAnswers,
    TwinClock,
    TwinGateway,
    TwinPackager,
    TwinProbe,
    TwinRegistry,
    TwinRuntime,
    package,
)
from slipway.adapters.postgres import Database
from slipway.adapters.postgres_ledger import PostgresLedger
from slipway.adapters.postgres_releases import PostgresReleaseStore
from slipway.core.rollout_record import Phase, Rollout
from slipway.jobs.parts import Parts
from slipway.jobs.releases import Releases
from slipway.spec import RolloutPolicy, all_at_once

QUICK = RolloutPolicy(
    steps=all_at_once(), bake_seconds=1, drain_seconds=5, deadline_seconds=120, replay_requests=0, min_requests=0
)


@dataclass
class World:
    database: Database
    clock: TwinClock
    runtime: TwinRuntime
    gateway: TwinGateway
    probe: TwinProbe
    registry: TwinRegistry
    packager: TwinPackager
    answers: TwinAnswers
    releases: Releases

    @property
    def parts(self) -> Parts:
        return self.releases.parts

    def begin(self, version: str, policy: RolloutPolicy = QUICK, model: str = "iris") -> Rollout:
        made = package(model, version)
        return self.releases.begin(made, policy, actor="tester", reason=f"release {version}")

    def finish(self, rollout: Rollout) -> Rollout:
        for progress in self.releases.drive(rollout):
            rollout = progress.rollout
        return rollout

    def release(self, version: str, policy: RolloutPolicy = QUICK, model: str = "iris") -> Rollout:
        return self.finish(self.begin(version, policy, model))

    def until(self, phase: Phase, model: str = "iris") -> Rollout:
        """Advance the active rollout until it enters the phase."""
        for _ in range(200):
            rollout = self.parts.store.active(model)
            assert rollout is not None, f"the rollout ended before {phase}"
            if rollout.phase is phase:
                return rollout
            self.releases.advance(model)
            self.clock.sleep(0.2)
        raise AssertionError(f"never {phase}")

    def live(self, model: str = "iris") -> str | None:
        return self.parts.store.traffic_of(model).live_version

    def events(self, model: str = "iris") -> list[str]:
        return [row.event for row in reversed(self.releases.history(model))]

    def check_truth(self, model: str = "iris") -> None:
        """The invariants that hold whenever no rollout is active."""
        traffic = self.parts.store.traffic_of(model)
        assert self.parts.store.active(model) is None
        assert self.gateway.weights(model) == traffic.weights
        assert model not in self.gateway.observe().shadows, "traffic is still mirrored"
        running = {s.slot: s.version for s in self.runtime.list() if s.model == model and s.running}
        for slot in traffic.weights:
            assert running.get(slot) is not None, "a slot with traffic does not run"
        if traffic.live_slot:
            assert traffic.weights.get(traffic.live_slot, 0) > 0
            assert running[traffic.live_slot] == traffic.live_version
        row = self.releases.live_at(model, self.clock.now())
        assert (row.version if row else None) == traffic.live_version
        assert self.parts.ledger.weights_at(model, self.clock.now()) == traffic.weights
        history = self.releases.history(limit=10_000)
        assert [row.seq for row in reversed(history)] == list(range(1, len(history) + 1)), "the ledger has a gap"
        recorded = {slot.slot: slot.version for slot in self.parts.store.slots(model) if slot.version}
        assert running == recorded, "slots run that nobody knows of, or the other way round"


def make_world(url: str, folder: Path | None = None) -> World:
    database = Database(url)
    clock, runtime, gateway = TwinClock(), TwinRuntime(folder), TwinGateway(folder)
    probe, registry, packager = TwinProbe(runtime), TwinRegistry(folder), TwinPackager()
    store = PostgresReleaseStore(database, slot_port_base=22300)
    answers = TwinAnswers()
    parts = Parts(store, PostgresLedger(database), runtime, gateway, packager, probe, clock, registry, answers)
    return World(database, clock, runtime, gateway, probe, registry, packager, answers, Releases(parts))


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    made = make_world(database_url)
    yield made
    made.database.close()
