"""The container stack as its user meets it, in the order in which it happens. Each test builds on the one before."""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from compose.conftest import Stack, say, wait_until
from loop.open_load import OpenLoad

pytestmark = pytest.mark.compose

ROW = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
READY_SECONDS = 180.0
CORE_MB = 3500
BENTO_MB = 200


def live_version(stack: Stack) -> str:
    return str(stack.models()["iris"]["live_version"])


def weights(stack: Stack) -> dict[str, int]:
    return {slot: facts["weight"] for slot, facts in stack.models()["iris"]["slots"].items()}


def bentos(stack: Stack) -> list[dict[str, Any]]:
    return [one for one in stack.containers() if "slipway.model" in (one["Config"]["Labels"] or {})]


def memory_mb(stack: Stack) -> dict[str, float]:
    """What each container's processes hold, in MB; the page cache that Linux would give back is left out."""
    units = {"B": 1e-6, "KiB": 1024 / 1e6, "MiB": 1024**2 / 1e6, "GiB": 1024**3 / 1e6}
    lines = stack.docker("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}").splitlines()
    found = (re.match(r"(\S+) ([0-9.]+)([KMG]?i?B)", line) for line in lines)
    return {match[1]: float(match[2]) * units[match[3]] for match in found if match}


def test_it_comes_up_healthy_from_nothing(stack: Stack) -> None:
    began = time.monotonic()
    stack.make("compose-start")
    seconds = time.monotonic() - began
    say(f"healthy after {seconds:.0f} s")
    assert seconds <= READY_SECONDS
    assert "healthy" in stack.cli("status").stdout


def test_a_second_up_changes_nothing(stack: Stack) -> None:
    before = {one["Id"]: one["State"]["StartedAt"] for one in stack.containers() if one["State"]["Running"]}
    stack.make("compose-start")
    after = {one["Id"]: one["State"]["StartedAt"] for one in stack.containers() if one["State"]["Running"]}
    assert after == before


def test_no_container_has_more_rights_than_it_needs(stack: Stack) -> None:
    for one in stack.containers():
        host, name = one["HostConfig"], one["Name"]
        assert not host["Privileged"], name
        assert host["CapDrop"] == ["ALL"], name
        assert host["ReadonlyRootfs"], name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert one["Config"]["User"] not in ("", "0", "root"), name
        holds_socket = any("docker.sock" in mount["Destination"] for mount in one["Mounts"])
        assert holds_socket == ("agent" in name), name


def test_before_the_first_release_the_gateway_says_so(stack: Stack) -> None:
    with stack.gateway as client:
        assert client.get("/health").status_code == 200
        assert client.post("/predict/iris", json=ROW).status_code == 503


def test_the_loop_goes_from_data_to_a_prediction(stack: Stack) -> None:
    out = stack.cli("demo", "iris", timeout=900).stdout
    say(out)
    assert live_version(stack) == "1"
    with stack.gateway as client:
        answer = client.post("/predict/iris", json=ROW)
    assert answer.status_code == 200
    assert answer.json()["prediction"] == "setosa"
    assert [one["State"]["Health"]["Status"] for one in bentos(stack)] == ["healthy"]


def test_the_stack_keeps_within_its_memory(stack: Stack) -> None:
    used = memory_mb(stack)
    say(", ".join(f"{name} {mb:.0f} MB" for name, mb in sorted(used.items(), key=lambda item: -item[1])))
    of_bentos = {name: mb for name, mb in used.items() if name.startswith("slipway-iris-")}
    assert sum(used.values()) - sum(of_bentos.values()) <= CORE_MB
    assert all(mb <= BENTO_MB for mb in of_bentos.values()), of_bentos


def drift_decision(stack: Stack, start: datetime) -> dict[str, Any]:
    conf = {"start": start.isoformat(), "end": datetime.now(UTC).isoformat()}
    stack.cli("run", "iris_drift", "--conf", json.dumps(conf))
    rows = [
        json.loads(line) for line in stack.cli("ledger", "--json", "--decisions", "--model", "iris").stdout.splitlines()
    ]
    return dict(next(row for row in rows if row["kind"] == "drift"))


def logged(stack: Stack) -> dict[str, Any]:
    return dict(json.loads(stack.cli("log", "status", "--json").stdout))


def test_drift_retrains_and_swaps_containers_without_a_failed_request(stack: Stack) -> None:
    began = datetime.now(UTC)
    shift = ["--shift", "petal_length=+1.5", "--shift", "petal_width=+0.8"]
    with OpenLoad(stack.ports["gateway"], "iris", ROW, rate=100) as load:
        stack.cli("simulate", "iris", "--rows", "3000", "--rate", "200", *shift, "--labels", "--seed", "12")
        time.sleep(8)  # a spool segment is sealed after five seconds
        decision = drift_decision(stack, began)
        assert decision["verdict"] == "drift", decision
        wait_until(lambda: live_version(stack) == "2", 240, "version 2 to be live")
        wait_until(lambda: load.replies[-1].version == "2", 10, "version 2 to answer")
        before = time.monotonic()
        stack.cli("rollback", "iris")
        say(f"rollback after {time.monotonic() - before:.1f} s")
        wait_until(lambda: load.replies[-1].version == "1", 2, "version 1 to answer again")
        back_at = len(load.replies)
        wait_until(lambda: len(load.replies) > back_at + 100, 10, "the load to go on")
    assert load.failures() == []
    assert set(load.versions()) == {"1", "2"}


@pytest.mark.parametrize(("part", "seconds"), [("bento", 15), ("gateway", 15), ("keeper", 30), ("postgres", 30)])
def test_what_is_killed_returns_by_itself_and_nothing_is_lost(stack: Stack, part: str, seconds: float) -> None:
    name = f"slipway-iris-{stack.models()['iris']['live_slot']}" if part == "bento" else part
    with OpenLoad(stack.ports["gateway"], "iris", ROW, rate=50) as load:
        wait_until(lambda: len(load.replies) > 20, 10, "the load to flow")
        killed = time.time()
        before = stack.container(name)["State"]["StartedAt"]
        stack.docker("kill", stack.container(name)["Id"])
        wait_until(lambda: stack.container(name)["State"]["StartedAt"] != before, seconds, f"{part} to return")
        wait_until(lambda: stack.container(name)["State"]["Health"]["Status"] == "healthy", 60, f"{part} to be healthy")
        at = len(load.replies)
        wait_until(lambda: len(load.replies) > at + 50, 20, "the load to go on")
    assert {reply.status for reply in load.replies[at:]} == {200}
    recovered = max((reply.done for reply in load.failures()), default=killed)
    assert recovered - killed <= seconds
    if part not in ("bento", "gateway"):
        assert load.failures() == []


def test_down_and_up_serve_the_same(stack: Stack) -> None:
    version, before = live_version(stack), weights(stack)
    stack.cli("down")
    assert stack.containers() == []
    stack.make("compose-start")
    wait_until(lambda: bentos(stack), 30, "the bento to return")
    with stack.gateway as client:
        wait_until(lambda: client.post("/predict/iris", json=ROW).status_code == 200, 60, "answers")
        assert client.post("/predict/iris", json=ROW).json()["model_version"] == version
    assert weights(stack) == before


def test_no_container_or_image_is_left_over(stack: Stack) -> None:
    images = stack.docker("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    assert len([image for image in images if image.startswith("slipway-bento/iris")]) <= 3
    stack.make("down-volumes", "YES=1")
    assert stack.containers() == []
    assert [name for name in stack.docker("volume", "ls", "--quiet").split() if "slipway" in name] == []
