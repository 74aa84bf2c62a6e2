"""Envoy: writes the files it routes by, and reads back what it does.

Truth is what the admin port says. A change counts only once `confirm` has seen it there.
"""

from __future__ import annotations

import hashlib
import json
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from slipway.adapters.envoy_config import (
    CERTIFICATE_FILE,
    PREDICT,
    bootstrap,
    certificate_resource,
    cluster_resources,
    is_ip,
    route_resource,
)
from slipway.adapters.envoy_keys import KEYS_FILE, keys_resource, needs_key
from slipway.adapters.plain_http import httpx, plain_client
from slipway.adapters.whole_file import write_whole
from slipway.core.edge import Edge
from slipway.core.keys import ApiKey
from slipway.core.routes import BackendStats, GatewayState, Route, SlotName, cluster_name
from slipway.errors import GatewayError

__all__ = ["EnvoyGateway", "keys_are_published", "publish_certificate", "publish_keys", "write_bootstrap"]

_STATS = {
    "requests": "upstream_rq_total",
    "errors": "upstream_rq_5xx",
    "active": "upstream_rq_active",
    "refused": "upstream_rq_4xx",
}
_UPTIME = "server.uptime"


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
    edge: Edge | None = None,
    control_headers: Mapping[str, str] | None = None,
) -> Path:
    """Write `bootstrap.yaml`, and an empty fleet where there is none yet; return the bootstrap's path.

    Existing routes stay as they are: after a reboot Envoy serves what it served before. Where keys or a certificate
    are needed, `publish_keys` and `publish_certificate` must have written theirs before Envoy starts.
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
        edge=edge or Edge(),
        control_headers=control_headers,
    )
    write_whole(path, json.dumps(config, indent=1))  # JSON is YAML
    for name, resources in (("cds.json", cluster_resources([])), ("rds.json", [route_resource([])])):
        if not (xds_dir / name).exists():
            write_whole(xds_dir / name, _discovery(resources)[1])
    return path


def _resolve(name: str) -> frozenset[str]:
    """The IPv4 addresses of a name now; none when nobody has that name."""
    try:
        found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
    except OSError:
        return frozenset()
    return frozenset(str(address[0]) for *_, address in found)


def _replace(path: Path, response: tuple[str, str], mode: int = 0o666) -> bool:
    """Write a discovery file unless it holds exactly this already; True when written."""
    try:
        if json.loads(path.read_text()).get("version_info") == response[0]:
            return False
    except (OSError, ValueError, AttributeError):
        pass  # missing or damaged: write it anew
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, response[1], mode)
    return True


def publish_keys(xds_dir: Path, keys: Sequence[ApiKey], *, needed: bool) -> bool:
    """Let exactly these keys through from the next request on; True when that is a change.

    Args:
        needed: refuse prediction and feedback requests without a key.
    """
    return _replace(xds_dir / KEYS_FILE, _discovery([keys_resource(keys, needed=needed)]), 0o600)


def keys_are_published(xds_dir: Path, *, needed: bool) -> bool:
    """Whether a file of keys is there that refuses, or lets through, requests without one as wanted."""
    try:
        return needs_key(json.loads((xds_dir / KEYS_FILE).read_text())["resources"][0]) == needed
    except (OSError, ValueError, LookupError, TypeError):
        return False


def publish_certificate(xds_dir: Path, chain_pem: str, key_pem: str) -> bool:
    """Use this certificate for new connections from now on; True when it is another one."""
    return _replace(xds_dir / CERTIFICATE_FILE, _discovery([certificate_resource(chain_pem, key_pem)]), 0o600)


class EnvoyGateway:
    """The gateway port over Envoy's file discovery and its admin address.

    Args:
        resolve: what a slot's name stands for, as seen from here; Envoy must see the same before it sends traffic.
    """

    def __init__(
        self,
        xds_dir: Path,
        admin_uri: str,
        *,
        timeout_seconds: float = 2.0,
        resolve: Callable[[str], Collection[str]] = _resolve,
    ) -> None:
        self._dir = xds_dir
        self._resolve = resolve
        self._admin = plain_client(base_url=admin_uri, timeout=timeout_seconds)

    def version(self, fleet: Sequence[Route]) -> str:
        """The name that `observe` shows once exactly this fleet is in force."""
        return _discovery([route_resource(fleet)])[0]

    def publish(self, fleet: Sequence[Route], wait_seconds: float = 5.0) -> None:
        """Write the whole fleet: clusters first, and routes once Envoy knows the clusters (make before break).

        A slot that is known by a name gets traffic only when Envoy has found out what the name stands for now.
        When Envoy is down both files are written all the same; it reads them when it returns.

        Raises:
            GatewayError: Envoy answers but does not take the clusters, or does not find a slot.
        """
        clusters = cluster_resources(fleet)
        if self._replace("cds.json", _discovery(clusters)):
            with suppress(httpx.HTTPError):  # when Envoy is down: at its start it loads clusters before routes
                self._await_clusters({cluster["name"] for cluster in clusters}, wait_seconds)
        with suppress(httpx.HTTPError):
            self._await_addresses(fleet, wait_seconds)
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
            stats, uptime_seconds = self._stats()
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
            uptime_seconds=uptime_seconds,
        )

    def close(self) -> None:
        """Close the connection to the admin port."""
        self._admin.close()

    def _replace(self, name: str, response: tuple[str, str]) -> bool:
        return _replace(self._dir / name, response)

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

    def _await_addresses(self, fleet: Sequence[Route], wait_seconds: float) -> None:
        named = {
            cluster_name(route.model, backend.slot): self._resolve(backend.host)
            for route in fleet
            for backend in route.backends
            if (backend.weight or backend.slot == route.shadow_slot) and not is_ip(backend.host)
        }
        wanted = {cluster: addresses for cluster, addresses in named.items() if addresses}
        deadline = time.monotonic() + wait_seconds
        while wanted:
            known = self._addresses()
            wanted = {name: there for name, there in wanted.items() if known.get(name, set()).isdisjoint(there)}
            if wanted and time.monotonic() >= deadline:
                name = min(wanted)
                raise GatewayError(
                    f"Envoy does not find {name} at {', '.join(sorted(wanted[name]))}; is it on its network?"
                )
            time.sleep(0.02 if wanted else 0)

    def _addresses(self) -> dict[str, set[str]]:
        """The addresses that Envoy would connect to now, by cluster."""
        statuses = self._get("/clusters", format="json").get("cluster_statuses", [])
        return {
            status["name"]: {
                host["address"]["socket_address"]["address"]
                for host in status.get("host_statuses", [])
                if "socket_address" in host.get("address", {})
            }
            for status in statuses
        }

    def _stats(self) -> tuple[dict[str, BackendStats], float | None]:
        """Every slot's counters, and how long Envoy has been counting in seconds."""
        pattern = rf"^cluster\.[^.]+\.({'|'.join(_STATS.values())})$|^{_UPTIME}$"
        counters: dict[str, dict[str, int]] = {}
        uptime_seconds = None
        for stat in self._get("/stats", format="json", filter=pattern).get("stats", []):
            if stat.get("name") == _UPTIME:
                uptime_seconds = float(stat["value"])
            elif "name" in stat:
                _, cluster, name = stat["name"].split(".")
                counters.setdefault(cluster, {})[name] = int(stat["value"])
        found = {
            cluster: BackendStats(**{name: values.get(stat, 0) for name, stat in _STATS.items()})
            for cluster, values in counters.items()
        }
        return found, uptime_seconds


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
