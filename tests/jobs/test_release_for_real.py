"""Releases with everything real but the model: Postgres, Envoy, supervisord, and steady traffic all along."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from contracts.services import Cluster, RealEnvoy, RealSupervisor, eventually, free_port
from contracts.twins import TwinPackager, package
from slipway.adapters.envoy import EnvoyGateway
from slipway.adapters.postgres import Database
from slipway.adapters.postgres_ledger import PostgresLedger
from slipway.adapters.postgres_releases import PostgresReleaseStore
from slipway.adapters.slot_probe import HttpSlotProbe, SystemClock
from slipway.adapters.supervisor import SupervisorRuntime
from slipway.core.rollout_record import Phase, Rollout
from slipway.jobs.parts import Parts
from slipway.jobs.releases import Releases
from slipway.spec import ChecksPolicy, RolloutPolicy, Step

pytestmark = pytest.mark.services
POLICY = RolloutPolicy(
    steps=(Step(weight=50, bake_seconds=0.3), Step(weight=100)),
    bake_seconds=0.3,
    ready_timeout_seconds=20,
    deadline_seconds=60,
    drain_seconds=5,
    min_requests=0,
    max_error_rate=0.01,
    checks=ChecksPolicy.off(),
)

# Stands for a bento: ready unless its version is "wrong", answers with its version, "failing" fails half of the time.
SERVER = """
import http.server, os, socketserver, sys
version = os.environ["SLIPWAY_VERSION"]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version, wbufsize, count = "HTTP/1.1", 65536, 0
    def answer(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        Handler.count += 1
        status = 200
        if self.path == "/readyz" and version == "wrong":
            status = 503
        if self.path != "/readyz" and version == "failing" and Handler.count % 2:
            status = 500
        body = b"{}"
        self.send_response(status)
        for name, value in (("content-length", len(body)), ("x-model-version", version), ("x-pid", os.getpid())):
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)
    do_GET = do_POST = answer
    def log_message(self, *a): pass
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    allow_reuse_address, daemon_threads, request_queue_size = True, True, 128
Server(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


@dataclass
class Load:
    """Requests one after another until stopped; every answer is counted by status and version."""

    uri: str
    answers: Counter[tuple[int, str]] = field(default_factory=Counter)
    last_version: str = ""

    def __enter__(self) -> Load:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(timeout=30) as client:
            while not self._stop.wait(0.005):
                answer = client.post(self.uri, json={})
                self.last_version = answer.headers.get("x-model-version", "")
                self.answers[(answer.status_code, self.last_version)] += 1

    @property
    def failed(self) -> dict[tuple[int, str], int]:
        return {key: count for key, count in self.answers.items() if key[0] != 200}


@dataclass
class Stack:
    releases: Releases
    envoy: RealEnvoy
    supervisor: RealSupervisor

    def release(self, version: str) -> Rollout:
        rollout = self.releases.begin(package("iris", version), POLICY, actor="tester", reason="try it")
        for progress in self.releases.drive(rollout, poll_seconds=0.05):
            rollout = progress.rollout
        return rollout

    @property
    def load(self) -> Load:
        return Load(f"{self.envoy.uri}/predict/iris")

    def answering(self) -> str:
        return httpx.post(f"{self.envoy.uri}/predict/iris", json={}, timeout=30).headers.get("x-model-version", "")


@pytest.fixture
def stack(database_url: str, envoy: RealEnvoy, supervisor: RealSupervisor, tmp_path: Path) -> Iterator[Stack]:
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    database = Database(database_url)
    gateway, probe = EnvoyGateway(envoy.xds_dir, envoy.admin_uri), HttpSlotProbe()
    runtime = SupervisorRuntime(
        supervisor.uri,
        supervisor.password,
        slots_dir=supervisor.slots_dir,
        log_dir=tmp_path / "logs",
        command=[sys.executable, "-S", str(script)],
        environment=lambda model: {},
    )
    store = PostgresReleaseStore(database, slot_port_base=free_port())
    ledger = PostgresLedger(database)
    parts = Parts(store, ledger, runtime, gateway, TwinPackager(), probe, SystemClock())
    yield Stack(Releases(parts), envoy, supervisor)
    gateway.close()
    probe.close()
    database.close()


def test_releases_and_a_rollback_under_traffic_lose_nothing(stack: Stack) -> None:
    assert stack.release("1").phase is Phase.LIVE
    with stack.load as load:
        assert stack.release("2").phase is Phase.LIVE
        eventually(lambda: load.last_version == "2")
        began = time.monotonic()
        done = stack.releases.rollback("iris", actor="ops", reason="slower than before")
        eventually(lambda: load.last_version == "1")
        took = time.monotonic() - began
        assert stack.release("3").phase is Phase.LIVE
        eventually(lambda: load.last_version == "3")
    assert load.failed == {}
    assert {version for _, version in load.answers} == {"1", "2", "3"}
    assert (done.to_version, done.warm) == ("1", True)
    assert done.seconds <= took <= 2.0
    assert stack.releases.reconcile() == []


def test_wrong_golden_rows_never_get_a_request(stack: Stack) -> None:
    stack.release("1")
    with stack.load as load:
        ended = stack.releases.begin(
            package("iris", "wrong"),
            POLICY.model_copy(update={"ready_timeout_seconds": 2}),
            actor="tester",
            reason="try it",
        )
        for progress in stack.releases.drive(ended, poll_seconds=0.05):
            ended = progress.rollout
    assert ended.phase is Phase.ROLLED_BACK
    assert set(load.answers) == {(200, "1")}
    assert [slot.version for slot in stack.releases.parts.runtime.list()] == ["1"]


def test_a_version_that_fails_requests_is_rolled_back_by_name(stack: Stack) -> None:
    stack.release("1")
    with stack.load as load:
        ended = stack.release("failing")
        eventually(lambda: load.last_version == "1")
    assert ended.phase is Phase.ROLLED_BACK
    assert ended.failure is not None
    assert ended.failure.startswith("error_rate: ")
    assert {version for status, version in load.failed} <= {"failing"}
    assert stack.answering() == "1"


def test_a_killed_slot_and_a_killed_gateway_return_with_the_same_traffic(stack: Stack) -> None:
    stack.release("1")
    stack.release("2")
    process = httpx.post(f"{stack.envoy.uri}/predict/iris", json={}).headers["x-pid"]
    os.kill(int(process), signal.SIGKILL)
    assert stack.answering() == "2"  # the gateway holds the request until the slot is back
    stack.envoy.kill()
    stack.envoy.start()
    eventually(lambda: stack.answering() == "2")
    eventually(lambda: stack.releases.reconcile() == [])


def test_everything_gone_and_back_serves_the_same_weights(stack: Stack) -> None:
    stack.release("1")
    stack.release("2")
    stack.releases.set_split("iris", {"champion": 50, "challenger": 50}, actor="ops", reason="experiment")
    stack.envoy.kill()
    stack.supervisor.stop()
    stack.supervisor.start()
    stack.envoy.start()
    seen: set[str] = set()
    eventually(lambda: seen.add(stack.answering()) or {"1", "2"} <= seen)
    eventually(lambda: stack.releases.reconcile() == [])


def test_the_gateway_away_during_a_release_is_waited_for(stack: Stack) -> None:
    stack.release("1")
    rollout = stack.releases.begin(package("iris", "2"), POLICY, actor="tester", reason="try it")
    stack.envoy.kill()
    waits = []
    for progress in stack.releases.drive(rollout, poll_seconds=0.05):
        rollout = progress.rollout
        waits.append(progress.waiting or "")
        if "Envoy" in waits[-1]:
            stack.envoy.start()
    assert any("Envoy" in why for why in waits)
    assert rollout.phase is Phase.LIVE
    assert stack.answering() == "2"


def test_postgres_away_during_a_release_is_waited_for(stack: Stack, postgres: Cluster) -> None:
    stack.release("1")
    rollout = stack.releases.begin(package("iris", "2"), POLICY, actor="tester", reason="try it")
    states = []
    for progress in stack.releases.drive(rollout, poll_seconds=0.05):
        states.append(progress)
        rollout = progress.rollout
        if rollout.phase is Phase.SHIFTING and len([s for s in states if s.rollout.phase is Phase.SHIFTING]) == 1:
            postgres.kill()
            threading.Timer(1.0, postgres.start).start()
    assert rollout.phase is Phase.LIVE
    assert any("Postgres" in (progress.waiting or "") for progress in states)
    assert stack.answering() == "2"
