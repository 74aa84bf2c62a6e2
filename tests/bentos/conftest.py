"""A started bento per test, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bento_cases import Client, Serve, write_iris
from predictor.config import Config
from predictor.engine import Engine


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Run a coroutine function against a started bento: `serve(scenario, artefacts=…, **config)`."""

    def run(scenario: Callable[[Client], Awaitable[None]], artefacts: Path | None = None, **config: Any) -> None:
        folder = artefacts or write_iris(tmp_path / "artefacts")
        values = {"slot": "blue", "spool_dir": tmp_path / "spool", **config}

        async def main() -> None:
            async with Client(Engine(Config(artefacts_dir=folder, **values))).lifespan() as client:
                await scenario(client)

        asyncio.run(main())

    return run
