"""Releases with everything real: Postgres, Envoy, supervisord, bentos under `bentoml serve`, the spool and the lake."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import pytest

import bento_cases
from bento_cases import ROW, ROW_2, write_iris
from contracts.services import RealEnvoy, RealSupervisor, eventually, free_port
from contracts.twins import TwinPackager, package
from slipway.adapters.envoy import EnvoyGateway
from slipway.adapters.lake import ParquetLake
from slipway.adapters.postgres import Database
from slipway.adapters.postgres_ledger import PostgresLedger
from slipway.adapters.postgres_releases import PostgresReleaseStore
from slipway.adapters.slot_probe import HttpSlotProbe, SystemClock
from slipway.adapters.spool import Spool
from slipway.adapters.supervisor import SupervisorRuntime
from slipway.core.rollout_record import Phase, Rollout
from slipway.jobs.answers import LakeAnswers
from slipway.jobs.parts import Parts
from slipway.jobs.releases import Releases
from slipway.jobs.ship import ship
from slipway.ports import Package
from slipway.settings import PROJECT_DIR
from slipway.spec import ChecksPolicy, RolloutPolicy, Step

pytestmark = pytest.mark.services
SERVE = """#!/bin/sh
cd {bentos}
export SLIPWAY_ARTEFACTS_DIR="$1/artefacts"
shift
exec {python} -m bentoml serve service:Predictor "$@"
"""
# The machine may be busy with something else: latency is compared, with room.
CHECKS = ChecksPolicy(latency_p50_ratio=3.0, latency_p99_ratio=5.0, latency_floor_ms=250.0, max_divergence=0.3)
POLICY = RolloutPolicy(
    steps=(Step(weight=50, bake_seconds=2.0), Step(weight=100)),
    bake_seconds=1.0,
    replay_requests=40,
    shadow_percent=100,
    shadow_seconds=1.0,
    min_requests=50,
    max_error_rate=0.05,
    deadline_seconds=60.0,
    drain_seconds=2.0,
    checks=CHECKS.model_copy(update={"min_rows": 50}),
)


@dataclass
class Stack:
    releases: Releases
    envoy: RealEnvoy
    lake: ParquetLake
    folder: Path

    def release(self, version: str, policy: RolloutPolicy) -> Rollout:
        made = package("iris", version)
        path = self.folder / f"v{version}"
        write_iris(path / "artefacts", version=version)
        made = Package(made.model, made.version, made.bento_tag, path, made.digest)
        rollout = self.releases.begin(made, policy, actor="tester", reason="try it")
        for progress in self.releases.drive(rollout, poll_seconds=0.1):
            rollout = progress.rollout
        return rollout


@pytest.fixture
def stack(database_url: str, envoy: RealEnvoy, supervisor: RealSupervisor, tmp_path: Path) -> Iterator[Stack]:
    serving = PROJECT_DIR / "bentos"
    script = tmp_path / "serve"
    script.write_text(SERVE.format(bentos=serving, python=serving / ".venv" / "bin" / "python"))
    environment = {
        "BENTOML_HOME": str(tmp_path / "home"),
        "BENTOML_DO_NOT_TRACK": "True",
        "SLIPWAY_SPOOL_DIR": str(tmp_path / "spool"),
        "SLIPWAY_SPOOL_SEGMENT_MAX_AGE_SECONDS": "0.5",
    }
    database, spool, lake = Database(database_url), Spool(tmp_path / "spool"), ParquetLake(str(tmp_path / "lake"))
    gateway, probe = EnvoyGateway(envoy.xds_dir, envoy.admin_uri), HttpSlotProbe()
    runtime = SupervisorRuntime(
        supervisor.uri,
        supervisor.password,
        slots_dir=supervisor.slots_dir,
        log_dir=tmp_path / "logs",
        command=["/bin/sh", str(script)],
        environment=lambda model: environment,
    )
    store = PostgresReleaseStore(database, slot_port_base=free_port())
    answers = LakeAnswers(lake, lambda model: dict.fromkeys(ROW, False), lambda: ship(spool, lake))
    ledger = PostgresLedger(database)
    parts = Parts(store, ledger, runtime, gateway, TwinPackager(), probe, SystemClock(), None, answers)
    yield Stack(Releases(parts), envoy, lake, tmp_path)
    gateway.close()
    probe.close()
    database.close()


class Load:
    """About a hundred requests a second until stopped, four of five of one class; each poses as a shadow."""

    def __init__(self, stack: Stack) -> None:
        self._uri, self.answers = f"{stack.envoy.uri}/predict/iris", Counter[tuple[int, str]]()
        self._stop = threading.Event()

    def __enter__(self) -> Load:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        rows = itertools.cycle([ROW, ROW, ROW, ROW, ROW_2])
        with httpx.Client(timeout=30) as client:
            while not self._stop.wait(0.008):
                answer = client.post(self._uri, json=next(rows), headers={"x-slipway-shadow": "1"})
                self.answers[answer.status_code, answer.headers.get("x-model-version", "")] += 1


def test_a_version_is_replayed_shadowed_watched_and_promoted_and_its_bad_successor_is_not(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stack.release("1", POLICY).phase is Phase.LIVE
    began = datetime.now(UTC) - timedelta(seconds=5)
    with Load(stack) as load:
        time.sleep(2.0)
        promoted = stack.release("2", POLICY)
        assert (promoted.phase, promoted.failure) == (Phase.LIVE, None)
        eventually(lambda: load.answers[200, "2"] > 100)
        # The same features, but the classes' weights are in another order.
        monkeypatch.setattr(bento_cases, "WEIGHTS", np.ascontiguousarray(bento_cases.WEIGHTS[[2, 1, 0]]))
        seen_before = load.answers[200, "3"]
        replayed = stack.release("3", POLICY)
        shadowed = stack.release("4", POLICY.model_copy(update={"replay_requests": 0}))
        assert load.answers[200, "3"] == load.answers[200, "4"] == seen_before == 0
        watched = stack.release("5", POLICY.model_copy(update={"replay_requests": 0, "shadow_percent": 0}))
    assert (replayed.failure or "").startswith("replay: predictions: ")
    assert (shadowed.failure or "").startswith("shadow: ")
    assert (watched.failure or "").startswith("divergence: ")
    assert {status for status, _ in load.answers} == {200}
    report = promoted.replay.evidence["report"] if promoted.replay else ""
    assert json.loads(Path(report).with_name("replay.json").read_text())["verdict"] == "pass"
    eventually(lambda: ship_all(stack) >= sum(load.answers.values()))
    live = stack.lake.predictions("iris", began, datetime.now(UTC) + timedelta(seconds=5))
    assert Counter(live["version"]) == Counter({version: count for (_, version), count in load.answers.items()})
    shadow = stack.lake.predictions("iris", began, datetime.now(UTC) + timedelta(seconds=5), shadow=True)
    assert {"2", "3", "4"} <= set(shadow["version"])
    assert "5" not in set(shadow["version"])


def ship_all(stack: Stack) -> int:
    assert stack.releases.parts.answers is not None
    until = datetime.now(UTC) + timedelta(seconds=5)
    stack.releases.parts.answers.latency("iris", until - timedelta(hours=1), until)
    return stack.lake.count_predictions("iris", until - timedelta(hours=1), until)
