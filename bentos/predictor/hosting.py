"""How the predictor lives inside `bentoml serve`: everything here leans on BentoML, nothing else does.

Four places are private parts of BentoML 1.4, of uvicorn or of its process manager circus; the versions are locked,
and `tests/bentos/test_hosting.py` fails when one of them moves.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import signal
import sys
from functools import lru_cache
from typing import Any

import bentoml._internal.utils.circus as bentoml_circus
import uvicorn.config
from _bentoml_sdk.service.factory import Service

from predictor.config import Config
from predictor.engine import Engine, default_artefacts_dir
from predictor.front import Front
from predictor.wire import LaneProtocol

__all__ = ["FrontedService", "engine", "respawn_quickly"]

RESPAWN_CHECK_SECONDS = 0.25
_STOP_RETRY_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1


@lru_cache(maxsize=1)
def engine() -> Engine:
    """The engine of this process; the app starts it with the server's lifespan."""
    return Engine(Config.from_env(default_artefacts_dir()))


class FrontedService(Service[Any]):  # type: ignore[misc]
    """A BentoML service whose ASGI app stands behind ours."""

    __slots__ = ()

    def to_asgi(self, is_main: bool = True) -> Any:
        _die_with_parent()
        # uvicorn asks each time a connection opens whether anybody listens to its access log.
        access_log = logging.getLogger("uvicorn.access")
        access_log.handlers, access_log.propagate = [], False
        front = Front(super().to_asgi(is_main=is_main), engine(), _settle_collector)
        # What `http="auto"` stands for, which is what BentoML runs uvicorn with.
        protocols: dict[Any, Any] = uvicorn.config.HTTP_PROTOCOLS
        protocols["auto"] = type("BentoProtocol", (LaneProtocol,), {"lane": front.lane})
        return front


def _settle_collector() -> None:
    """What is alive now stays alive: keep it out of the garbage collector, and collect rarely.

    With the default thresholds the collector stalls requests for over 100 ms now and then.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 1000)


def _die_with_parent() -> None:
    """A worker that outlived its killed parent would hold the port that the next one needs."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class _AttentiveArbiter(bentoml_circus.Arbiter):  # type: ignore[misc]
    """Looks after its workers often: BentoML does so every ten seconds, in which requests to a dead worker hang."""

    def __init__(self, *args: Any, check_delay: float = RESPAWN_CHECK_SECONDS, **kwargs: Any) -> None:
        super().__init__(*args, check_delay=min(check_delay, RESPAWN_CHECK_SECONDS), **kwargs)

    def manage_watchers(self) -> Any:
        # While workers are started or stopped circus answers with an error instead of skipping the turn.
        return super().manage_watchers() if self._exclusive_running_command is None else None

    def stop(self) -> Any:
        # circus forgets a SIGTERM that comes while a worker is being started: ask again until it is done.
        if self._exclusive_running_command is None:
            return super().stop()
        if not self._stopping:
            self.loop.call_later(_STOP_RETRY_SECONDS, self.stop)
        return None


def respawn_quickly() -> None:
    """Run once in the parent process, before it starts its workers."""
    bentoml_circus.Arbiter = _AttentiveArbiter
