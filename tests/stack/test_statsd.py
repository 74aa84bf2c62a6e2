from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from slipway.errors import StackError
from slipway.settings import PROJECT_DIR
from slipway.stack import probes, statsd
from slipway.stack.processes import wait_until
from slipway.stack.statsd import Store
from slipway.stack.statsd_mapping import MappingRules, load_mapping

MAPPING = PROJECT_DIR / "monitoring" / "statsd" / "mapping.yml"


def _samples(store: Store) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(store)
    text = generate_latest(registry).decode()
    return {
        sample.name + "".join(f"[{key}={value}]" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def store() -> Store:
    return Store(load_mapping(MAPPING))


@pytest.mark.parametrize(
    ("name", "expected", "labels"),
    [
        ("airflow.dag.iris_train.fit.duration", "airflow_task_duration_seconds", ("iris_train", "fit")),
        ("airflow.ti.finish.iris_train.fit.failed", "airflow_task_finishes_total", ("iris_train", "failed", "fit")),
        ("airflow.dagrun.duration.success.iris_data", "airflow_dagrun_duration_seconds", ("iris_data", "success")),
        ("airflow.executor.open_slots.LocalExecutor", "airflow_executor_open_slots", ()),
        ("airflow.scheduler_heartbeat", "airflow_scheduler_heartbeats_total", ()),
        ("airflow.never.heard-of", "airflow_never_heard_of", ()),
    ],
)
def test_airflows_names_become_metrics(name: str, expected: str, labels: tuple[str, ...]) -> None:
    mapped = load_mapping(MAPPING).apply(name)
    assert mapped is not None
    assert (mapped.name, tuple(value for _, value in mapped.labels)) == (expected, labels)


def test_a_dropped_name_leaves_no_series(store: Store) -> None:
    store.take(b"airflow.dag_processing.last_duration.iris:0.2|ms")
    assert set(_samples(store)) == {
        f"statsd_bridge_lines_total[outcome={kind}]" for kind in ("lines", "malformed", "refused")
    }


def test_counters_add_up_and_respect_the_sample_rate(store: Store) -> None:
    store.take(b"airflow.scheduler_heartbeat:1|c\nairflow.scheduler_heartbeat:1|c|@0.5")
    assert _samples(store)["airflow_scheduler_heartbeats_total"] == 3


def test_gauges_are_set_or_moved(store: Store) -> None:
    store.take(b"airflow.dagbag_size:5|g")
    store.take(b"airflow.dagbag_size:+2|g")
    store.take(b"airflow.dagbag_size:-3|g")
    assert _samples(store)["airflow_dagbag_size"] == 4


def test_timers_become_histograms_in_seconds(store: Store) -> None:
    for value in (b"50", b"700", b"5000000"):
        store.take(b"airflow.dag.iris_train.fit.duration:" + value + b"|ms")
    found = _samples(store)
    series = "airflow_task_duration_seconds_bucket[dag_id=iris_train][le={}][task_id=fit]"
    assert [found[series.format(bound)] for bound in ("0.1", "0.5", "1.0", "3600.0", "+Inf")] == [1, 1, 2, 2, 3]
    assert found["airflow_task_duration_seconds_sum[dag_id=iris_train][task_id=fit]"] == pytest.approx(5000.75)
    assert found["airflow_task_duration_seconds_count[dag_id=iris_train][task_id=fit]"] == 3


@pytest.mark.parametrize("line", [b"nonsense", b"a:b|c", b"a:1|q", b"a:1|c|@0", b"\xff\xfe", b"a:--1|g", b"a:1e|c"])
def test_malformed_lines_are_counted_and_nothing_else(store: Store, line: bytes) -> None:
    store.take(line)
    found = _samples(store)
    assert found["statsd_bridge_lines_total[outcome=malformed]"] == 1
    assert len(found) == 3


def test_a_name_of_two_kinds_keeps_the_first(store: Store) -> None:
    store.take(b"airflow.thing:3|g\nairflow.thing:1|ms")
    found = _samples(store)
    assert found["airflow_thing"] == 3
    assert found["statsd_bridge_lines_total[outcome=refused]"] == 1


def test_series_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statsd, "MAX_SERIES", 2)
    store = Store(MappingRules())
    for number in range(4):
        store.take(f"name{number}:1|g".encode())
    store.take(b"name0:7|g")
    found = _samples(store)
    assert (found["name0"], found["name1"]) == (7, 1)
    assert found["statsd_bridge_lines_total[outcome=refused]"] == 2


def test_an_unknown_key_of_the_mapping_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mapping.yml"
    path.write_text('mappings:\n  - {match: "a.*", name: a, scale: 2}\n')
    with pytest.raises(StackError, match="mapping 1: unknown scale"):
        load_mapping(path)


@pytest.mark.services
def test_the_bridge_shows_what_it_is_sent(tmp_path: Path, free_port: int) -> None:
    url = f"http://127.0.0.1:{free_port}/metrics"
    env = {
        **os.environ,
        "SLIPWAY_HOME": str(tmp_path),
        "SLIPWAY_STATSD_PORT": str(free_port),
        "SLIPWAY_STATSD_METRICS_PORT": str(free_port),
        "PYTHONPATH": str(PROJECT_DIR / "include"),
    }
    with subprocess.Popen([sys.executable, "-m", "slipway.stack.statsd"], env=env) as bridge:
        try:
            assert wait_until(lambda: probes.answers(url), 20)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"airflow.dagbag_size:5|g", ("127.0.0.1", free_port))
            assert wait_until(lambda: b"airflow_dagbag_size 5.0" in urllib.request.urlopen(url).read(), 5)
        finally:
            bridge.send_signal(signal.SIGTERM)
        assert bridge.wait(10) == 0
