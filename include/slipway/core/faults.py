"""Named places between acting and saving, where a test can stop the process.

`fault_point` does nothing unless a test harness has installed a hook; nothing in the product installs one.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["fault_point", "install"]

_hook: Callable[[str], None] | None = None


def install(hook: Callable[[str], None] | None) -> None:
    """Call `hook(name)` at every fault point from now on; None removes it."""
    global _hook
    _hook = hook


def fault_point(name: str) -> None:
    """A place where a crash must do no harm."""
    if _hook is not None:
        _hook(name)
