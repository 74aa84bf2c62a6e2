"""How long and how often each thing is measured."""

from __future__ import annotations

import os
from dataclasses import dataclass

__all__ = ["FULL", "QUICK", "Plan", "chosen"]


@dataclass(frozen=True)
class Plan:
    """`rounds` of `seconds` each per server and batch size; `starts` cold starts; long runs in seconds."""

    name: str
    rounds: int
    seconds: float
    batch_seconds: float
    starts: int
    half_seconds: float
    overload_seconds: float
    batches: tuple[int, ...] = (100, 10_000)
    connections: int = 8


FULL = Plan("full", rounds=5, seconds=4, batch_seconds=3, starts=3, half_seconds=60, overload_seconds=60)
# Enough to see that everything runs and whether a ratio has collapsed; no figure to quote.
QUICK = Plan("quick", rounds=3, seconds=1, batch_seconds=1, starts=1, half_seconds=5, overload_seconds=5)


def chosen() -> Plan:
    """`BENCH_QUICK=1` takes the quick one."""
    return QUICK if os.environ.get("BENCH_QUICK", "0") not in ("", "0") else FULL
