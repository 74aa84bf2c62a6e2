"""Keys of the gateway and the control API: who may call what, and how often.

Only the SHA-256 of a key is kept anywhere; a key has 256 random bits, so nobody finds it by trying. A key is looked up
by its digest: no comparison depends on how much of a guessed key is right.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, cast

from slipway.errors import ConflictError, DataError

__all__ = ["MAIN_KEY", "PER_MINUTE", "SCOPES", "ApiKey", "Scope", "digest_of_key", "main_key", "new_key", "valid_keys"]

# What a key may be allowed. At the gateway: `predict` (and /invocations), `feedback`. At the control API: reading;
# trainings; rollouts, rollbacks and approvals; A/B splits; predictions and feedback from the playground.
Scope = Literal["predict", "feedback", "read", "train", "release", "traffic", "play"]
SCOPES: tuple[Scope, ...] = ("predict", "feedback", "read", "train", "release", "traffic", "play")
MAIN_KEY = "control-api"  # the name that the `.env` file's own key goes by; it may do everything
PER_MINUTE = 60
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


@dataclass(frozen=True)
class ApiKey:
    """One key by name; `per_minute` is how many actions of the control API it may ask for."""

    name: str
    sha256: str
    scopes: tuple[Scope, ...]
    per_minute: int = PER_MINUTE
    created_at: datetime | None = None
    created_by: str = ""
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def is_valid(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def digest_of_key(key: str) -> str:
    """The SHA-256 of a key in hex, which is what records and the gateway's files hold."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_key(
    name: str,
    key: str,
    scopes: Sequence[str],
    *,
    at: datetime,
    by: str,
    per_minute: int = PER_MINUTE,
    expires_at: datetime | None = None,
) -> ApiKey:
    """The record of a key that was just drawn.

    Raises:
        DataError: a scope or the rate cannot be used.
        ConflictError: the name cannot be used.
    """
    if not _NAME.fullmatch(name) or name == MAIN_KEY:
        raise ConflictError(f"{name!r} is no name for a key; use up to 63 of a-z 0-9 . _ - and not {MAIN_KEY!r}")
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise DataError(f"{unknown[0] if unknown else 'no scope'} given; the scopes are {', '.join(SCOPES)}")
    if per_minute < 1:
        raise DataError("a key is allowed at least one action a minute")
    ordered = cast("tuple[Scope, ...]", tuple(scope for scope in SCOPES if scope in scopes))
    return ApiKey(name, digest_of_key(key), ordered, per_minute, created_at=at, created_by=by, expires_at=expires_at)


def main_key(key: str) -> ApiKey:
    """The `.env` file's own key as one of the others."""
    return ApiKey(MAIN_KEY, digest_of_key(key), SCOPES)


def valid_keys(keys: Iterable[ApiKey], now: datetime) -> tuple[ApiKey, ...]:
    """Those that may be used now, in a stable order."""
    return tuple(sorted((key for key in keys if key.is_valid(now)), key=lambda key: key.name))
