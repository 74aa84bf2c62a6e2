"""Brings back containers of the stack that somebody killed.

Docker restarts a container whose process died, but takes `docker kill` for a wish that it stay down. The stack takes it
for an accident, as it does embedded: what was killed comes back. What was stopped (`docker stop`, `docker compose stop`
or `down`) stays down.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Protocol

from slipway.errors import RuntimeSlotError, SlipwayError

__all__ = ["POLL_SECONDS", "Reviver", "Stack"]

_log = logging.getLogger("slipway.agent")
POLL_SECONDS = 2.0


class Stack(Protocol):
    """The containers of this agent's own stack: `slipway.adapters.docker_stack`, and a twin in the tests."""

    def killed(self) -> Sequence[str]: ...

    def start(self, name: str) -> None: ...


class Reviver:
    """Looks every two seconds."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._said = ""

    def look(self) -> list[str]:
        """Start what was killed; the names. One that does not start does not keep the others down.

        Raises:
            RuntimeSlotError: Docker did not answer, or some did not start.
        """
        started, refused = [], []
        for name in self._stack.killed():
            try:
                self._stack.start(name)
            except RuntimeSlotError as error:
                refused.append(str(error))
                continue
            _log.warning("%s was killed; started it again", name)
            started.append(name)
        if refused:
            raise RuntimeSlotError("; ".join(refused))
        return started

    def run(self, stop: threading.Event) -> None:
        """Look until told to stop. What goes wrong is said once and tried again."""
        while not stop.wait(POLL_SECONDS):
            try:
                self.look()
                self._said = ""
            except SlipwayError as error:
                if str(error) != self._said:
                    self._said = str(error)
                    _log.error("cannot bring killed containers back: %s", error)
