from __future__ import annotations

from pathlib import Path

import pytest

from loop.conftest import stack as stack  # the whole embedded stack; a machine with Prometheus runs it as a part of it
from slipway.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of a stack that does not run."""
    return Settings(_env_file=None, home=tmp_path / "home")  # type: ignore[call-arg]
