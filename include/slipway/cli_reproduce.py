"""`slipway reproduce`: whether a registered version can be made once more, bit for bit."""

from __future__ import annotations

import json
import sys

import click

__all__ = ["COMMANDS"]


@click.command()
@click.argument("model")
@click.argument("version")
@click.option("--json", "as_json", is_flag=True, help="the whole outcome as JSON")
def reproduce(model: str, version: str, as_json: bool) -> None:
    """Train a version's candidate again from its snapshot and compare the model file and its answers.

    Exits 0 only when both are identical; otherwise says what differs from the version's record.
    """
    from slipway.wiring import wiring

    outcome = wiring().reproduce(model, version)
    if as_json:
        click.echo(json.dumps(outcome))
    else:
        click.echo(f"{model} version {outcome['version']}: {'identical' if outcome['identical'] else 'differs'}")
        click.echo(f"  candidate {outcome['candidate']}, snapshot {outcome['snapshot'][:12]}")
        click.echo(f"  model file {outcome['sha256'][:12]} now, {outcome['recorded_sha256'][:12]} recorded")
        click.echo(
            f"  {outcome['differing_rows']} of {outcome['rows']} held-out rows answered differently, "
            f"largest difference {outcome['largest_difference']:.3g}"
        )
        for reason in outcome["reasons"]:
            click.echo(f"  {reason}")
    if not outcome["identical"]:
        sys.exit(1)


COMMANDS: tuple[click.Command, ...] = (reproduce,)
