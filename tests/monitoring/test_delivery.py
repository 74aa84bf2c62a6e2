"""An alert of a real Prometheus arrives at people through a real Alertmanager."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from pydantic import SecretStr

from loop.conftest import wait_until
from prometheus_parts import hurried_alertmanager, hurried_prometheus, mailbox, require, webhook
from slipway.settings import Settings
from slipway.stack import alertmanager

pytestmark = pytest.mark.monitoring


def test_an_alert_arrives_by_webhook_and_mail_and_so_does_its_end(tmp_path: Path, settings: Settings) -> None:
    with webhook() as inbox, webhook() as heartbeat, mailbox() as (mail_server, mails):
        told = settings.model_copy(
            update={
                "alert_webhook_url": SecretStr(inbox.url),
                "alert_heartbeat_url": SecretStr(heartbeat.url),
                "alert_mail_to": "ops@example.org",
                "alert_smtp_server": mail_server,
                "alert_smtp_tls": False,
            }
        )
        with (
            hurried_alertmanager(tmp_path, told) as at,
            hurried_prometheus(tmp_path, {"alertmanager": at}, rules=["releases.yml", "system.yml"]) as monitor,
        ):
            # Nobody has told this Prometheus of a keeper.
            wait_until(lambda: monitor.firing("KeeperDown"), 30, "the alert to fire")
            wait_until(lambda: inbox.named("KeeperDown"), 30, "the alert at the webhook")
            wait_until(lambda: mails, 30, "the mail")
            wait_until(lambda: heartbeat.named("Watchdog"), 30, "the heartbeat")
            # Prometheus itself will do as a keeper that answers.
            (port,) = monitor.uri.rsplit(":", 1)[1:]
            services = (tmp_path / "services.json").read_text()
            keeper = f', {{"targets": ["127.0.0.1:{port}"], "labels": {{"job": "keeper"}}}}]'
            (tmp_path / "services.json").write_text(services.removesuffix("]") + keeper)
            wait_until(lambda: inbox.named("KeeperDown", "resolved"), 60, "the end of the alert")
    (alert, *_) = inbox.named("KeeperDown")
    assert alert["labels"]["severity"] == "critical"
    assert alert["annotations"]["runbook_url"] == "docs/runbooks.md#keeperdown"
    assert not inbox.named("Watchdog"), "people are not told that all is well"
    assert "To: ops@example.org" in mails[0]
    assert "[FIRING] KeeperDown" in mails[0]
    assert "The keeper does not answer" in mails[0]
    assert "docs/runbooks.md#keeperdown" in mails[0]


ROUTES = [
    ({"alertname": "BentoDown", "severity": "critical"}, "people"),
    ({"alertname": "ModelDrift", "severity": "warning"}, "people"),
    ({"alertname": "ChampionStale", "severity": "info"}, "people"),
    ({"alertname": "Watchdog", "severity": "info"}, "heartbeat"),
]


@pytest.mark.parametrize(("labels", "receiver"), ROUTES, ids=[labels["alertname"] for labels, _ in ROUTES])
def test_the_routes_are_valid_and_lead_to_the_right_receiver(
    settings: Settings, labels: dict[str, str], receiver: str
) -> None:
    amtool = require("amtool")
    alertmanager.write_config(settings)
    config = settings.home / "alertmanager" / "alertmanager.yml"
    subprocess.run([amtool, "check-config", str(config)], check=True, capture_output=True)
    command = [amtool, "config", "routes", "test", f"--config.file={config}"]
    command += [f"{name}={value}" for name, value in labels.items()]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.split() == [receiver]
