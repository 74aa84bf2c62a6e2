"""What the ledger's rows say about a moment in the past."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slipway.ports import LedgerEntry

__all__ = ["rollout_behind", "served"]

LIVE, TRAFFIC, STARTED = "live", "traffic", "started"


def served(rows: Sequence[LedgerEntry]) -> dict[str, dict[str, Any]]:
    """Which version each slot with traffic served after these rows of one model, oldest first: slot → version, weight.

    A row about a rollout's traffic names the slot and the version of that rollout; what the other slot holds is said
    by the rows before.
    """
    holds: dict[str, str] = {}
    weights: dict[str, int] = {}
    for row in rows:
        if row.slot and row.version and row.event in (LIVE, TRAFFIC):
            holds[row.slot] = row.version
        if row.event == TRAFFIC:
            weights = {slot: int(weight) for slot, weight in row.detail["weights"].items() if weight}
    return {slot: {"version": holds.get(slot), "weight": weight} for slot, weight in sorted(weights.items())}


def rollout_behind(rows: Sequence[LedgerEntry], version: str) -> str | None:
    """The id of the rollout that brought the version to where it was after these rows, oldest first."""
    for row in reversed(rows):
        if row.version == version and row.rollout_id and row.event in (LIVE, TRAFFIC, STARTED):
            return row.rollout_id
    return None
