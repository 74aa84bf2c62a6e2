"""How long requests wait for their turn of the event loop, and when that is too long.

A turn works off all connections that had something to read when it began, one after the other. Under overload a turn
grows with the number of connections, and everybody waits for all of it; what comes late in an overlong turn is better
refused, which is quick, than answered even later.

One overlong turn is no overload yet: what held the process up, a busy machine or a slow disk, leaves requests behind
that came meanwhile, and they are worked off in one turn. Only when the next turn is overlong again do they come faster
than they are answered. Nichols and Jacobson, "Controlling Queue Delay", 2012, tell a standing queue from a burst by the
same thought.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from predictor.problems import Problem, overload

__all__ = ["Turns", "queue_too_long"]

_LOOK_EVERY = 16


def queue_too_long() -> Problem:
    """What a request is told that comes too late in its turn."""
    return overload("requests wait too long for their turn")


class Turns:
    """For the event loop's thread.

    Args:
        max_queue_seconds: a request that comes later in its turn is refused if the turn before was too long as well.
        worked_seconds: the thread's own computing time. A turn that is long only because the machine gave the thread
            no time to run is a stall, not overload, and nobody is refused for it.
    """

    def __init__(self, max_queue_seconds: float, worked_seconds: Callable[[], float] = time.thread_time) -> None:
        self._max_queue_seconds = max_queue_seconds
        self._worked_seconds = worked_seconds
        self._worked_before = 0.0
        self._began: float | None = None
        self._overlong = False
        self._overlong_before = False
        self._unseen = 0

    def late(self, now: float) -> bool:
        """Whether a request comes too late in its turn, and one did in the measured turn before.

        To learn when a turn ends costs a callback, so only the turn of every 16th request is measured: an idle server
        hardly notices, and under overload a turn has many times 16.
        """
        if self._began is not None:
            if now - self._began <= self._max_queue_seconds:
                return False
            worked = self._worked_seconds()
            if worked - self._worked_before > self._max_queue_seconds / 2:
                self._overlong = True
                return self._overlong_before
            self._began, self._worked_before = now, worked
            return False
        self._unseen += 1
        if self._unseen >= _LOOK_EVERY:
            self._unseen = 0
            self._began, self._worked_before = now, self._worked_seconds()
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
        self._overlong_before, self._overlong = self._overlong, False
