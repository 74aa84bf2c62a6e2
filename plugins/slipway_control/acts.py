"""Does what was asked for, with its row in the audit; what takes long goes on after the answer.

An abort drains a slot and a rollback may start one, which takes from seconds to minutes. Both are safe to lose: what
was asked for is in Postgres before anything moves, and the keeper finishes it if this server dies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from functools import lru_cache
from typing import Any

from slipway.wiring import Wiring
from slipway_control.access import Caller

__all__ = ["act"]

_ANSWER_SECONDS = 2.0


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=8, thread_name_prefix="slipway-action")


def act(
    slipway: Wiring, who: Caller, action: str, model: str, detail: Mapping[str, Any], work: Callable[[], dict[str, Any]]
) -> tuple[bool, dict[str, Any]]:
    """Whether it is done already, and what it gave; errors that come at once are raised."""
    going = _pool().submit(slipway.noted, action, model, detail, work, actor=who.name, via=who.via)
    try:
        return True, going.result(_ANSWER_SECONDS)
    except NotYet:
        if going.done():
            return True, going.result()
        return False, {"model": model, "action": action, "under_way": True}
