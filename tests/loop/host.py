"""How much of its processors the machine really had: a virtual one shares them with others."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

__all__ = ["ProcessorTime"]


@dataclass(frozen=True)
class ProcessorTime:
    """Seconds on all processors since the machine started.

    Attributes:
        ran: in which something ran.
        withheld: in which something could have run, but the host ran others (Linux calls it steal; elsewhere 0).
    """

    ran: float
    withheld: float

    @classmethod
    def now(cls) -> ProcessorTime:
        times = psutil.cpu_times()
        return cls(times.user + times.nice + times.system, getattr(times, "steal", 0.0))

    def withheld_share_since(self, then: ProcessorTime) -> float:
        """Of the processor time that was wanted since `then`, the share that was withheld; 0 to 1."""
        ran, withheld = self.ran - then.ran, self.withheld - then.withheld
        return withheld / (ran + withheld) if withheld > 0 else 0.0
