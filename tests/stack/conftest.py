"""Settings of a stack that does not run, in a folder of its own."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from slipway.settings import Settings
from slipway.stack.secrets import SECRETS, ensure_secrets


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in SECRETS:
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    monkeypatch.setenv("SLIPWAY_HOME", str(home))
    ensure_secrets(home / ".env")
    return Settings(_env_file=home / ".env", home=home)  # type: ignore[call-arg]


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
