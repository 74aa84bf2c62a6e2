"""Jinja2 with the filters that the templates share. Every value is escaped unless it is markup made here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from slipway.wiring.cockpit import report_parts
from slipway_control import pictures
from slipway_control.assets import fingerprint

__all__ = ["render", "templates"]

_HERE = Path(__file__).parent
_TIME = Markup('<time datetime="{iso}" data-style="{style}" title="{utc}">{utc}</time>')


@lru_cache(maxsize=1)
def templates() -> Environment:
    """The environment of this process."""
    loader = FileSystemLoader(_HERE / "templates")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {
        "time": _time,
        "ago": _ago,
        "age": _age,
        "pct": _pct,
        "num": _num,
        "short": _short,
        "duration": _duration,
    }
    made.globals |= {"pictures": pictures, "assets": fingerprint(_HERE / "static"), "report_link": _report_link}
    return made


def render(name: str, context: Mapping[str, Any]) -> str:
    """A page, or with `part` in the context its `<main>` alone."""
    return templates().get_template(name).render(context)


def _as_time(value: str | datetime) -> datetime:
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)


def _stamp(value: str | datetime | None, style: str) -> Markup:
    if value is None:
        return Markup('<span class="muted">never</span>')
    at = _as_time(value)
    return _TIME.format(iso=at.isoformat(), style=style, utc=f"{at:%Y-%m-%d %H:%M:%S} UTC")


def _time(value: str | datetime | None) -> Markup:
    """A time; the page shows it in local time with UTC in its title."""
    return _stamp(value, "time")


def _ago(value: str | datetime | None) -> Markup:
    """How long ago a time is, kept right by the page."""
    return _stamp(value, "ago")


def _age(value: str | datetime | None) -> Markup:
    """How long something has lasted since a time, kept right by the page."""
    return _stamp(value, "age")


def _pct(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}%}"


def _num(value: float | int | None, digits: int = 3) -> str:
    """A number as people read it: thousands apart, no more digits than carry meaning."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.{digits}f}" if abs(value) >= 0.001 else f"{value:.2g}"


def _short(value: str | None, length: int = 12) -> str:
    return "–" if not value else value[:length]


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:g} {unit}" if (seconds / size).is_integer() else f"{seconds / size:.1f} {unit}"
    return f"{seconds:g} s"


def _report_link(base: str, url: str) -> str | None:
    """The cockpit's page of a report whose place a decision names."""
    parts = report_parts(url)
    return f"{base}/report/{'/'.join(parts)}" if parts else None
