"""The running stack beside its own Prometheus and Alertmanager, at their own pace: no alert while all is well, three
faults that raise theirs, and data in every panel. Each test builds on the one before."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from loop.conftest import Stack, free_ports, wait_until
from loop.open_load import OpenLoad
from prometheus_parts import Inbox, Monitor, require, running, webhook
from slipway.settings import PROJECT_DIR

pytestmark = pytest.mark.monitoring

ROW = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
SHIFT = ("--shift", "petal_length=+1.5", "--shift", "petal_width=+0.8")
SCRAPED_SECONDS = 60  # the keeper looks every 2 s, Prometheus scrapes every 5 s and evaluates every 15 s


@dataclass
class Watched:
    """The stack, the Prometheus in it, what Alertmanager sent, and when all of it began (Unix time)."""

    stack: Stack
    monitor: Monitor
    inbox: Inbox
    began: float


@pytest.fixture(scope="module")
def watched(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """The stack with exporters to scrape and a webhook to send alerts to, both named in its settings."""
    settings, folder = stack.settings(), tmp_path_factory.mktemp("exporters")
    node, postgres = (f"127.0.0.1:{port}" for port in free_ports(2))
    login = {
        "DATA_SOURCE_URI": f"127.0.0.1:{settings.postgres_port}/slipway?sslmode=disable",
        "DATA_SOURCE_USER": "slipway",
        "DATA_SOURCE_PASS": settings.secret("postgres_password"),
    }
    for tool in ("prometheus", "alertmanager"):
        require(tool)
    with (
        webhook() as inbox,
        _exporter("node-exporter", node, folder),
        _exporter("postgres-exporter", postgres, folder, login),
    ):
        stack.env["SLIPWAY_SCRAPE_ALSO"] = f"node={node},postgres={postgres}"
        stack.env["SLIPWAY_ALERT_WEBHOOK_URL"] = inbox.url
        assert "alerts are sent by webhook" in stack.cli("up").stdout
        yield Watched(stack, Monitor(f"http://127.0.0.1:{settings.prometheus_port}"), inbox, time.time())


def _exporter(tool: str, at: str, folder: Path, env: dict[str, str] | None = None) -> Any:
    return running([require(tool), f"--web.listen-address={at}"], folder, tool, f"http://{at}/metrics", env)


def judged(stack: Stack, rows: int, seed: int, *options: str) -> str:
    """Sends traffic, waits until it is in the lake, and lets the drift DAG judge it; the verdict."""
    began = datetime.now(UTC)
    before = shipped(stack)
    stack.cli("simulate", "iris", "--rows", str(rows), "--rate", "100", "--seed", str(seed), *options)
    wait_until(lambda: shipped(stack) >= before + rows, 60, f"{rows} rows in the lake")
    window = {"start": began.isoformat(), "end": datetime.now(UTC).isoformat()}
    stack.cli("run", "iris_drift", "--conf", json.dumps(window))
    rows_of_the_ledger = stack.ledger("--decisions", "--model", "iris")
    return str(next(row["verdict"] for row in rows_of_the_ledger if row["kind"] == "drift"))


def shipped(stack: Stack) -> int:
    facts = [json.loads(line) for line in stack.cli("log", "status", "--json").stdout.splitlines()]
    return sum(one["logged_today"] for one in facts if one["model"] == "iris")


def test_while_all_is_well_nothing_fires(watched: Watched) -> None:
    watched.stack.cli("demo", "iris")
    assert judged(watched.stack, 600, 11, "--labels") == "no_drift"
    wait_until(lambda: watched.monitor.firing("Watchdog"), SCRAPED_SECONDS, "the rules to be evaluated")
    assert {alert["labels"]["alertname"] for alert in watched.monitor.firing()} == {"Watchdog"}
    assert watched.inbox.alerts == []


def test_drift_is_told(watched: Watched) -> None:
    assert judged(watched.stack, 600, 12, *SHIFT) == "drift"
    wait_until(lambda: watched.monitor.firing("ModelDrift"), SCRAPED_SECONDS, "the alert to fire")
    wait_until(lambda: watched.inbox.named("ModelDrift"), 60, "the alert at the webhook")
    (alert, *_) = watched.inbox.named("ModelDrift")
    assert {"model": "iris", "severity": "warning", "verdict": "drift"}.items() <= alert["labels"].items()
    assert alert["annotations"]["runbook_url"] == "docs/runbooks.md#modeldrift"


def test_a_bento_that_hangs_and_the_errors_it_causes_are_told_as_one(watched: Watched) -> None:
    stack, monitor = watched.stack, watched.monitor
    slot = stack.models()["iris"]["live_slot"]
    hanging = bento_processes(stack, f"slot-iris-{slot}")
    with OpenLoad(stack.settings().gateway_port, "iris", ROW, rate=10) as load:
        wait_until(lambda: len(load.replies) > 20, 10, "the load to flow")
        try:
            for pid in hanging:
                os.kill(pid, signal.SIGSTOP)
            down = wait_until(lambda: monitor.firing("BentoDown"), 180, "the alert on the bento")
            assert [(alert["labels"]["model"], alert["labels"]["slot"]) for alert in down] == [("iris", slot)]
            wait_until(lambda: watched.inbox.named("BentoDown"), 60, "the alert at the webhook")
            errors = wait_until(lambda: monitor.firing("PredictionErrorRateHigh"), 300, "the alert on errors")
            assert [alert["labels"]["model"] for alert in errors] == ["iris"]
            wait_until(lambda: held_back(stack, "PredictionErrorRateHigh"), 30, "the second alert to be held back")
        finally:
            for pid in hanging:
                os.kill(pid, signal.SIGCONT)
        wait_until(lambda: not monitor.firing("BentoDown"), SCRAPED_SECONDS, "the alert to end")
        wait_until(lambda: load.replies[-1].status == 200, 30, "the bento to answer again")
    assert watched.inbox.named("PredictionErrorRateHigh") == []


def bento_processes(stack: Stack, part: str) -> list[int]:
    """The pids of a slot's server and of all that it started."""
    (line,) = (row for row in stack.cli("status", part).stdout.splitlines() if row.startswith(part))
    found = [next(int(cell) for cell in line.split() if cell.isdigit())]
    children = {process.pid: process.parent for process in stack.processes()}
    for pid in found:
        found += [child for child, parent in children.items() if parent == pid]
    return found


def held_back(stack: Stack, alertname: str) -> bool:
    uri = f"http://127.0.0.1:{stack.settings().alertmanager_port}/api/v2/alerts"
    known = httpx.get(uri, params={"filter": f'alertname="{alertname}"'}).json()
    return bool(known) and all(alert["status"]["inhibitedBy"] for alert in known)


def queries() -> Iterator[Any]:
    for path in sorted((PROJECT_DIR / "monitoring" / "grafana" / "dashboards").glob("*.json")):
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                yield pytest.param(target["expr"], id=f"{path.stem}-{panel['title']}-{target['refId']}")
        for variable in board.get("templating", {}).get("list", []):
            metric = variable["query"].removeprefix("label_values(").split(",")[0]
            yield pytest.param(metric, id=f"{path.stem}-variable-{variable['name']}")


# What Grafana puts in for a range of an hour, all models, and scrapes every 5 seconds.
GRAFANA = {"$__rate_interval": "20s", "$__range": "1h", "$model": "(.+)"}


@pytest.mark.parametrize("expr", queries())
def test_a_panel_shows_data(watched: Watched, expr: str) -> None:
    for name, value in GRAFANA.items():
        expr = expr.replace(name, value)
    assert "$" not in expr
    assert watched.monitor.values(expr, watched.began, time.time())
