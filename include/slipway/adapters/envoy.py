"""Envoy: writes the files it routes by, and reads back what it does.

Truth is what the admin port says. A change counts only once `confirm` has seen it there.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from slipway.adapters.envoy_config import PREDICT, bootstrap, cluster_resources, route_resource
from slipway.core.routes import BackendStats, GatewayState, Route, SlotName
from slipway.errors import GatewayError

__all__ = ["EnvoyGateway", "write_bootstrap"]

_STATS = ("upstream_rq_active", "upstream_rq_total", "upstream_rq_5xx")


def _write_whole(path: Path, content: str) -> None:
    """Replace a file at once: Envoy reads on rename only, and must never read half of one."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _discovery(resources: Sequence[dict[str, Any]]) -> tuple[str, str]:
    """A discovery response and its version, which is the digest of its content."""
    digest = hashlib.sha256(json.dumps(resources, sort_keys=True).encode()).hexdigest()[:16]
    return digest, json.dumps({"version_info": digest, "resources": list(resources)}, indent=1)


def write_bootstrap(
    xds_dir: Path,
    *,
    host: str = "127.0.0.1",
    gateway_port: int = 8000,
    admin_port: int = 9901,
    control_host: str = "127.0.0.1",
    control_port: int = 8080,
    max_body_bytes: int = 16 * 1024 * 1024,
    access_log: Path | None = None,
    control_headers: Mapping[str, str] | None = None,
) -> Path:
    """Write `bootstrap.yaml`, and an empty fleet where there is none yet; return the bootstrap's path.

    Existing routes stay as they are: after a reboot Envoy serves what it served before.
    """
    xds_dir.mkdir(parents=True, exist_ok=True)
    path = xds_dir / "bootstrap.yaml"
    config = bootstrap(
        xds_dir,
        host=host,
        gateway_port=gateway_port,
        admin_port=admin_port,
        control_host=control_host,
        control_port=control_port,
        max_body_bytes=max_body_bytes,
        access_log=access_log,
        control_headers=control_headers,
    )
    _write_whole(path, json.dumps(config, indent=1))  # JSON is YAML
    for name, resources in (("cds.json", cluster_resources([], host)), ("rds.json", [route_resource([])])):
        if not (xds_dir / name).exists():
            _write_whole(xds_dir / name, _discovery(resources)[1])
    return path


