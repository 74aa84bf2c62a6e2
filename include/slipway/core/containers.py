"""Bentos in containers: their names, their labels, what one is started with, and which images may go.

Shared by the slot agent and by those who ask it. A name that is not made by these functions is not Slipway's.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from slipway.core.routes import Address, SlotName

__all__ = [
    "KEPT_IMAGES",
    "LABELS",
    "MODEL_MAX_LENGTH",
    "MODEL_PATTERN",
    "PORT",
    "REPOSITORY",
    "VERSION_PATTERN",
    "BentoContainer",
    "Container",
    "Image",
    "container_address",
    "container_name",
    "image_name",
    "is_slots",
    "model_and_version",
    "superfluous",
]

REPOSITORY = "slipway-bento"
PORT = 3000
KEPT_IMAGES = 3
# What is at once a model's name, a part of an image's name and, with the rest of it, a name in DNS.
MODEL_PATTERN = r"^[a-z][a-z0-9]*(_{1,2}[a-z0-9]+)*$"
MODEL_MAX_LENGTH = 49
VERSION_PATTERN = r"^[1-9][0-9]{0,8}$"

_IMAGE = re.compile(rf"^{REPOSITORY}/(?P<model>[a-z0-9_]+):(?P<version>[1-9][0-9]{{0,8}})$")


class LABELS:
    """Names of the labels on containers and images."""

    MODEL = "slipway.model"
    VERSION = "slipway.version"
    SLOT = "slipway.slot"
    ROLLOUT = "slipway.rollout"
    DIGEST = "slipway.digest"
    INTENT = "slipway.intent"


@dataclass(frozen=True)
class Container:
    """A container as Docker shows it; `state` is created, running, restarting, paused, removing, exited or dead."""

    name: str
    state: str
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def running(self) -> bool:
        return self.state == "running"


@dataclass(frozen=True)
class Image:
    """An image as Docker shows it; `user` is who its processes run as, empty for root."""

    id: str
    tags: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    bytes: int = 0

    @property
    def runs_as_root(self) -> bool:
        return self.user.partition(":")[0] in ("", "0", "root")


@dataclass(frozen=True)
class BentoContainer:
    """Everything that a bento's container is started with; what is not here is the same for all of them."""

    model: str
    version: str
    slot: SlotName
    digest: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    network: str
    spool_volume: str
    memory_mb: int
    pids: int
    rollout_id: str = ""

    @property
    def name(self) -> str:
        return container_name(self.model, self.slot)

    @property
    def image(self) -> str:
        return image_name(self.model, self.version)

    @property
    def intent(self) -> str:
        """Equal for two that would behave the same, on whoever's behalf they are started."""
        values = {key: value for key, value in asdict(self).items() if key != "rollout_id"}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    @property
    def labels(self) -> dict[str, str]:
        return {
            LABELS.MODEL: self.model,
            LABELS.VERSION: self.version,
            LABELS.SLOT: self.slot,
            LABELS.ROLLOUT: self.rollout_id,
            LABELS.DIGEST: self.digest,
            LABELS.INTENT: self.intent,
        }


def container_name(model: str, slot: str) -> str:
    """The container of a slot, which is also its name in the bentos' network.

    >>> container_name("iris", "blue")
    'slipway-iris-blue'
    """
    return f"slipway-{model}-{slot}"


def container_address(model: str, slot: SlotName) -> Address:
    """Where a slot's container listens."""
    return Address(container_name(model, slot), PORT)


def image_name(model: str, version: str) -> str:
    """The image of a version.

    >>> image_name("iris", "3")
    'slipway-bento/iris:3'
    """
    return f"{REPOSITORY}/{model}:{version}"


def model_and_version(reference: str) -> tuple[str, str] | None:
    """What an image's name says; None when the name is not Slipway's.

    >>> model_and_version("slipway-bento/iris:3")
    ('iris', '3')
    >>> model_and_version("registry.example/slipway-bento/iris:3") is None
    True
    """
    match = _IMAGE.fullmatch(reference)
    return (match["model"], match["version"]) if match else None


def is_slots(container: Container) -> bool:
    """Whether a container is a slot's: its labels say so and agree with its name."""
    model, slot = container.labels.get(LABELS.MODEL, ""), container.labels.get(LABELS.SLOT, "")
    return slot in ("blue", "green") and container.name == container_name(model, slot)


def superfluous(versions: Sequence[str], used: Collection[str], kept: int = KEPT_IMAGES) -> list[str]:
    """Versions of one model whose images may go: not among the newest and used by no container.

    An image is made again from its bento in seconds, so removing one that is needed later costs only these.

    >>> superfluous(["1", "2", "10", "9", "3"], used={"1"})
    ['2']
    """
    newest = sorted(versions, key=int)[-kept:]
    return sorted((v for v in versions if v not in newest and v not in used), key=int)
