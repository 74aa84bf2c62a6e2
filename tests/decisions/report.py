"""The figures of a run as a sentence, a table, JSON and a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from decisions.case import Outcome

_HEAD = ("decision", "measured", "bound", "kept", "trials", "seconds")


@dataclass(frozen=True)
class Line:
    """One outcome with the file and case it comes from, and its share of the case's time."""

    group: str
    case: str
    outcome: Outcome
    seconds: float


def figure(outcome: Outcome, value: float) -> str:
    return f"{value:.1%}" if outcome.unit == "share" else f"{value:.3g} {outcome.unit}".strip()


def may_be_chance(outcome: Outcome) -> bool:
    """Whether a share at its bound would miss it like this in at least 1 % of runs with as few trials."""
    from scipy.stats import binom

    if outcome.unit != "share":
        return False
    hits = round(outcome.value * outcome.trials)
    if outcome.at_most:
        return bool(binom.sf(hits - 1, outcome.trials, outcome.bound) >= 0.01)
    return bool(binom.cdf(hits, outcome.trials, outcome.bound) >= 0.01)


def bound(outcome: Outcome) -> str:
    return f"{'≤' if outcome.at_most else '≥'} {figure(outcome, outcome.bound)}"


def word(outcome: Outcome, few: bool) -> str:
    """Whether the bound is kept; with few trials a miss may be chance."""
    return "yes" if outcome.kept else "chance?" if few and may_be_chance(outcome) else "NO"


def sentence(outcome: Outcome, few: bool = False) -> str:
    kept = f"kept: {word(outcome, few)}"
    beside = f"; {peer}" if (peer := outcome.notes.get("beside")) else ""
    value = figure(outcome, outcome.value)
    return f"{outcome.name}: {value} ({bound(outcome)}, {outcome.trials} trials), {kept}{beside}"


def table(lines: Sequence[Line], few: bool = False) -> str:
    """One line per outcome, by file."""
    rows = [_HEAD]
    for line in lines:
        one = line.outcome
        kept = word(one, few)
        name = f"{line.group}: {one.name}"
        rows.append((name, figure(one, one.value), bound(one), kept, str(one.trials), f"{line.seconds:.1f}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    shown = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    beside = [f"{line.outcome.name}: {peer}" for line in lines if (peer := line.outcome.notes.get("beside"))]
    return "\n".join([*shown, *(["", "beside it, on the same rows:", *beside] if beside else [])])


def write(about: Mapping[str, Any], lines: Sequence[Line], path: Path) -> None:
    """Everything as JSON, replaced at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = [
        {
            "group": line.group,
            "case": line.case,
            "seconds": round(line.seconds, 2),
            **asdict(line.outcome),
            "kept": line.outcome.kept,
        }
        for line in lines
    ]
    aside = path.with_suffix(".tmp")
    aside.write_text(json.dumps({**about, "outcomes": plain}, indent=1))
    aside.replace(path)


def draw(lines: Sequence[Line], path: Path) -> None:
    """Shares as bars, each with a mark at its bound; outcomes of other units are only in the table."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shares = [line for line in lines if line.outcome.unit == "share"][::-1]
    if not shares:
        return
    height = 1.2 + 0.34 * len(shares)
    picture, axis = pyplot.subplots(figsize=(10, height), layout="constrained")
    for position, line in enumerate(shares):
        one = line.outcome
        axis.barh(position, one.value, height=0.6, color="#1f6feb" if one.kept else "#cf222e")
        axis.plot([one.bound, one.bound], [position - 0.4, position + 0.4], color="#24292f", linewidth=2)
        axis.text(1.02, position, f"{figure(one, one.value)}  ({bound(one)})", va="center", fontsize=9)
    axis.set_yticks(range(len(shares)), [f"{line.group}: {line.outcome.name}" for line in shares], fontsize=9)
    axis.set_xlim(0, 1)
    axis.set_ylim(-0.7, len(shares) - 0.3)
    axis.set_xlabel("share of trials; the mark is the bound")
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(picture)
