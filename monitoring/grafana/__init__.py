"""The dashboards, as Python. `make dashboards` writes them to `dashboards/`, from where Grafana loads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

__all__ = ["FOLDER", "texts"]

FOLDER = Path(__file__).parent / "dashboards"


def texts() -> Iterator[tuple[str, str]]:
    """The name and the content of every dashboard's file."""
    from grafana import airflow, decisions, rollouts, serving, system

    for module in (serving, rollouts, decisions, airflow, system):
        board = module.board()
        yield f"{board.uid}.json", board.text()
