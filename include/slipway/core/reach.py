"""Which versions of a model something still reaches. Everything else may be cleared away.

Pure: the caller brings the facts. When in doubt a version stays; a version that is gone cannot be asked back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from slipway.core.fleet import fallback_version

__all__ = ["LEAST_KEPT", "ModelFacts", "Stored", "reachable"]

LEAST_KEPT = 3


@dataclass(frozen=True)
class Stored:
    """One thing that may be cleared away; `at` is when it was made or last asked for."""

    model: str
    name: str
    at: datetime
    bytes: int = 0
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelFacts:
    """What is known about one model.

    Attributes:
        live: the live version.
        in_slots: versions that a slot holds by the tables or by the runtime, also those that are being stopped.
        in_rollouts: target and former version of every unfinished rollout.
        aliased: versions with any alias in the registry.
        went_live: (version, kind) of everything that went live, oldest first.
        started: every version that a rollout was ever begun for.
        registered: every version in the registry, oldest first.
        young: versions registered, packaged or asked for so recently that their release may be on its way.
        keep_versions: how many former versions a rollback reaches.
    """

    live: str | None
    in_slots: Collection[str] = ()
    in_rollouts: Collection[str] = ()
    aliased: Collection[str] = ()
    went_live: Sequence[tuple[str, str]] = ()
    started: Collection[str] = ()
    registered: Sequence[str] = ()
    young: Collection[str] = ()
    keep_versions: int = LEAST_KEPT


def reachable(facts: ModelFacts) -> dict[str, str]:
    """Version → the first reason why it stays.

    >>> facts = ModelFacts(live="5", went_live=[(v, "release") for v in "12345"], started=set("12345"))
    >>> sorted(reachable(facts))
    ['2', '3', '4', '5']
    """
    reasons: dict[str, str] = {}

    def keep(versions: Collection[str | None], why: str) -> None:
        for version in versions:
            if version is not None:
                reasons.setdefault(version, why)

    count = max(LEAST_KEPT, facts.keep_versions)
    keep([facts.live], "live")
    keep(facts.in_slots, "in a slot")
    keep(facts.in_rollouts, "in a rollout")
    keep(facts.aliased, "has an alias")
    former = [v for v in dict.fromkeys(version for version, _ in reversed(facts.went_live)) if v != facts.live]
    keep(former[:count], "kept for a rollback")
    # After several rollbacks in a row the next one goes further back than to the versions that were live last.
    keep([fallback_version(facts.went_live)], "kept for a rollback")
    waiting = [version for version in facts.registered if version not in facts.started]
    keep(waiting[-count:], "waits for its release")
    keep(facts.young, "is young")
    return reasons
