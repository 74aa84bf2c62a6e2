"""Named places between acting and saving, where a test can stop the process.

`fault_point` does nothing unless a test harness has installed a hook. A harness that needs one in every process of a
stack names a file in `SLIPWAY_FAULT_HOOK`; that variable is documented nowhere else and has no default.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

__all__ = ["fault_point", "install", "install_file"]

_hook: Callable[[str], None] | None = None


def install(hook: Callable[[str], None] | None) -> None:
    """Call `hook(name)` at every fault point from now on; None removes it."""
    global _hook
    _hook = hook


def install_file(path: Path) -> None:
    """Install the function `at` of a Python file as the hook."""
    definition = importlib.util.spec_from_file_location("slipway_fault_hook", path)
    if definition is None or definition.loader is None:
        raise ValueError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(definition)
    definition.loader.exec_module(module)
    install(module.at)


def fault_point(name: str) -> None:
    """A place where a crash must do no harm."""
    if _hook is not None:
        _hook(name)
