"""Commands that containers and `make compose-up` use: run one part in the foreground, print missing secrets."""

from __future__ import annotations

from collections.abc import Iterable

import click

__all__ = ["COMMANDS"]


@click.command()
@click.argument("name")
def service(name: str) -> None:
    """Run one part of the stack in the foreground, as its container does; `init` prepares all of them and ends."""
    from slipway.settings import load_settings
    from slipway.stack.service import prepare, run

    if name == "init":
        prepare(load_settings(), click.echo)
    else:
        run(load_settings(), name)


@click.command()
@click.option("--missing-from", "known", type=click.File(), help="print only what this file (- is stdin) does not set")
def secrets(known: Iterable[str] | None) -> None:
    """Generate the stack's secrets: into `.env`, or with --missing-from on the terminal as lines for such a file."""
    from slipway.settings import env_file_path
    from slipway.stack.secrets import SECRETS, ensure_secrets, set_names

    if known is None:
        made = ensure_secrets(env_file_path())
        click.echo(f"generated {len(made)} secrets into {env_file_path()}" if made else "all secrets are there")
        return
    for name in sorted(set(SECRETS) - set_names(known)):
        click.echo(f"{name}={SECRETS[name]()}")


COMMANDS: list[click.Command] = [service, secrets]
