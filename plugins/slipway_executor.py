"""Airflow's LocalExecutor, without a hang in its end."""

from __future__ import annotations

import contextlib
import threading

from airflow.executors import local_executor

__all__ = ["LocalExecutor"]

_REMIND_SECONDS = 1.0
_REMINDERS = 1000  # a message is a few bytes; the pipe that nobody reads must not fill up


class LocalExecutor(local_executor.LocalExecutor):  # type: ignore[misc]
    """Tells its workers to end until they have.

    A scheduler that loses its database ends itself, to be started again, and sends each worker one message to end. A
    worker that is killed at that moment can take the message of another one along, and the scheduler then waits for
    that one for ever: running by its process, with no heartbeat, and nothing is scheduled any more. More messages than
    workers do no harm: the queue goes with the executor. A worker that runs a task still comes to the task's end first.
    """

    def end(self) -> None:
        ended = threading.Event()
        reminder = threading.Thread(target=self._remind, args=(ended,), name="remind-workers", daemon=True)
        reminder.start()
        try:
            super().end()
        finally:
            ended.set()

    def _remind(self, ended: threading.Event) -> None:
        for _ in range(_REMINDERS):
            if ended.wait(_REMIND_SECONDS):
                return
            with contextlib.suppress(OSError, ValueError):  # it was closed in the meantime
                self.activity_queue.put(None)
