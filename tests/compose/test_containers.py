"""The container stack as its user meets it, in the order in which it happens. Each test builds on the one before."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from compose.conftest import say
from compose.running import Stack, wait_until
from loop.open_load import OpenLoad

pytestmark = [pytest.mark.compose, pytest.mark.timeout(2700)]  # the first test waits for the images

ROW = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
READY_SECONDS = 180.0
BUILD_SECONDS = 10.0
CORE_MB = 3500
BENTO_MB = 200


def running(stack: Stack) -> dict[str, str]:
    return {one["Id"]: one["State"]["StartedAt"] for one in stack.containers() if one["State"]["Running"]}


def is_logged_once(stack: Stack, load: OpenLoad) -> bool:
    """Whether the lake has each answer of this load, and none of them twice."""
    rows = Counter(stack.logged_ids())
    return all(rows[request_id] == 1 for request_id in load.answered_ids())


def test_it_comes_up_healthy_from_nothing(stack: Stack) -> None:
    began = time.monotonic()
    stack.make("compose-start")
    seconds = time.monotonic() - began
    say(f"healthy after {seconds:.0f} s")
    assert seconds <= READY_SECONDS
    assert "healthy" in stack.cli("status").stdout


def test_a_second_up_changes_nothing(stack: Stack) -> None:
    before = running(stack)
    stack.make("compose-start")
    assert running(stack) == before


def test_before_the_first_release_the_gateway_says_so(stack: Stack) -> None:
    with stack.gateway as client:
        assert client.get("/health").status_code == 200
        assert client.post("/predict/iris", json=ROW).status_code == 503


def test_the_loop_goes_from_data_to_a_prediction(stack: Stack) -> None:
    out = stack.cli("demo", "iris", timeout=900).stdout
    say(out)
    assert stack.live_version == "1"
    with stack.gateway as client:
        answer = client.post("/predict/iris", json=ROW)
    assert answer.status_code == 200
    assert answer.json()["prediction"] == "setosa"
    (bento,) = stack.bentos()
    wait_until(lambda: stack.container(bento["Name"][1:])["State"]["Health"]["Status"] == "healthy", 30, "its health")
    assert bento["Config"]["Image"] == "slipway-bento/iris:1"


def test_no_container_has_more_rights_than_it_needs(stack: Stack) -> None:
    for one in stack.containers():
        host, name = one["HostConfig"], one["Name"]
        assert not host["Privileged"], name
        assert host["CapDrop"] == ["ALL"], name
        assert not host["CapAdd"], name
        assert host["ReadonlyRootfs"], name
        assert host["Memory"] > 0, name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert one["Config"]["User"].partition(":")[0] not in ("", "0", "root"), name
        holds_socket = any("docker.sock" in mount["Destination"] for mount in one["Mounts"])
        assert holds_socket == ("agent" in name), name


def test_a_bento_has_the_log_and_no_way_out(stack: Stack) -> None:
    (bento,) = stack.bentos()
    assert [mount["Destination"] for mount in bento["Mounts"]] == ["/var/lib/slipway/spool"]
    assert list(bento["NetworkSettings"]["Networks"]) == ["slipway_serving"]
    assert not bento["HostConfig"]["PortBindings"]


START = {"model": "iris", "version": "1", "digest": "0" * 64, "slot": "green"}


@pytest.mark.parametrize(
    ("token", "wish", "status"),
    [
        ("", START, 401),
        ("not-the-token-of-this-agent", START, 401),
        (None, START | {"image": "debian:12"}, 422),
        (None, START | {"mounts": ["/:/host"]}, 422),
        (None, START | {"privileged": True}, 422),
        (None, START | {"model": "../debian"}, 422),
        (None, START | {"version": "latest"}, 422),
        (None, START | {"version": "77"}, 409),  # no bento of this version
        (None, START, 409),  # another digest than the bento's
    ],
)
def test_the_agent_refuses_what_is_not_slipways(
    stack: Stack, token: str | None, wish: dict[str, Any], status: int
) -> None:
    before = running(stack)
    assert stack.ask_agent("/slots/start", wish, token) == status
    assert running(stack) == before


def test_the_stack_keeps_within_its_memory(stack: Stack) -> None:
    used = stack.memory_mb()
    of_bentos = {name: mb for name, mb in used.items() if name.startswith("slipway-iris-")}
    core = sum(used.values()) - sum(of_bentos.values())
    say(", ".join(f"{name} {mb:.0f} MB" for name, mb in sorted(used.items(), key=lambda item: -item[1])))
    say(f"core {core:.0f} MB")
    assert core <= CORE_MB
    assert of_bentos
    assert all(mb <= BENTO_MB for mb in of_bentos.values()), of_bentos


def drift_decision(stack: Stack, start: datetime) -> dict[str, Any]:
    conf = {"start": start.isoformat(), "end": datetime.now(UTC).isoformat()}
    stack.cli("run", "iris_drift", "--conf", json.dumps(conf))
    lines = stack.cli("ledger", "--json", "--decisions", "--model", "iris").stdout.splitlines()
    return dict(next(row for row in map(json.loads, lines) if row["kind"] == "drift"))


def logged_labels(stack: Stack) -> int:
    lines = stack.cli("log", "status", "--json").stdout.splitlines()
    return next(int(one["labels_today"]) for one in map(json.loads, lines) if one["model"] == "iris")


def test_drift_retrains_and_swaps_containers_without_a_failed_request(stack: Stack) -> None:
    began = datetime.now(UTC)
    shift = ["--shift", "petal_length=+1.5", "--shift", "petal_width=+0.8"]
    with OpenLoad(stack.ports["gateway"], "iris", ROW, rate=100) as load:
        stack.cli("simulate", "iris", "--rows", "3000", "--rate", "200", *shift, "--labels", "--seed", "12")
        wait_until(lambda: logged_labels(stack) >= 3000, 60, "the labels to be in the lake")
        decision = drift_decision(stack, began)
        assert decision["verdict"] == "drift", decision
        wait_until(lambda: stack.live_version == "2", 240, "version 2 to be live")
        wait_until(lambda: load.replies[-1].version == "2", 10, "version 2 to answer")
        before = time.monotonic()
        stack.cli("rollback", "iris")
        say(f"rolled back after {time.monotonic() - before:.1f} s, the command's own start included")
        wait_until(lambda: load.replies[-1].version == "1", 5, "version 1 to answer again")
        back_at = len(load.replies)
        wait_until(lambda: len(load.replies) > back_at + 100, 10, "the load to go on")
    say(f"{len(load.replies)} requests, {len(load.failures())} failed; {dict(load.versions())}")
    assert load.failures() == []
    assert set(load.versions()) == {"1", "2"}
    wait_until(lambda: is_logged_once(stack, load), 60, "every answer to be in the lake once")


def test_an_image_of_a_release_is_built_within_seconds(stack: Stack) -> None:
    built = re.findall(r"built slipway-bento/iris:(\d+) .* in ([0-9.]+) s", stack.log_of("agent"))
    say(f"seconds per image: {dict(built)}")
    assert {"1", "2"} <= {version for version, _ in built}
    assert all(float(seconds) <= BUILD_SECONDS for _, seconds in built)


@pytest.mark.parametrize(("part", "seconds"), [("bento", 20), ("gateway", 20), ("keeper", 30), ("postgres", 30)])
def test_what_is_killed_returns_by_itself_and_nothing_is_lost(stack: Stack, part: str, seconds: float) -> None:
    name = f"slipway-iris-{stack.models()['iris']['live_slot']}" if part == "bento" else part

    def state() -> dict[str, Any]:
        return dict(stack.container(name)["State"])

    with OpenLoad(stack.ports["gateway"], "iris", ROW, rate=50) as load:
        wait_until(lambda: len(load.replies) > 20, 10, "the load to flow")
        before, killed = state()["StartedAt"], time.time()
        stack.docker("kill", stack.container(name)["Id"])
        wait_until(lambda: state()["StartedAt"] != before, seconds, f"{part} to return")
        wait_until(lambda: state()["Health"]["Status"] == "healthy", 60, f"{part} to be healthy")
        healthy, at = time.time(), len(load.replies)
        wait_until(lambda: len(load.replies) > at + 50, 20, "the load to go on")
    failed = load.failures()
    recovered = max((reply.done for reply in failed), default=killed)
    say(f"{part}: healthy after {healthy - killed:.1f} s; {len(failed)} failed, until {recovered - killed:.1f} s")
    assert {reply.status for reply in load.replies if reply.sent > healthy} == {200}
    assert recovered - killed <= seconds
    if part not in ("bento", "gateway"):
        assert failed == []
    wait_until(lambda: is_logged_once(stack, load), 60, "every answer to be in the lake once")


def test_prometheus_reaches_every_part_and_the_bento(stack: Stack) -> None:
    """Grafana has no stand-in, so not the whole profile is started."""
    watching = ("prometheus", "alertmanager", "node-exporter", "postgres-exporter")
    stack.docker.compose("--profile", "monitoring", "up", "-d", *watching)
    stack.make("compose-wait")
    parts = {"keeper:9105", "gateway:9901", "statsd:9102", f"slipway-iris-{stack.models()['iris']['live_slot']}:3000"}
    parts |= {"prometheus:9090", "alertmanager:9093", "node-exporter:9100", "postgres-exporter:9187"}

    def reached() -> bool:
        url = "http://127.0.0.1:9090/api/v1/query?query=up"
        answer = json.loads(stack.docker("exec", stack.container("prometheus")["Id"], "wget", "-qO-", url))
        up = {one["metric"]["instance"]: one["value"][1] for one in answer["data"]["result"]}
        return parts <= set(up) and set(up.values()) == {"1"}

    wait_until(reached, 60, "all targets to be up")


def test_down_and_up_serve_the_same(stack: Stack) -> None:
    version, before = stack.live_version, stack.weights
    stack.cli("down")
    assert stack.containers() == []
    stack.make("compose-start")
    with stack.gateway as client:
        wait_until(lambda: client.post("/predict/iris", json=ROW).status_code == 200, 90, "answers")
        assert client.post("/predict/iris", json=ROW).json()["model_version"] == version
    assert stack.weights == before


def test_tasks_run_in_workers_with_the_profile_celery(stack: Stack) -> None:
    version = stack.live_version
    stack.docker.environment.update(COMPOSE_PROFILES="celery", SLIPWAY_EXECUTOR="celery")
    with stack.env_file.open("a") as file:
        file.write("SLIPWAY_TLS=generated\n")
    stack.make("compose-start")
    stack.certificate = stack.docker("exec", stack.container("keeper")["Id"], "cat", "tls/gateway.crt")
    stack.cli("run", "iris_data")
    # The worker says so a moment after the run has ended.
    succeeded = re.compile(r"Task .*execute_workload.* succeeded")
    wait_until(lambda: succeeded.search(stack.log_of("airflow-worker")), 60, "a worker to say that it ran a task")
    assert stack.live_version == version


def test_the_gateway_speaks_https_when_the_env_file_says_so(stack: Stack) -> None:
    """With the restart of the test before, and for all that follow."""
    with stack.gateway as client:
        assert client.get("/health").status_code == 200
    told = json.loads(stack.cli("predict", "iris", json.dumps(ROW)).stdout)
    assert told["prediction"] == "setosa", "the keeper's container finds and trusts the gateway by its own name"
    stack.certificate, trusted = None, stack.certificate
    with stack.gateway as client, pytest.raises(httpx.RemoteProtocolError):
        client.get("/health")
    stack.certificate = trusted
