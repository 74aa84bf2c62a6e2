"""What one measured decision is, so that the run, its table and its tests treat all alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """A rate or size that was measured beside the bound it has to keep.

    Attributes:
        name: what was measured, in a few words: "ordered windows that warn".
        value: the measured figure, a share (0-1) unless `unit` says otherwise.
        bound: what it has to keep; with `at_most` False it is the least.
        trials: how many trials stand behind it.
        notes: further figures for the JSON file, such as those of a peer on the same rows.
    """

    name: str
    value: float
    bound: float
    at_most: bool
    trials: int
    unit: str = "share"
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def kept(self) -> bool:
        return self.value <= self.bound if self.at_most else self.value >= self.bound


@dataclass(frozen=True)
class Case:
    """One replay; `run(scale)` does `scale` (0-1] of its full number of trials and gives what it measured."""

    name: str
    run: Callable[[float], list[Outcome]]
