"""What the tables say about every model: its slots, its traffic, and what should be running."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from slipway.core.routes import Address, Backend, Route, SlotName

__all__ = ["SlotRecord", "Traffic", "fallback_version", "routes", "slot_is_wanted"]


@dataclass(frozen=True)
class SlotRecord:
    """One slot as the tables have it: its address for good, and the version that belongs there now.

    Attributes:
        keep_warm_until: until when a slot without traffic stays up for a quick rollback.
        drain_until: when it is stopped even though it still answers requests.
    """

    model: str
    slot: SlotName
    port: int
    version: str | None = None
    bento_tag: str | None = None
    keep_warm_until: datetime | None = None
    drain_until: datetime | None = None
    host: str = "127.0.0.1"

    @property
    def address(self) -> Address:
        """Where the slot's bento listens while there is one."""
        return Address(self.host, self.port)


@dataclass(frozen=True)
class Traffic:
    """A model's wanted weights, its live version, and the version that the registry's alias was last moved to.

    Attributes:
        shadow_slot: the slot that `shadow_percent` of the traffic is mirrored to; its answers go nowhere.
    """

    model: str
    blue: int = 0
    green: int = 0
    live_slot: SlotName | None = None
    live_version: str | None = None
    alias_version: str | None = None
    shadow_slot: SlotName | None = None
    shadow_percent: int = 0

    @property
    def weights(self) -> dict[SlotName, int]:
        """Slots with traffic and their per cent."""
        both: dict[SlotName, int] = {"blue": self.blue, "green": self.green}
        return {slot: weight for slot, weight in both.items() if weight}


def routes(slots: Sequence[SlotRecord], traffic: Sequence[Traffic]) -> list[Route]:
    """The whole fleet as the gateway should route it, in name order."""
    by_model: dict[str, list[SlotRecord]] = {}
    for slot in slots:
        by_model.setdefault(slot.model, []).append(slot)
    fleet = []
    for row in sorted(traffic, key=lambda row: row.model):
        weights = row.weights
        own = sorted(by_model.get(row.model, []), key=lambda slot: slot.slot)
        backends = tuple(Backend(s.slot, s.port, weights.get(s.slot, 0), s.host) for s in own)
        fleet.append(Route(row.model, backends, row.shadow_slot, row.shadow_percent))
    return fleet


def slot_is_wanted(slot: SlotRecord, traffic: Traffic, now: datetime, *, active_requests: int = 0) -> bool:
    """Whether a slot outside of a rollout should be up: it is live, has traffic, is kept warm, or still answers."""
    if slot.version is None:
        return False
    if slot.slot == traffic.live_slot or traffic.weights.get(slot.slot, 0) > 0:
        return True
    if slot.keep_warm_until is not None and now < slot.keep_warm_until:
        return True
    return active_requests > 0 and slot.drain_until is not None and now < slot.drain_until


@dataclass(frozen=True)
class ModelStatus:
    """One model for people: what is live, what the slots hold, what a rollout is doing."""

    model: str
    live_version: str | None
    live_slot: SlotName | None
    weights: Mapping[SlotName, int]
    slots: tuple[SlotRecord, ...] = ()
    applied_weights: Mapping[SlotName, int] | None = None
    running: Mapping[SlotName, str | None] = field(default_factory=dict)
    rollout: Any = None
    alias_pending: bool = False


def fallback_version(went_live: Sequence[tuple[str, str]]) -> str | None:
    """The version to go back to by default, out of (version, kind) of everything that went live, oldest first.

    A rollback takes what it left off the list, so that a second rollback goes further back and never returns
    to the version that the first one removed.

    >>> fallback_version([("1", "release"), ("2", "release")])
    '1'
    >>> fallback_version([("1", "release"), ("2", "release"), ("3", "release"), ("2", "rollback")])
    '1'
    >>> fallback_version([("1", "release")]) is None
    True
    """
    line: list[str] = []
    for version, kind in went_live:
        if kind == "rollback" and version in line:
            del line[line.index(version) :]
        line = [other for other in line if other != version] + [version]
    return line[-2] if len(line) > 1 else None
