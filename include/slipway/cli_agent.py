"""The slot agent, for the container that runs it."""

from __future__ import annotations

import click

__all__ = ["COMMANDS"]


@click.command()
def agent() -> None:
    """Start and stop bento containers for whoever has the token; the one part with Docker's socket."""
    from slipway.agent.server import main

    main()


COMMANDS: list[click.Command] = [agent]
