"""The settings of one bento process; the only reader of the environment here.

Every value has a default, so that `bentoml serve` works on a bento without any preparation. Only the
prediction log needs a decision: without `SLIPWAY_SPOOL_DIR` there is none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Config", "ConfigError"]

WhenFull = Literal["refuse", "serve"]


class ConfigError(ValueError):
    """A variable has a value that does not fit; the message names it."""


@dataclass(frozen=True)
class Config:
    """What a bento process is told by whoever starts it.

    Attributes:
        model, version: what the starter expects to find in the bento; None accepts any.
        spool_dir: where answered predictions are written before the reply; None switches the log off.
        fsync_interval_ms: rows are safe against power loss after this time; 0 is an fsync before each reply.
        max_concurrency: requests in work at once, above which 429 is answered.
        max_in_flight_bytes: bodies held in memory at once, above which 429 is answered; a single one always fits.
        max_queue_ms: while a queue stays, a request that waited longer gets 429, so that none grows for ever.
        inline_bytes: larger bodies are worked on beside the event loop, so that others are not held up.
    """

    artefacts_dir: Path
    model: str | None = None
    version: str | None = None
    slot: str = "local"
    spool_dir: Path | None = None
    spool_segment_max_bytes: int = 8 * 1024 * 1024
    spool_segment_max_age_seconds: float = 5.0
    spool_max_bytes: int = 1024 * 1024 * 1024
    spool_when_full: WhenFull = "refuse"
    fsync_interval_ms: int = 200
    max_body_bytes: int = 16 * 1024 * 1024
    max_batch_rows: int = 10_000
    max_concurrency: int = 1024
    max_in_flight_bytes: int = 64 * 1024 * 1024
    max_queue_ms: int = 50
    inline_bytes: int = 32 * 1024

    @classmethod
    def from_env(cls, artefacts_dir: Path, env: Mapping[str, str] | None = None) -> Config:
        """Read `SLIPWAY_*`; an empty variable counts as not set.

        Raises:
            ConfigError: a value is not a number, or below its minimum, or an unknown policy.
        """
        source = os.environ if env is None else env
        spool_dir = _text(source, "SPOOL_DIR")
        when_full = _text(source, "SPOOL_WHEN_FULL") or cls.spool_when_full
        if when_full not in ("refuse", "serve"):
            raise ConfigError(f"SLIPWAY_SPOOL_WHEN_FULL: {when_full!r} must be refuse or serve")
        return cls(
            artefacts_dir=Path(_text(source, "ARTEFACTS_DIR") or artefacts_dir),
            model=_text(source, "MODEL"),
            version=_text(source, "VERSION"),
            slot=_text(source, "SLOT") or cls.slot,
            spool_dir=Path(spool_dir) if spool_dir else None,
            spool_segment_max_bytes=int(_number(source, "SPOOL_SEGMENT_MAX_BYTES", cls.spool_segment_max_bytes, 4096)),
            spool_segment_max_age_seconds=_number(
                source, "SPOOL_SEGMENT_MAX_AGE_SECONDS", cls.spool_segment_max_age_seconds, 0.01
            ),
            spool_max_bytes=int(_number(source, "SPOOL_MAX_BYTES", cls.spool_max_bytes, 1)),
            spool_when_full="serve" if when_full == "serve" else "refuse",
            fsync_interval_ms=int(_number(source, "FSYNC_INTERVAL_MS", cls.fsync_interval_ms, 0)),
            max_body_bytes=int(_number(source, "MAX_BODY_BYTES", cls.max_body_bytes, 1)),
            max_batch_rows=int(_number(source, "MAX_BATCH_ROWS", cls.max_batch_rows, 1)),
            max_concurrency=int(_number(source, "MAX_CONCURRENCY", cls.max_concurrency, 1)),
            max_in_flight_bytes=int(_number(source, "MAX_IN_FLIGHT_BYTES", cls.max_in_flight_bytes, 1)),
            max_queue_ms=int(_number(source, "MAX_QUEUE_MS", cls.max_queue_ms, 1)),
        )


def _text(source: Mapping[str, str], name: str) -> str | None:
    return source.get(f"SLIPWAY_{name}") or None


def _number(source: Mapping[str, str], name: str, default: float, minimum: float) -> float:
    text = _text(source, name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(f"SLIPWAY_{name}: {text!r} is not a number") from None
    if not minimum <= value < float("inf"):
        raise ConfigError(f"SLIPWAY_{name}: {text} must be at least {minimum:g}")
    return value
