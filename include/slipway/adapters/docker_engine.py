"""Docker, as the slot agent uses it: bento images and bento containers, and nothing else.

What every bento's container has in common is written here and cannot be asked for otherwise: a read-only root, no
capabilities, no way to gain privileges, one volume for the prediction log, no published port.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import docker
import docker.errors
import requests
from docker.types import LogConfig, Mount

from slipway.core.containers import LABELS, BentoContainer, Container, Image
from slipway.errors import RuntimeSlotError

__all__ = ["DockerEngine"]

_TIMEOUT_SECONDS = 60
_TMP = "rw,noexec,nosuid,nodev,size=64m,mode=1777"
_CONFLICT = 409


class DockerEngine:
    """The `Engine` port over Docker's API.

    Args:
        url: `unix:///var/run/docker.sock`, or another address of Docker's API.
        spool_dir: where the volume of the prediction log is found in a bento's container.
    """

    def __init__(self, url: str, spool_dir: str) -> None:
        self._url, self._spool_dir = url, spool_dir
        self._clients = threading.local()  # a client's connections are for one thread

    @contextmanager
    def _api(self, doing: str) -> Iterator[Any]:
        """Docker's API.

        Raises:
            RuntimeSlotError: Docker does not answer, or refuses.
        """
        try:
            client = getattr(self._clients, "client", None)
            if client is None:
                client = docker.APIClient(base_url=self._url, version="auto", timeout=_TIMEOUT_SECONDS)
                self._clients.client = client
            yield client
        except docker.errors.APIError as error:
            raise RuntimeSlotError(f"Docker refuses {doing}: {_one_line(error.explanation or error)}") from error
        except docker.errors.BuildError as error:
            raise RuntimeSlotError(f"{doing} failed: {_one_line(error.msg)}") from error
        except (docker.errors.DockerException, requests.RequestException, OSError) as error:
            raise RuntimeSlotError(f"Docker does not answer ({_one_line(error)}); is it running?") from error

    def ping(self) -> None:
        """Make sure that Docker answers."""
        with self._api("a ping") as api:
            api.ping()

    # --- images ---------------------------------------------------------------------------------------------

    def image(self, reference: str) -> Image | None:
        """An image by its name or id; None when there is none."""
        with self._api(f"a look at {reference}") as api:
            try:
                return _image(api.inspect_image(reference))
            except docker.errors.ImageNotFound:
                return None

    def images(self) -> Sequence[Image]:
        """Every image that was built for a model."""
        with self._api("a list of images") as api:
            return [
                Image(one["Id"], tuple(one["RepoTags"] or ()), one["Labels"] or {}, bytes=one["Size"])
                for one in api.images(filters={"label": LABELS.MODEL})
            ]

    def build(self, context: Iterator[bytes]) -> Image:
        """Build an image without a name; nothing is fetched from anywhere, and no build step has a network.

        Args:
            context: a tar archive in pieces. What it raises comes through, and nothing is built.
        """
        built = ""
        with self._api("to build an image") as api:
            lines = api.build(
                fileobj=context, custom_context=True, rm=True, forcerm=True, decode=True, network_mode="none"
            )
            for line in lines:
                if "error" in line:
                    raise docker.errors.BuildError(line["error"], None)
                built = line.get("aux", {}).get("ID", built)
            if not built:
                raise docker.errors.BuildError("Docker names no image", None)
            return _image(api.inspect_image(built))

    def tag(self, image_id: str, repository: str, tag: str) -> None:
        """Give an image its name; one that had it before is left without."""
        with self._api(f"the name {repository}:{tag}") as api:
            api.tag(image_id, repository, tag, force=True)

    def remove_image(self, reference: str) -> None:
        """Take a name away, and with its last name the image."""
        with self._api(f"to remove {reference}") as api, suppress(docker.errors.NotFound):
            api.remove_image(reference)

    def remove_unfinished(self) -> None:
        """Remove what was built for a model and has no name."""
        with self._api("to clear images away") as api:
            api.prune_images(filters={"dangling": True, "label": LABELS.MODEL})

    # --- containers -------------------------------------------------------------------------------------------

    def containers(self) -> Sequence[Container]:
        """Every container of a slot, running or not."""
        with self._api("a list of containers") as api:
            return [
                Container(one["Names"][0].removeprefix("/"), one["State"], one["Labels"] or {})
                for one in api.containers(all=True, filters={"label": LABELS.SLOT})
                if one["Names"]
            ]

    def container(self, name: str) -> Container | None:
        """A container by its name; None when there is none."""
        with self._api(f"a look at {name}") as api:
            try:
                found = api.inspect_container(name)
            except docker.errors.NotFound:
                return None
            # An id's beginning finds a container as well; only the name counts.
            if found["Name"] != f"/{name}":
                return None
            return Container(name, found["State"]["Status"], found["Config"]["Labels"] or {})

    def create(self, wanted: BentoContainer) -> None:
        """Make a container, or find that somebody made one of that name just now."""
        with self._api(f"to create {wanted.name}") as api:
            host_config = api.create_host_config(
                read_only=True,
                privileged=False,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges:true"],
                tmpfs={"/tmp": _TMP},  # noqa: S108 - inside the container
                mounts=[Mount(self._spool_dir, wanted.spool_volume, type="volume")],
                network_mode=wanted.network,
                mem_limit=f"{wanted.memory_mb}m",
                memswap_limit=f"{wanted.memory_mb}m",
                pids_limit=wanted.pids,
                restart_policy={"Name": "unless-stopped"},
                log_config=LogConfig(type=LogConfig.types.JSON, config={"max-size": "10m", "max-file": "3"}),
            )
            try:
                api.create_container(
                    wanted.image,
                    list(wanted.command),
                    name=wanted.name,
                    hostname=wanted.name,
                    environment=dict(wanted.environment),
                    labels=wanted.labels,
                    stop_signal="SIGTERM",
                    host_config=host_config,
                )
            except docker.errors.APIError as error:
                if error.status_code != _CONFLICT:
                    raise

    def start(self, name: str) -> None:
        """Start a container; one that runs is left alone."""
        with self._api(f"to start {name}") as api:
            api.start(name)

    def stop(self, name: str, seconds: float) -> None:
        """Ask a container to end, kill it when it has not in time, and keep it from being restarted."""
        with self._api(f"to stop {name}") as api, suppress(docker.errors.NotFound):
            api.stop(name, timeout=math.ceil(seconds))

    def remove(self, name: str) -> None:
        """Remove a container that may still run; its log goes too, the prediction log stays."""
        with self._api(f"to remove {name}") as api, suppress(docker.errors.NotFound):
            try:
                api.remove_container(name, force=True)
            except docker.errors.APIError as error:
                if error.status_code != _CONFLICT:  # it is being removed already
                    raise
                api.wait(name, timeout=_TIMEOUT_SECONDS, condition="removed")


def _image(found: Mapping[str, Any]) -> Image:
    config = found.get("Config") or {}
    return Image(
        found["Id"], tuple(found.get("RepoTags") or ()), config.get("Labels") or {}, config.get("User") or "",
        int(found.get("Size") or 0),
    )  # fmt: skip


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:300]
