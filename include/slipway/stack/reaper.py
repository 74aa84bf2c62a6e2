"""Ends what a crashed program leaves behind; an event listener of Supervisor.

A program that is killed cannot end its own children. They would go on holding its port (MLflow's and a
bento's workers) or run a task beside the one that is started in its place (Airflow's scheduler). Each
supervised program leads a process group of its own, which is ended first. Airflow's tasks lead groups of
their own, so whatever the end of that group made an orphan is ended too.

Protocol: http://supervisord.org/events.html
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import BinaryIO

from slipway.stack.processes import orphans, wait_until

__all__ = ["end_orphans", "listen"]

_ORPHANS_END_SECONDS = 5.0


def _fields(line: str) -> dict[str, str]:
    return dict(part.split(":", 1) for part in line.split() if ":" in part)


def end_orphans(supervisor: int) -> None:
    """Kill what is left of programs that exited, until nothing is; what it starts meanwhile as well."""

    def none_left() -> bool:
        found = orphans(supervisor)
        for process in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, signal.SIGKILL)
        return not found

    wait_until(none_left, _ORPHANS_END_SECONDS)


def listen(source: BinaryIO, target: BinaryIO, supervisor: int | None = None) -> None:
    """Answers events until the input ends.

    Args:
        supervisor: the process id of the supervisor that sends them; None: only groups are ended.
    """
    while True:
        target.write(b"READY\n")
        target.flush()
        header = _fields(source.readline().decode())
        if "len" not in header:
            return
        payload = _fields(source.read(int(header["len"])).decode())
        if payload.get("pid", "").isdigit() and int(payload["pid"]) > 1:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(int(payload["pid"]), signal.SIGKILL)
            if supervisor is not None:
                end_orphans(supervisor)
        target.write(b"RESULT 2\nOK")
        target.flush()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        listen(sys.stdin.buffer, sys.stdout.buffer, os.getppid())
