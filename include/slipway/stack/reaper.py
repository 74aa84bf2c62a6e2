"""Ends what a crashed program leaves behind; an event listener of Supervisor.

A program that is killed cannot end its own children. They would go on holding its port (MLflow's and a
bento's workers) or run a task beside the one that is started in its place (Airflow's scheduler). Each
supervised program leads a process group of its own, so ending the group of one that exited is enough.

Protocol: http://supervisord.org/events.html
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import BinaryIO

__all__ = ["listen"]


def _fields(line: str) -> dict[str, str]:
    return dict(part.split(":", 1) for part in line.split() if ":" in part)


def listen(source: BinaryIO, target: BinaryIO) -> None:
    """Answers events until the input ends."""
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
        target.write(b"RESULT 2\nOK")
        target.flush()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        listen(sys.stdin.buffer, sys.stdout.buffer)
