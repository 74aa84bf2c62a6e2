"""`slipway score MODEL INPUT`: batch scoring."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from slipway.jobs.score import Scoring

__all__ = ["COMMANDS"]


@click.command()
@click.argument("model")
@click.argument("input_", metavar="INPUT")
@click.option("--version", help="MLflow version; without it the champion")
@click.option("--keep", multiple=True, metavar="COLUMN", help="a column of the input to carry along; may be repeated")
@click.option("--probabilities", is_flag=True, help="a column for each class")
def score(model: str, input_: str, version: str | None, keep: tuple[str, ...], probabilities: bool) -> None:
    """Score a Parquet file or folder of any size into the lake; a run that was killed goes on where it was."""
    from slipway.wiring import wiring

    def progress(at: Scoring) -> None:
        click.echo(f"  {at.seconds:6.1f} s  {at.rows:,} of {at.total_rows:,} rows", err=True)

    done = wiring().score(model, input_, version=version, keep=keep, probabilities=probabilities, progress=progress)
    click.echo(json.dumps(done, indent=2))


COMMANDS: tuple[click.Command, ...] = (score,)
