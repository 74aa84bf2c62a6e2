from __future__ import annotations

import json

import yaml

from slipway.ports import Slot
from slipway.settings import Settings
from slipway.stack.prometheus import write_config, write_targets


def test_the_configuration_scrapes_this_installations_ports(settings: Settings) -> None:
    write_config(settings.model_copy(update={"statsd_metrics_port": 1102, "envoy_admin_port": 1901}))
    jobs = yaml.safe_load((settings.home / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in jobs if "static_configs" in job}
    assert targets["airflow"] == ["127.0.0.1:1102"]
    assert targets["envoy"] == ["127.0.0.1:1901"]
    assert targets["keeper"] == ["127.0.0.1:9105"]
    assert {job["job_name"] for job in jobs} == {"prometheus", "airflow", "keeper", "envoy", "bento"}


def test_running_bentos_become_targets(settings: Settings) -> None:
    green = Slot("iris", "green", 8201, running=True)
    write_targets(settings, [green, Slot("iris", "blue", 8200, running=False)])
    path = settings.home / "prometheus" / "targets" / "bentos.json"
    assert json.loads(path.read_text()) == [
        {"targets": ["127.0.0.1:8201"], "labels": {"model": "iris", "slot": "green"}}
    ]
    before = path.stat().st_ino
    write_targets(settings, [green])
    assert path.stat().st_ino == before
    write_targets(settings, [])
    assert json.loads(path.read_text()) == []
