"""How often somebody may ask: a bucket of tokens for each, filled evenly over the minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["RateLimit"]

_FORGET_ABOVE = 10_000


class RateLimit:
    """Shared by the threads of one server; a second server counts for itself."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, name: str, per_minute: int) -> float:
        """Take a token: 0 if there was one, else the seconds until there is."""
        now = self._clock()
        with self._lock:
            if len(self._buckets) > _FORGET_ABOVE:
                self._buckets.clear()
            tokens, then = self._buckets.get(name, (float(per_minute), now))
            tokens = min(float(per_minute), tokens + (now - then) * per_minute / 60)
            enough = tokens >= 1
            self._buckets[name] = (tokens - 1 if enough else tokens, now)
        return 0.0 if enough else (1 - tokens) * 60 / per_minute

    def forget(self) -> None:
        """Everybody's bucket is full again."""
        with self._lock:
            self._buckets.clear()
