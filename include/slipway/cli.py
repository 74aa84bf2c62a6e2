"""The command line. `slipway --help` lists the commands; each has a `--help` of its own.

Modules of commands are imported when a command is asked for and import their libraries inside the
commands, so that help and completion answer at once.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import os
import sys

import click

from slipway import __version__
from slipway.errors import SlipwayError

__all__ = ["main", "root"]

# Each defines COMMANDS, a list of click commands.
_MODULES = (
    "slipway.cli_stack",
    "slipway.cli_service",
    "slipway.cli_loop",
    "slipway.cli_score",
    "slipway.cli_reproduce",
    "slipway.cli_new",
    "slipway.cli_log",
    "slipway.cli_tidy",
    "slipway.cli_agent",
    "slipway.cli_keys",
    "slipway.cli_backup",
    "slipway.cli_bench",
)


class _Commands(click.Group):
    """A group whose commands live in the modules above, in their order."""

    def _found(self) -> dict[str, click.Command]:
        if not self.commands:
            for name in _MODULES:
                if importlib.util.find_spec(name) is not None:
                    for command in importlib.import_module(name).COMMANDS:
                        self.add_command(command)
        return dict(self.commands)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._found())

    def invoke(self, ctx: click.Context) -> object:
        if ctx.params.get("stack") != "compose":
            return super().invoke(ctx)
        from slipway.settings import PROJECT_DIR
        from slipway.stack.compose import run

        ctx.exit(run([*ctx._protected_args, *ctx.args], PROJECT_DIR))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self._found().get(cmd_name)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(version)s")
@click.option(
    "--stack",
    type=click.Choice(["embedded", "compose"]),
    default="embedded",
    show_default=True,
    help="which stack of this machine the command is for",
)
def root(stack: str) -> None:
    """Slipway: delivers machine-learning models, from data to a prediction and back."""


def main() -> None:
    """Runs a command; an expected error is one line on stderr and code 1."""
    # What a command imports stays; looking for garbage in it every 700 objects takes a tenth of the command's start.
    gc.set_threshold(50_000)
    try:
        root(standalone_mode=True)
    except SlipwayError as error:
        click.echo(f"slipway: {' '.join(str(error).split())}", err=True)
        sys.exit(1)
    except BrokenPipeError:  # `slipway logs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
