"""Commands for the embedded stack: up, down, status, logs, doctor."""

from __future__ import annotations

import time

import click

__all__ = ["COMMANDS"]


def _say(line: str) -> None:
    click.echo(line)


@click.command()
def up() -> None:
    """Start the stack and wait until all of it answers."""
    from slipway.settings import env_file_path, load_settings
    from slipway.stack.secrets import ensure_secrets

    began = time.monotonic()
    made = ensure_secrets(env_file_path())
    if made:
        _say(f"generated {len(made)} secrets into {env_file_path()}")
    load_settings.cache_clear()
    settings = load_settings()
    from slipway.stack.start import start_stack
    from slipway.stack.status import addresses

    start_stack(settings, _say)
    _say(f"the stack is up after {time.monotonic() - began:.1f} s")
    for name, value in addresses(settings):
        _say(f"  {name:<12} {value}")


@click.command()
def down() -> None:
    """Stop the stack; its data stays."""
    from slipway.settings import load_settings
    from slipway.stack.start import exclusive
    from slipway.stack.stop import stop_stack

    settings = load_settings()
    with exclusive(settings):
        stop_stack(settings, _say)
    _say("the stack is down")


COMMANDS: list[click.Command] = [up, down]
