"""Every address of the app with values filled in, so that a test over all of them sees a new one by itself."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.routing import APIRoute

__all__ = ["actions", "every_route"]

_SAMPLES = {
    "version": "any",
    "model": "iris",
    "run": "run",
    "name": "drift.html",
    "request_id": "1",
    "path": "cockpit.css",
}


def every_route(app: FastAPI) -> list[tuple[str, str]]:
    """Method and path of each route."""
    found = [
        (method, route.path) for route in app.routes if isinstance(route, APIRoute) for method in sorted(route.methods)
    ]
    for name, value in _SAMPLES.items():
        found = [
            (method, path.replace(f"{{{name}}}", value).replace(f"{{{name}:path}}", value)) for method, path in found
        ]
    assert len(found) > 25
    assert not any("{" in path for _, path in found)
    return found


def actions(app: FastAPI) -> list[tuple[str, str]]:
    """Those that change something."""
    found = [(method, path) for method, path in every_route(app) if method not in ("GET", "HEAD")]
    assert len(found) >= 10
    return found
