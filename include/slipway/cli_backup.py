"""Backups: take one, list them, restore one.

In containers `make compose-backup` and `make compose-restore` run the same commands in a container that has all
volumes, and do what has to be done from outside of it: give it the `.env` file, stop and start the stack.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TextIO

import click

if TYPE_CHECKING:
    from slipway.settings import Settings

__all__ = ["COMMANDS"]


@click.command()
@click.option("--keep", type=click.IntRange(1), help="afterwards delete all but so many of the newest ones")
@click.option("--list", "only_list", is_flag=True, help="list the backups there are")
@click.option("--env", type=click.File(), help="take settings and secrets from here (- is stdin), not from .env")
def backup(keep: int | None, only_list: bool, env: TextIO | None) -> None:
    """Databases, artefacts, bentos and the prediction log into a folder; the stack may run meanwhile."""
    from slipway.adapters.backup_folder import BackupFolder
    from slipway.settings import load_settings
    from slipway.stack.backup import backup_root, take_backup

    settings = load_settings()
    if only_list:
        for one in BackupFolder(backup_root(settings)).all():
            live = ", ".join(f"{model} {version}" for model, version in one.manifest["live"].items() if version)
            click.echo(f"{one.name}  {one.manifest['bytes'] / 1e6:10.1f} MB  live: {live or 'nothing'}")
        return
    began = time.monotonic()
    made = take_backup(settings, click.echo, keep=keep, env=env.read() if env else None)
    size = f"{made.manifest['files']} files, {made.manifest['bytes'] / 1e6:.1f} MB"
    click.echo(f"{made.path}: {size}, after {time.monotonic() - began:.1f} s; it holds secrets, keep it private")


@click.command()
@click.argument("name", required=False)
@click.option("--check", is_flag=True, help="only read the backup and compare every file with its digest")
@click.option("--env", "only_env", is_flag=True, help="only print the settings and secrets that the backup holds")
@click.option(
    "--await", "only_await", is_flag=True, help="only wait until the restored stack serves what its tables say"
)
@click.option("--no-start", is_flag=True, help="leave the stack down afterwards")
def restore(name: str | None, check: bool, only_env: bool, only_await: bool, no_start: bool) -> None:
    """Put a backup (a name or a folder; by default the newest) in the place of what is there, and start the stack.

    The stack must be down. What was there is moved into before-restore/ below the home.
    """
    from slipway.adapters.backup_folder import BackupFolder
    from slipway.settings import env_file_path, load_settings
    from slipway.stack.backup import backup_root
    from slipway.stack.restore import kept_env, place_env, restore_stack
    from slipway.stack.secrets import ensure_secrets
    from slipway.stack.start import start_stack

    if only_await:
        _await_truth(load_settings())
        return
    began = time.monotonic()
    chosen = BackupFolder(backup_root(load_settings())).find(name)
    if check:
        chosen.verify()
        click.echo(f"{chosen.path}: {chosen.manifest['files']} files are whole")
        return
    if only_env:
        click.echo(kept_env(chosen), nl=False)
        return
    contained = load_settings().runtime == "docker"  # whose `.env` and whose start are for those outside
    if not contained:
        if place_env(chosen):
            click.echo(f"settings and secrets of the backup are now {env_file_path()}")
        ensure_secrets(env_file_path())
        load_settings.cache_clear()
    settings = load_settings()
    aside = restore_stack(settings, chosen, click.echo)
    if aside is not None:
        click.echo(f"what was there before is in {aside}; delete it when you no longer want it")
    if not (no_start or contained):
        start_stack(settings, click.echo)
        _await_truth(settings)
    click.echo(f"restored {chosen.name} after {time.monotonic() - began:.1f} s")


def _await_truth(settings: Settings) -> None:
    from slipway.stack.restore import await_truth

    for model, version in await_truth(settings).items():
        click.echo(f"{model}: version {version or 'none'} is live")


COMMANDS: list[click.Command] = [backup, restore]
