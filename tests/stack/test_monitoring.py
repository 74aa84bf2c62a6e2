from __future__ import annotations

import json

import pytest
import yaml
from pydantic import SecretStr

from slipway.errors import StackError
from slipway.ports import Slot
from slipway.settings import Settings
from slipway.stack import alertmanager, monitoring, prometheus


def services(settings: Settings) -> dict[str, dict[str, object]]:
    groups = json.loads((settings.home / "prometheus" / "services.json").read_text())
    return {group["labels"]["job"]: group for group in groups}


def test_this_installations_addresses_lie_beside_the_projects_own_configuration(settings: Settings) -> None:
    changed = settings.model_copy(update={"statsd_metrics_port": 1102, "envoy_admin_port": 1901})
    prometheus.write_config(changed)
    found = services(settings)
    assert found["airflow"]["targets"] == ["127.0.0.1:1102"]
    assert found["envoy"]["targets"] == ["127.0.0.1:1901"]
    assert found["envoy"]["labels"] == {"job": "envoy", "__metrics_path__": "/stats/prometheus"}
    assert found["keeper"]["targets"] == ["127.0.0.1:9105"]
    source = settings.project_dir / "monitoring" / "prometheus"
    for path in [source / "prometheus.yml", *(source / "rules").glob("*.yml")]:
        assert (settings.home / "prometheus" / path.relative_to(source)).read_text() == path.read_text()


def test_a_rule_file_that_the_project_has_no_more_goes(settings: Settings) -> None:
    prometheus.write_config(settings)
    old = settings.home / "prometheus" / "rules" / "old.yml"
    old.write_text("groups: []")
    prometheus.write_config(settings)
    assert not old.exists()


@pytest.mark.parametrize("found", [True, False])
def test_alertmanager_is_a_service_where_the_machine_has_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, found: bool
) -> None:
    monkeypatch.setattr(prometheus, "binary", lambda _: "/usr/bin/alertmanager" if found else None)
    prometheus.write_config(settings)
    assert ("alertmanager" in services(settings)) is found


def test_further_jobs_are_named_in_a_setting(settings: Settings) -> None:
    prometheus.write_config(settings.model_copy(update={"scrape_also": "node=127.0.0.1:9100, postgres=db:9187"}))
    assert services(settings)["node"]["targets"] == ["127.0.0.1:9100"]
    assert services(settings)["postgres"]["targets"] == ["db:9187"]
    with pytest.raises(StackError, match="SLIPWAY_SCRAPE_ALSO: node=9100; write it like node=127"):
        prometheus.write_config(settings.model_copy(update={"scrape_also": "node=9100"}))


def receivers_of(settings: Settings) -> dict[str, dict[str, object]]:
    path = settings.home / "alertmanager" / "alertmanager.yml"
    assert path.stat().st_mode & 0o777 == 0o600
    return {receiver["name"]: receiver for receiver in yaml.safe_load(path.read_text())["receivers"]}


def test_without_settings_nobody_is_told(settings: Settings) -> None:
    alertmanager.write_config(settings)
    assert receivers_of(settings) == {"people": {"name": "people"}, "heartbeat": {"name": "heartbeat"}}
    assert "nobody is told" in monitoring.alerting_line(settings)


def test_receivers_come_from_the_settings(settings: Settings) -> None:
    told = settings.model_copy(
        update={
            "alert_webhook_url": SecretStr("http://127.0.0.1:1/hook"),
            "alert_mail_to": "ops@example.org",
            "alert_smtp_server": "mail.example.org:587",
            "alert_smtp_user": "slipway@example.org",
            "alert_smtp_password": SecretStr("not-to-be-shown"),
        }
    )
    alertmanager.write_config(told)
    people = receivers_of(settings)["people"]
    assert people["webhook_configs"] == [{"url": "http://127.0.0.1:1/hook", "send_resolved": True}]
    (mail,) = people["email_configs"]  # type: ignore[misc]
    assert mail["from"] == "slipway@example.org"
    assert mail["auth_password"] == "not-to-be-shown"
    assert mail["require_tls"] is True
    assert monitoring.alerting_line(told) == "alerts are sent by webhook and mail"
    assert "not-to-be-shown" not in repr(told)


def test_mail_without_a_server_is_refused(settings: Settings) -> None:
    with pytest.raises(StackError, match="SLIPWAY_ALERT_SMTP_SERVER"):
        alertmanager.write_config(settings.model_copy(update={"alert_mail_to": "ops@example.org"}))


@pytest.mark.parametrize(
    ("there", "line"),
    [
        (("prometheus", "prometheus-alertmanager"), ""),
        (("prometheus", "alertmanager"), ""),
        (("prometheus",), "no alertmanager on this machine: alerts are seen in Prometheus only (docs/monitoring.md)"),
        ((), "no prometheus and no alertmanager on this machine: metrics are not kept (docs/monitoring.md)"),
    ],
)
def test_what_the_machine_lacks_is_one_line(there: tuple[str, ...], line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitoring.shutil, "which", lambda name: f"/usr/bin/{name}" if name in there else None)
    assert monitoring.missing_line() == line


def test_running_bentos_become_targets(settings: Settings) -> None:
    green = Slot("iris", "green", 8201, running=True)
    prometheus.write_targets(settings, [green, Slot("iris", "blue", 8200, running=False)])
    path = settings.home / "prometheus" / "targets" / "bentos.json"
    assert json.loads(path.read_text()) == [
        {"targets": ["127.0.0.1:8201"], "labels": {"model": "iris", "slot": "green"}}
    ]
    before = path.stat().st_ino
    prometheus.write_targets(settings, [green])
    assert path.stat().st_ino == before
    prometheus.write_targets(settings, [])
    assert json.loads(path.read_text()) == []
