"""Generates the secrets of an installation into its `.env` file; what a user has set there stays as it is."""

from __future__ import annotations

import base64
import os
import secrets
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from slipway.errors import StackError
from slipway.settings import is_set

__all__ = ["SECRETS", "ensure_secrets", "missing_secrets", "set_names"]


def _token() -> str:
    return secrets.token_urlsafe(32)


def _signing_key() -> str:
    return secrets.token_urlsafe(64)  # SHA-512 wants no less


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


def _password() -> str:
    # Typed by people into the login page, so no characters that look alike and no punctuation.
    alphabet = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
    return "".join(secrets.choice(alphabet) for _ in range(20))


SECRETS: dict[str, Callable[[], str]] = {
    "SLIPWAY_POSTGRES_PASSWORD": _token,
    "SLIPWAY_SUPERVISOR_PASSWORD": _token,
    "SLIPWAY_AIRFLOW_ADMIN_PASSWORD": _password,
    "SLIPWAY_AIRFLOW_OPERATOR_PASSWORD": _password,
    "SLIPWAY_AIRFLOW_VIEWER_PASSWORD": _password,
    "SLIPWAY_AIRFLOW_FERNET_KEY": _fernet_key,
    "SLIPWAY_AIRFLOW_SECRET_KEY": _token,
    "SLIPWAY_AIRFLOW_JWT_SECRET": _signing_key,
    "SLIPWAY_GRAFANA_ADMIN_PASSWORD": _password,
    "SLIPWAY_REDIS_PASSWORD": _token,
    "SLIPWAY_CONTROL_KEY": _token,
    "SLIPWAY_AGENT_TOKEN": _token,
}

_HEADER = "# Slipway's settings and generated secrets. Keep this file private; .env.example explains each setting.\n"


def set_names(lines: Iterable[str]) -> set[str]:
    pairs = (line.strip().removeprefix("export ").partition("=") for line in lines)
    return {name.strip() for name, _, value in pairs if not name.startswith("#") and value.strip()}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise StackError(f"cannot read {path}: {error.strerror}; it holds the stack's secrets") from error


def missing_secrets(path: Path) -> list[str]:
    """The names of the secrets that neither the file nor the environment holds."""
    known = set_names(_read(path).splitlines()) | {name for name in SECRETS if is_set(name)}
    return [name for name in SECRETS if name not in known]


def ensure_secrets(path: Path) -> list[str]:
    """Adds every missing secret to the file and makes it readable by its owner alone.

    The file is replaced whole, so a crash leaves either the old or the new one.

    Returns:
        The names that were generated.

    Raises:
        StackError: the file or its folder cannot be written.
    """
    missing = missing_secrets(path)
    try:
        if missing:
            _replace(path, missing)
        elif path.exists() and path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except OSError as error:
        raise StackError(f"cannot write {path}: {error.strerror}; the stack keeps its secrets there") from error
    return missing


def _replace(path: Path, names: list[str]) -> None:
    text = _read(path) or _HEADER
    # An empty assignment would win over the line added below it, or read as two answers to one question.
    kept = [line for line in text.splitlines() if line.strip().rstrip("= ") not in names]
    lines = [*kept, *(f"{name}={SECRETS[name]()}" for name in names)]
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".env.")  # mode 0600 from the start
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
