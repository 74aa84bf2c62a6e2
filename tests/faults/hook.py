"""What a process of the stack does at a fault point when the harness has ordered so; otherwise nothing.

`$SLIPWAY_HOME/faults/orders/<role>@<point>` holds `kill` or `hold`. Whoever takes the order moves it to `hits/`, so one
order is obeyed once. A process that holds goes on when `hits/<role>@<point>.go` appears, or by itself after a while.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

FOLDER = Path(os.environ["SLIPWAY_HOME"]) / "faults"
ROLE = "keeper" if "keeper" in sys.argv else "driver"
_LONGEST_HOLD_SECONDS = 30.0


def at(point: str) -> None:
    """The hook that `SLIPWAY_FAULT_HOOK` installs."""
    name = f"{ROLE}@{point}".replace("/", "_")
    order = FOLDER / "orders" / name
    if not order.exists():
        return
    try:
        what = order.read_text()
        order.rename(FOLDER / "hits" / name)
    except FileNotFoundError:
        return  # another process took it
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    deadline = time.monotonic() + _LONGEST_HOLD_SECONDS
    go = FOLDER / "hits" / f"{name}.go"
    while not go.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
