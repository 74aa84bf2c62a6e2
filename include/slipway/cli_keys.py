"""Keys of the gateway: who may predict, send labels, look and act."""

from __future__ import annotations

import click

__all__ = ["COMMANDS"]


@click.group()
def keys() -> None:
    """Keys that callers send as x-api-key."""


@keys.command("add")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    default=("predict",),
    show_default=True,
    help="predict, feedback; for the control API read, train, release, traffic, play; may be given again",
)
@click.option("--per-minute", default=60, show_default=True, help="actions of the control API that it may ask for")
@click.option("--days", type=click.IntRange(1, 3650), help="ends by itself after so many days")
def add(name: str, scopes: tuple[str, ...], per_minute: int, days: int | None) -> None:
    """Draw a key and print it, this once: only its digest is kept."""
    from slipway.cli_loop import _person
    from slipway.wiring import wiring

    slipway = wiring()
    click.echo(slipway.add_key(name, scopes, per_minute, days=days, actor=_person()))
    if "predict" in scopes and not slipway.settings.predictions_need_key:
        note = "nobody needs a key to predict yet; SLIPWAY_PREDICTIONS_NEED_KEY=true and `slipway up` change that"
        click.echo(note, err=True)


@keys.command("list")
def list_keys() -> None:
    """Every key with its scopes and what became of it."""
    from slipway.cli_loop import _table
    from slipway.wiring import wiring

    rows = [
        {
            "name": key["name"],
            "scopes": ",".join(key["scopes"]),
            "state": "valid" if key["valid"] else "revoked" if key["revoked_at"] else "expired",
            "made": str(key["created_at"])[:10],
            "by": key["created_by"],
            "ends": str(key["expires_at"] or "")[:10],
        }
        for key in wiring().api_keys()
    ]
    _table(rows, ["name", "scopes", "state", "made", "by", "ends"])


@keys.command("revoke")
@click.argument("name")
def revoke(name: str) -> None:
    """End a key at once."""
    from slipway.wiring import wiring

    wiring().revoke_key(name)
    click.echo(f"{name} is refused from now on")


COMMANDS: list[click.Command] = [keys]
