"""Small pictures as SVG, made on the server: they need no script and cost nothing to update."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

__all__ = ["bars", "meter", "sparkline"]


def sparkline(values: Sequence[float], label: str, tone: str = "plain", width: int = 120, height: int = 26) -> Markup:
    """A line over equal steps of time with the area below it; `label` says the same in words."""
    top = max([*values, 0.0])
    step = width / max(1, len(values) - 1)
    scale = (height - 3) / top if top else 0.0
    points = " ".join(f"{i * step:.1f},{height - 1.5 - value * scale:.1f}" for i, value in enumerate(values))
    area = f"0,{height} {points} {width},{height}"
    return Markup(
        '<svg class="spark spark-{tone}" viewBox="0 0 {width} {height}" role="img" aria-label="{label}" '
        'preserveAspectRatio="none"><polygon points="{area}"/><polyline points="{points}"/></svg>'
    ).format(tone=tone, width=width, height=height, label=label, area=area, points=points)


def bars(values: Sequence[float], label: str, tone: str = "bad", width: int = 120, height: int = 26) -> Markup:
    """Bars over equal steps of time, for what is rare and counts singly."""
    top = max([*values, 1.0])
    step = width / max(1, len(values))
    rects = Markup("").join(
        Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
            i * step, height - max(2.0, value / top * (height - 2)), step * 0.8, max(2.0, value / top * (height - 2))
        )
        for i, value in enumerate(values)
        if value
    )
    return Markup(
        '<svg class="spark spark-{tone}" viewBox="0 0 {width} {height}" role="img" aria-label="{label}" '
        'preserveAspectRatio="none"><line x1="0" x2="{width}" y1="{base}" y2="{base}"/>{rects}</svg>'
    ).format(tone=tone, width=width, height=height, label=label, base=height - 0.5, rects=rects)


def meter(value: float, limit: float, label: str, tone: str) -> Markup:
    """A bar up to `value` with a mark at `limit`; the scale ends at twice the limit or at the value."""
    top = max(value, 2 * limit, 1e-12)
    return Markup(
        '<svg class="meter meter-{tone}" viewBox="0 0 100 10" role="img" aria-label="{label}" '
        'preserveAspectRatio="none"><rect class="rail" width="100" height="10"/>'
        '<rect class="fill" width="{fill:.1f}" height="10"/>'
        '<line x1="{mark:.1f}" x2="{mark:.1f}" y1="0" y2="10"/></svg>'
    ).format(tone=tone, label=label, fill=100 * value / top, mark=100 * limit / top)
