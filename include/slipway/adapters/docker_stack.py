"""The containers of the compose stack that this process runs in, as far as the slot agent brings them back."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import docker
import docker.errors
import requests

from slipway.errors import RuntimeSlotError

__all__ = ["DockerStack", "was_killed"]

_PROJECT = "com.docker.compose.project"
_KILLED = 137  # 128 + SIGKILL
_TIMEOUT_SECONDS = 20
_LOOK_BACK_SECONDS = 90  # longer than any container of the stack may take to stop
_SIGKILL = {"9", "KILL", "SIGKILL"}


class DockerStack:
    """The `Stack` port over Docker's API; it sees no container of another project."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._api: Any = None
        self._project: str | None = None

    def killed(self) -> Sequence[str]:
        """Names of containers that SIGKILL ended, though they are to run and nobody stopped them.

        Raises:
            RuntimeSlotError: Docker does not answer, or this process is in no container of a compose stack.
        """
        try:
            api, project = self._connect()
            filters = {"label": f"{_PROJECT}={project}", "status": "exited", "exited": str(_KILLED)}
            names = [one["Names"][0].removeprefix("/") for one in api.containers(all=True, filters=filters)]
            return [name for name in names if self._nobody_stopped(api, name)]
        except (docker.errors.DockerException, requests.RequestException, OSError) as error:
            self._api = None
            raise RuntimeSlotError(f"Docker does not answer ({' '.join(str(error).split())[:200]})") from error

    def start(self, name: str) -> None:
        """Start a container again.

        Raises:
            RuntimeSlotError: Docker refuses.
        """
        try:
            self._connect()[0].start(name)
        except (docker.errors.DockerException, requests.RequestException, OSError) as error:
            raise RuntimeSlotError(f"{name} does not start ({' '.join(str(error).split())[:200]})") from error

    def _connect(self) -> tuple[Any, str]:
        if self._api is None:
            self._api = docker.APIClient(base_url=self._url, version="auto", timeout=_TIMEOUT_SECONDS)
        if self._project is None:
            # A container's host name is its id unless it was given one.
            own = self._api.inspect_container(socket.gethostname())
            self._project = (own["Config"]["Labels"] or {}).get(_PROJECT)
        if self._project is None:
            raise RuntimeSlotError("the agent's container belongs to no compose stack")
        return self._api, self._project

    def _nobody_stopped(self, api: Any, name: str) -> bool:
        now = int(time.time())
        container = api.inspect_container(name)
        # What it was sent before it last started ended an earlier run of it.
        started = int(datetime.fromisoformat(container["State"]["StartedAt"]).timestamp())
        since = max(started, now - _LOOK_BACK_SECONDS)
        filters = {"container": name, "event": ["kill"]}
        signals = [
            event["Actor"]["Attributes"].get("signal", "")
            for event in api.events(since=since, until=now + 1, filters=filters, decode=True)
        ]
        return was_killed(container, signals)


def was_killed(container: Mapping[str, Any], signals: Sequence[str]) -> bool:
    """Whether a container that SIGKILL ended is to run all the same.

    Args:
        container: what Docker says of it.
        signals: those that Docker was asked to send it of late. `docker stop` asks politely first.
    """
    policy = container["HostConfig"]["RestartPolicy"]["Name"]
    return policy in ("always", "unless-stopped") and bool(signals) and all(signal in _SIGKILL for signal in signals)
