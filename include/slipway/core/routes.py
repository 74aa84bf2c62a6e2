"""Traffic as data: what the gateway should do, what it says it does, and the difference.

Nothing here knows Envoy. A `Route` is one model's two slots with their addresses and weights; the fleet is all
of them, and is always published whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from slipway.errors import ConflictError

__all__ = [
    "LONGEST_PAUSE_SECONDS",
    "REPEATED_SECONDS",
    "SLOTS",
    "Address",
    "Backend",
    "BackendStats",
    "GatewayState",
    "Route",
    "SlotName",
    "cluster_name",
    "differences",
    "other_slot",
    "split_weights",
]

SlotName = Literal["blue", "green"]
Weights = dict[SlotName, int]
SLOTS: tuple[SlotName, ...] = ("blue", "green")
# About how long the gateway repeats a request that no slot has taken, with pauses of at most so long: a killed bento
# needs less to come back on a busy machine too, so its callers wait instead of failing.
REPEATED_SECONDS = 15.0
LONGEST_PAUSE_SECONDS = 0.5


@dataclass(frozen=True)
class Address:
    """Where a server listens: an IP address, or a name that the stack's network resolves, and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Backend:
    """One slot as the gateway sees it: its address and its share of the traffic in per cent."""

    slot: SlotName
    port: int
    weight: int = 0
    host: str = "127.0.0.1"


@dataclass(frozen=True)
class Route:
    """One model: its slots, and a share of the traffic that is mirrored to one of them.

    All weights 0 means that no version is live (503).
    """

    model: str
    backends: tuple[Backend, ...] = ()
    shadow_slot: SlotName | None = None
    shadow_percent: int = 0

    @property
    def weights(self) -> dict[SlotName, int]:
        """Slots with traffic and their per cent."""
        return {backend.slot: backend.weight for backend in self.backends if backend.weight > 0}


@dataclass(frozen=True)
class BackendStats:
    """Counters of one slot since the gateway started.

    `errors` are 5xx, also those the gateway made itself; `refused` are 4xx: clients' mistakes, too much load.
    """

    requests: int = 0
    errors: int = 0
    active: int = 0
    refused: int = 0

    @property
    def counted(self) -> dict[str, int]:
        """What only grows, as plain JSON."""
        return {"requests": self.requests, "errors": self.errors, "refused": self.refused}


@dataclass(frozen=True)
class GatewayState:
    """What the gateway says about itself: the version of its routes, the weights it applies, and counters.

    `shadows` are the per cent that it mirrors, by model and slot. The counters begin at its start, `uptime_seconds` ago
    (None when it does not say).
    """

    version: str
    weights: Mapping[str, Mapping[SlotName, int]] = field(default_factory=dict)
    stats: Mapping[str, BackendStats] = field(default_factory=dict)
    shadows: Mapping[str, Mapping[SlotName, int]] = field(default_factory=dict)
    uptime_seconds: float | None = None

    def of(self, model: str, slot: str) -> BackendStats:
        """Counters of one slot; zeros for a slot that the gateway does not know."""
        return self.stats.get(cluster_name(model, slot), BackendStats())


def cluster_name(model: str, slot: str) -> str:
    """The gateway's name of a slot."""
    return f"{model}_{slot}"


def other_slot(slot: SlotName | None) -> SlotName:
    """The idle one of the two slots; blue when nothing is live yet."""
    return "green" if slot == "blue" else "blue"


def differences(
    fleet: Sequence[Route], state: GatewayState
) -> dict[str, tuple[dict[SlotName, int], dict[SlotName, int]]]:
    """Models whose weights differ, each with (wanted, what the gateway applies)."""
    found = {}
    for route in fleet:
        actual = dict(state.weights.get(route.model, {}))
        if actual != route.weights:
            found[route.model] = (route.weights, actual)
    for model in state.weights.keys() - {route.model for route in fleet}:
        found[model] = ({}, dict(state.weights[model]))
    return found


def split_weights(split: Mapping[str, int], live_slot: SlotName) -> dict[SlotName, int]:
    """Slot weights of an A/B split that is given by role, `{"champion": 70, "challenger": 30}`.

    Raises:
        ConflictError: an unknown role, a weight out of 0-100, a sum other than 100, or nothing for the champion.
    """
    unknown = sorted(set(split) - {"champion", "challenger"})
    if unknown:
        raise ConflictError(f"unknown side {unknown[0]!r} of the split; the sides are champion and challenger")
    if any(isinstance(w, bool) or not isinstance(w, int) or not 0 <= w <= 100 for w in split.values()):
        raise ConflictError("weights are whole per cent from 0 to 100")
    if sum(split.values()) != 100:
        raise ConflictError(f"weights must add up to 100, these give {sum(split.values())}")
    if not split.get("champion"):
        raise ConflictError("the champion keeps at least 1 per cent; a challenger gets all the traffic by a release")
    return {live_slot: split.get("champion", 0), other_slot(live_slot): split.get("challenger", 0)}
