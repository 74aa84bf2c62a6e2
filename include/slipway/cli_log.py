"""Commands on the prediction log."""

from __future__ import annotations

import json
from typing import Any

import click

__all__ = ["COMMANDS"]


@click.group("log")
def log() -> None:
    """The log of predictions: what was answered, what is in the lake, what is on its way."""


@log.command("status")
@click.option("--json", "as_json", is_flag=True, help="one JSON object per model and line")
def status(as_json: bool) -> None:
    """Per model: answered against logged today (UTC), what waits, what was lost or refused, how many files."""
    from slipway.wiring import wiring

    found = wiring().log_status()
    for one in found:
        click.echo(json.dumps(one) if as_json else _lines(one))
    if not found:
        click.echo("no model has a log yet")


def _lines(one: dict[str, Any]) -> str:
    oldest = one["oldest_seconds"]
    waiting = "nothing waits" if oldest is None else f"the oldest segment is {oldest:.0f} s old"
    missing = f", {one['missing_today']:,} MISSING" if one["missing_today"] else ", none missing"
    rows = [
        ("today", f"{one['answered_today']:,} rows answered, {one['logged_today']:,} in the lake{missing}"),
        ("", f"{one['lost_today']:,} lost, {one['refused_today']:,} refused, {one['labels_today']:,} labels"),
        ("spool", f"{one['pending_rows']:,} rows in {_size(one['pending_bytes'])} pending, {waiting}"),
        ("files", f"{one['files_shipped']:,} as shipped, {one['files_compacted']:,} compacted"),
    ]
    if one["files_replaced"]:
        rows[-1] = ("files", f"{rows[-1][1]}, {one['files_replaced']:,} replaced and not deleted yet")
    if one["damaged_segments"]:
        rows.append(("damage", f"{one['damaged_segments']:,} segments set aside in the spool as *.damaged"))
    return "\n".join([one["model"], *(f"  {name:6}  {text}" for name, text in rows)])


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


COMMANDS = [log]
