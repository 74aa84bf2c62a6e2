"""Housekeeping by hand; the DAG `slipway_tidy` does the same every night."""

from __future__ import annotations

import json
from typing import Any

import click

__all__ = ["COMMANDS"]


@click.command()
@click.option("--dry-run", is_flag=True, help="only list what would go, and which versions stay and why")
@click.option("--json", "as_json", is_flag=True, help="the whole outcome as one JSON object")
def tidy(dry_run: bool, as_json: bool) -> None:
    """Clear away what nothing live, nothing kept for a rollback and no recent decision reaches."""
    from slipway.wiring import wiring

    done = wiring().housekeep(dry_run=dry_run)
    if as_json:
        click.echo(json.dumps(done))
    else:
        _show(done)
    if done["problems"]:
        raise SystemExit(1)


def _show(done: dict[str, Any]) -> None:
    verb = "would remove" if done["dry_run"] else "removed"
    for item in done["items"]:
        size = f"  {item['bytes'] / 1e6:.1f} MB" if item["bytes"] else ""
        click.echo(f"{verb}  {item['model']}  {item['kind']:8}  {item['name']}{size}")
    for model, versions in done["kept"].items():
        for version, why in versions.items():
            click.echo(f"keeps  {model}  version   {version}: {why}")
    for problem in done["problems"]:
        click.echo(f"PROBLEM  {problem}", err=True)
    click.echo(f"{len(done['items'])} items, {done['bytes'] / 1e6:.1f} MB {'would go' if done['dry_run'] else 'gone'}")


COMMANDS: list[click.Command] = [tidy]
