"""The slot agent's process."""

from __future__ import annotations

import logging
import sys
import threading
import time

from slipway.settings import load_settings

__all__ = ["main"]


def main() -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        StackError: there is no token.
    """
    settings = load_settings()
    token = settings.secret("agent_token")

    import uvicorn

    from slipway.adapters.docker_engine import DockerEngine
    from slipway.adapters.docker_stack import DockerStack
    from slipway.agent.app import create_app
    from slipway.agent.images import Images
    from slipway.agent.revive import Reviver
    from slipway.agent.slots import SPOOL_DIR, Slots

    if settings.fault_hook is not None:
        from slipway.core.faults import install_file

        install_file(settings.fault_hook)
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        level=settings.log_level,
        stream=sys.stdout,
        format="%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    engine = DockerEngine(settings.docker_host, str(SPOOL_DIR))
    bentos = settings.bentoml_home / "bentos"
    images = Images(engine, bentos, settings.serving_image, settings.bento_max_mb)
    app = create_app(engine, Slots(engine, images, settings), images, token)
    stop = threading.Event()
    threading.Thread(target=Reviver(DockerStack(settings.docker_host)).run, args=(stop,), daemon=True).start()
    uvicorn.run(
        app, host=settings.host, port=settings.agent_port, access_log=False, log_config=None, server_header=False
    )
    stop.set()
