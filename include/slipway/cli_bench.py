"""The command that measures serving; the benchmark itself lies with the tests, in `tests/bench`."""

from __future__ import annotations

import click

__all__ = ["COMMANDS"]


@click.command()
@click.option("--quick", is_flag=True, help="Three minutes instead of fifteen; figures to look at, not to quote.")
@click.option("--only", metavar="NAMES", help="Only these servers beside Slipway, separated by commas.")
@click.option("--strict", is_flag=True, help="Exit with 1 when a demand is not met.")
def bench(quick: bool, only: str | None, strict: bool) -> None:
    """Measure Slipway's serving beside other servers on this machine."""
    import os
    import shutil

    from slipway.errors import StackError
    from slipway.settings import PROJECT_DIR

    if shutil.which("make") is None or not (PROJECT_DIR / "Makefile").is_file():
        raise StackError("the benchmark needs make and a checkout of the project")
    chosen = {"BENCH_QUICK": "1" if quick else "", "BENCH_ONLY": only or "", "BENCH_STRICT": "1" if strict else ""}
    # make builds the other servers' environments first.
    command = ["make", "--no-print-directory", "-C", str(PROJECT_DIR), "bench"]
    os.execvpe("make", command, {**os.environ, **chosen})  # noqa: S606


COMMANDS: list[click.Command] = [bench]
