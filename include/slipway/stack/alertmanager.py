"""Alertmanager's configuration with this installation's receivers filled in."""

from __future__ import annotations

from typing import Any

import yaml

from slipway.adapters.whole_file import write_whole
from slipway.errors import StackError
from slipway.settings import Settings

__all__ = ["receivers", "write_config"]

_TEXT = """{{ range .Alerts }}{{ .Annotations.summary }}

{{ .Status }} since {{ .StartsAt.Format "2006-01-02T15:04Z" }}

{{ .Annotations.description }}
What to do: {{ .Annotations.runbook_url }}

{{ end }}"""
_TITLE = "[{{ .Status | toUpper }}] {{ .CommonLabels.alertname }} {{ .CommonLabels.model }}"


def receivers(settings: Settings) -> list[str]:
    """How people are told of an alert: `webhook`, `mail`, both or nothing."""
    ways = {"webhook": settings.alert_webhook_url, "mail": settings.alert_mail_to}
    return [name for name, value in ways.items() if value]


def write_config(settings: Settings) -> None:
    """Writes `alertmanager.yml` below the home, readable by its owner alone: it holds the receivers' secrets.

    Raises:
        StackError: mail is wanted, and there is no server to send it by.
    """
    source = settings.project_dir / "monitoring" / "alertmanager" / "alertmanager.yml"
    config: dict[str, Any] = yaml.safe_load(source.read_text(encoding="utf-8"))
    named = {receiver["name"]: receiver for receiver in config["receivers"]}
    if settings.alert_webhook_url is not None:
        named["people"]["webhook_configs"] = [_webhook(settings.alert_webhook_url.get_secret_value())]
    if settings.alert_heartbeat_url is not None:
        named["heartbeat"]["webhook_configs"] = [_webhook(settings.alert_heartbeat_url.get_secret_value())]
    if settings.alert_mail_to:
        named["people"]["email_configs"] = [_mail(settings)]
    folder = settings.home / "alertmanager"
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "alertmanager.yml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True), 0o600)


def _webhook(url: str) -> dict[str, Any]:
    return {"url": url, "send_resolved": True}


def _mail(settings: Settings) -> dict[str, Any]:
    if not settings.alert_smtp_server:
        raise StackError("SLIPWAY_ALERT_MAIL_TO is set without SLIPWAY_ALERT_SMTP_SERVER; set it to host:port")
    mail: dict[str, Any] = {
        "to": settings.alert_mail_to,
        "from": settings.alert_mail_from or settings.alert_smtp_user or "slipway@localhost",
        "smarthost": settings.alert_smtp_server,
        "require_tls": settings.alert_smtp_tls,
        "headers": {"Subject": _TITLE},
        "text": _TEXT,
        "send_resolved": True,
    }
    if settings.alert_smtp_user:
        mail["auth_username"] = settings.alert_smtp_user
    if settings.alert_smtp_password is not None:
        mail["auth_password"] = settings.alert_smtp_password.get_secret_value()
    return mail
