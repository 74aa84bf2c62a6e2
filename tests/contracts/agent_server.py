"""A slot agent on a free loopback port, and the runtime that asks it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from slipway.adapters.docker_slots import DockerRuntime
from slipway.adapters.slot_agent import SlotAgent
from slipway.agent.app import create_app
from slipway.agent.engine import Engine
from slipway.agent.images import Images
from slipway.agent.slots import Slots
from slipway.settings import Settings

TOKEN = "a-token-of-this-test-only"


@contextlib.contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The app's address for a while."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)


@contextlib.contextmanager
def agent_over(engine: Engine, bentos: Path, settings: Settings) -> Iterator[DockerRuntime]:
    """The Docker runtime through an agent that works on this engine."""
    images = Images(engine, bentos, settings.serving_image, settings.bento_max_mb)
    with serving(create_app(engine, Slots(engine, images, settings), images, TOKEN)) as url:
        agent = SlotAgent(url, TOKEN)
        try:
            yield DockerRuntime(agent, lambda model: "refuse")
        finally:
            agent.close()
