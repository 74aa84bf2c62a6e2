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


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    days, rest = divmod(int(seconds), 86400)
    clock = time.strftime("%H:%M:%S", time.gmtime(rest))
    return f"{days} d {clock}" if days else clock


@click.command()
@click.argument("part", required=False)
def status(part: str | None) -> None:
    """Show every part of the stack, or one; exits 1 when one is down."""
    from slipway.settings import load_settings
    from slipway.stack.monitoring import missing_line
    from slipway.stack.status import stack_parts

    parts = stack_parts(load_settings(), part)
    rows = [("part", "state", "pid", "uptime", "address")]
    rows += [(p.name, p.state, str(p.pid or "-"), _duration(p.uptime_seconds), p.address or "-") for p in parts]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        _say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if part is None and (lacking := missing_line()):
        click.echo(lacking, err=True)
    if not all(p.ok for p in parts):
        raise SystemExit(1)


@click.command()
@click.argument("part", required=False)
@click.option("-f", "--follow", "keep_on", is_flag=True, help="go on and show new lines as they come")
@click.option("-n", "--lines", default=30, show_default=True, help="how many lines of the past")
def logs(part: str | None, keep_on: bool, lines: int) -> None:
    """Show the log of a part, or of all."""
    from slipway.settings import load_settings
    from slipway.stack.logs import follow, last_lines, log_files

    files = log_files(load_settings(), part)
    width = max((len(name) for name in files), default=0)

    def show(name: str, line: str) -> None:
        _say(line if part else f"{name:<{width}} | {line}")

    for name, path in files.items():
        for line in last_lines(path, lines):
            show(name, line)
    if keep_on:
        try:
            for name, line in follow(files):
                show(name, line)
        except KeyboardInterrupt:
            return


@click.command()
def doctor() -> None:
    """Look for what is wrong: versions, ports, disk, permissions, parts that do not answer."""
    from slipway.settings import load_settings
    from slipway.stack.doctor import examine

    problems = 0
    for finding in examine(load_settings()):
        sign = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}[finding.level]
        _say(f"{sign}  {finding.subject}: {finding.text}")
        problems += finding.level == "problem"
    if problems:
        _say(f"{problems} problem{'s' if problems > 1 else ''} found")
        raise SystemExit(1)
    _say("no problem found")


COMMANDS: list[click.Command] = [up, down, status, logs, doctor]
