"""The command that starts a new model."""

from __future__ import annotations

import os

import click

__all__ = ["COMMANDS"]


@click.command("new-model")
@click.argument("name")
@click.option(
    "--task",
    type=click.Choice(["regression", "classification", "text"]),
    required=True,
    help="what it predicts: a number, a class, or the class of a text",
)
def new_model(name: str, task: str) -> None:
    """Write a fleet file and a test for a new model; both work as they are, to be replaced part by part."""
    from slipway.settings import load_settings
    from slipway.stack.new_model import TASKS, next_commands
    from slipway.stack.new_model import new_model as write

    settings = load_settings()
    kind = next(one for one in TASKS if one == task)
    for path in write(name, kind, settings.fleet_dir, settings.project_dir / "tests" / "fleet"):
        click.echo(f"wrote {os.path.relpath(path)}")
    click.echo("next:")
    for command in next_commands(name, settings.fleet_dir):
        click.echo(f"  {command}")


COMMANDS: tuple[click.Command, ...] = (new_model,)