class EnvoyGateway:
    """The gateway port over Envoy's file discovery and its admin address."""

    def __init__(self, xds_dir: Path, admin_uri: str, *, host: str = "127.0.0.1", timeout_seconds: float = 2.0) -> None:
        self._dir = xds_dir
        self._host = host
        self._admin = httpx.Client(base_url=admin_uri, timeout=timeout_seconds, trust_env=False)

    def version(self, fleet: Sequence[Route]) -> str:
        """The name that `observe` shows once exactly this fleet is in force."""
        return _discovery([route_resource(fleet)])[0]

    def publish(self, fleet: Sequence[Route], wait_seconds: float = 5.0) -> None:
        """Write the whole fleet: clusters first, and routes once Envoy knows the clusters (make before break).

        When Envoy is down both files are written all the same; it reads them when it returns.

        Raises:
            GatewayError: Envoy answers but does not take the clusters.
        """
        clusters = cluster_resources(fleet, self._host)
        if self._replace("cds.json", _discovery(clusters)):
            with suppress(httpx.HTTPError):  # when Envoy is down: at its start it loads clusters before routes
                self._await_clusters({cluster["name"] for cluster in clusters}, wait_seconds)
        self._replace("rds.json", _discovery([route_resource(fleet)]))

    def confirm(self, fleet: Sequence[Route], wait_seconds: float = 5.0) -> GatewayState:
        """Wait until Envoy applies exactly this fleet, and return what it says then.

        Raises:
            GatewayError: it does not answer, refuses the routes, or still applies others.
        """
        wanted = self.version(fleet)
        deadline = time.monotonic() + wait_seconds
        pause = 0.005
        while True:
            state = self.observe()
            if state.version == wanted:
                return state
            if time.monotonic() >= deadline:
                raise GatewayError(
                    f"Envoy applies routes {state.version or 'none'} and not {wanted} after {wait_seconds:g} s; "
                    f"check `slipway status envoy` and its log"
                )
            time.sleep(pause)
            pause = min(pause * 2, 0.1)

    def observe(self) -> GatewayState:
        """What Envoy applies now: version and weights of its routes, counters of every slot.

        Raises:
            GatewayError: Envoy did not answer, or refused the last routes.
        """
        try:
            version, table = self._routes()
            stats = self._stats()
        except httpx.HTTPError as error:
            raise GatewayError(
                f"Envoy's admin port does not answer ({type(error).__name__}); is it running?"
            ) from error
        routes = _predict_routes(table)
        return GatewayState(
            version=version,
            weights={model: _weights(action) for model, action in routes.items()},
            stats=stats,
            shadows={model: shares for model, action in routes.items() if (shares := _shadows(action))},
        )

    def close(self) -> None:
        """Close the connection to the admin port."""
        self._admin.close()

    def _replace(self, name: str, response: tuple[str, str]) -> bool:
        """Write a discovery file unless it holds exactly this already; True when written."""
        path = self._dir / name
        try:
            if json.loads(path.read_text()).get("version_info") == response[0]:
                return False
        except (OSError, ValueError, AttributeError):
            pass  # missing or damaged: write it anew
        self._dir.mkdir(parents=True, exist_ok=True)
        _write_whole(path, response[1])
        return True

    def _get(self, path: str, **params: str) -> Any:
        response = self._admin.get(path, params=params)
        response.raise_for_status()
        try:
            return response.json()
        except ValueError as error:
            raise GatewayError("Envoy's admin port answers something else; is its port taken?") from error

    def _routes(self) -> tuple[str, dict[str, Any]]:
        configs = self._get("/config_dump", resource="dynamic_route_configs").get("configs", [])
        if not configs:
            return "", {}
        failure = configs[0].get("error_state")
        if failure:
            raise GatewayError(f"Envoy refused the routes: {failure.get('details', 'no reason given')}")
        return configs[0].get("version_info", ""), configs[0].get("route_config", {})

    def _clusters(self) -> set[str]:
        configs = self._get("/config_dump", resource="dynamic_active_clusters").get("configs", [])
        return {entry["cluster"]["name"] for entry in configs if "cluster" in entry}

    def _await_clusters(self, wanted: set[str], wait_seconds: float) -> None:
        deadline = time.monotonic() + wait_seconds
        while missing := wanted - self._clusters():
            if time.monotonic() >= deadline:
                raise GatewayError(f"Envoy did not take cluster {min(missing)} within {wait_seconds:g} s; see its log")
            time.sleep(0.01)

    def _stats(self) -> dict[str, BackendStats]:
        pattern = rf"^cluster\.[^.]+\.({'|'.join(_STATS)})$"
        counters: dict[str, dict[str, int]] = {}
        for stat in self._get("/stats", format="json", filter=pattern).get("stats", []):
            if "name" in stat:
                _, cluster, name = stat["name"].split(".")
                counters.setdefault(cluster, {})[name] = int(stat["value"])
        return {
            cluster: BackendStats(*(values.get(name, 0) for name in ("upstream_rq_total", _STATS[2], _STATS[0])))
            for cluster, values in counters.items()
        }


def _predict_routes(table: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What each model's predict route does, out of a route table as Envoy shows it."""
    return {
        path.removeprefix(PREDICT): route.get("route", {})
        for host in table.get("virtual_hosts", [])
        for route in host.get("routes", [])
        if (path := route.get("match", {}).get("path", "")).startswith(PREDICT)
    }


def _weights(action: dict[str, Any]) -> dict[SlotName, int]:
    clusters = action.get("weighted_clusters", {}).get("clusters", [])
    return {_slot(cluster["name"]): int(cluster.get("weight", 0)) for cluster in clusters}


def _shadows(action: dict[str, Any]) -> dict[SlotName, int]:
    policies = action.get("request_mirror_policies", [])
    return {_slot(p["cluster"]): int(p["runtime_fraction"]["default_value"].get("numerator", 0)) for p in policies}


def _slot(cluster: str) -> SlotName:
    return "green" if cluster.endswith("_green") else "blue"
