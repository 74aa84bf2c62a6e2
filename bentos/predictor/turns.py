"""How long requests wait for their turn of the event loop, and when that is too long.

A turn works off all connections that had something to read when it began, one after the other. Under overload a turn
grows with the number of connections, and everybody waits for all of it; what comes late in an overlong turn is better
refused, which is quick, than answered even later.
"""

from __future__ import annotations

import asyncio

from predictor.problems import Problem, overload

__all__ = ["Turns", "queue_too_long"]

_LOOK_EVERY = 16


def queue_too_long() -> Problem:
    """What a request is told that comes too late in its turn."""
    return overload("requests wait too long for their turn")


class Turns:
    """For the event loop's thread.

    Args:
        max_queue_seconds: a request that comes later in its turn is refused.
    """

    def __init__(self, max_queue_seconds: float) -> None:
        self._max_queue_seconds = max_queue_seconds
        self._began: float | None = None
        self._unseen = 0

    def late(self, now: float) -> bool:
        """Whether a request comes too late in its turn.

        To learn when a turn ends costs a callback, so only the turn of every 16th request is measured: an idle server
        hardly notices, and an overlong turn has many times 16.
        """
        if self._began is not None:
            return now - self._began > self._max_queue_seconds
        self._unseen += 1
        if self._unseen >= _LOOK_EVERY:
            self._unseen = 0
            self._began = now
            asyncio.get_running_loop().call_soon(self._end)
        return False

    def admit(self, now: float) -> None:
        """Let a request in, or refuse it.

        Raises:
            Problem: 429.
        """
        if self.late(now):
            raise queue_too_long()

    def _end(self) -> None:
        self._began = None
