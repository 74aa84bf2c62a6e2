"""What a slot counts about itself, and the difference between two looks at it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["SlotMetrics"]


@dataclass(frozen=True)
class SlotMetrics:
    """Counters of one slot's process since it started; shadow requests are in none but their own.

    Attributes:
        started_at: Unix time in seconds; another one means that another process counts.
        rejected: requests answered with 429.
        refused: requests answered with another 4xx.
        bounds: upper bounds of the latency histogram in seconds; the last bucket of `latency` has none.
        latency: requests by bucket, not cumulative.
    """

    started_at: float = 0.0
    requests: int = 0
    rejected: int = 0
    in_flight: int = 0
    shadow_requests: int = 0
    shadow_errors: int = 0
    refused: int = 0
    shadow_refused: int = 0
    bounds: tuple[float, ...] = ()
    latency: tuple[int, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SlotMetrics:
        return cls(**{**values, "bounds": tuple(values["bounds"]), "latency": tuple(values["latency"])})

    def since(self, before: SlotMetrics) -> SlotMetrics:
        """What was counted after `before`; everything when another process counts since."""
        if before.started_at != self.started_at or before.requests > self.requests or before.bounds != self.bounds:
            return self
        return SlotMetrics(
            started_at=self.started_at,
            requests=self.requests - before.requests,
            rejected=self.rejected - before.rejected,
            in_flight=self.in_flight,
            shadow_requests=self.shadow_requests - before.shadow_requests,
            shadow_errors=self.shadow_errors - before.shadow_errors,
            refused=self.refused - before.refused,
            shadow_refused=self.shadow_refused - before.shadow_refused,
            bounds=self.bounds,
            latency=tuple(now - then for now, then in zip(self.latency, before.latency, strict=True)),
        )

    @property
    def answered(self) -> int:
        """Requests in the histogram."""
        return sum(self.latency)

    def quantile_seconds(self, share: float) -> float | None:
        """The latency below which this share of the requests was answered, interpolated inside its bucket.

        None without requests; infinite in the last bucket.
        """
        total = self.answered
        if total == 0:
            return None
        reached, wanted = 0, share * total
        for index, count in enumerate(self.latency):
            if count and reached + count >= wanted:
                if index == len(self.bounds):
                    return float("inf")
                low = self.bounds[index - 1] if index else 0.0
                return low + (self.bounds[index] - low) * (wanted - reached) / count
            reached += count
        return float("inf")

    def slower_than(self, seconds: float) -> tuple[int, float]:
        """Requests that took longer than the first bucket bound from `seconds` on, and that bound.

        Of what is slower than the last bound nothing more is known, so beyond it the last bound is taken.
        """
        if not self.bounds:
            return 0, 0.0
        index = min(bisect_left(self.bounds, seconds), len(self.bounds) - 1)
        return sum(self.latency[index + 1 :]), self.bounds[index]
