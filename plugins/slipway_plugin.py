"""Mounts the cockpit and the control API in Airflow's api-server under `/slipway`, with "Fleet" in its navigation.

Airflow imports its plugins in every component, workers included, so this file imports nothing heavy: the app is built
when the first request for it arrives.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from typing import Any

from airflow.plugins_manager import AirflowPlugin

Scope = MutableMapping[str, Any]
Channel = Callable[..., Awaitable[Any]]


@lru_cache(maxsize=1)
def _app() -> Any:
    from slipway_control.app import create_app

    return create_app()


async def control(scope: Scope, receive: Channel, send: Channel) -> None:
    """Cockpit and control API as an ASGI app."""
    await _app()(scope, receive, send)


class SlipwayPlugin(AirflowPlugin):
    """The cockpit and the API; the gateway sends /models/info, /config, /retrain and /docs here."""

    name = "slipway"
    fastapi_apps = [{"app": control, "url_prefix": "/slipway", "name": "Slipway"}]  # noqa: RUF012
    external_views = [  # noqa: RUF012
        {
            "name": "Fleet",
            "href": "/slipway/fleet",
            "destination": "nav",
            "url_route": "fleet",
            "nav_top_level": True,
            "icon": "/slipway/static/icons/icon.svg",
            "icon_dark_mode": "/slipway/static/icons/icon-dark.svg",
        }
    ]
