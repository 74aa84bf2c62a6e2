"""The page "champion beside challenger": one self-contained HTML file per judgement of the gate, without scripts."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from slipway.core.gate import GateResult
from slipway.core.intervals import Interval
from slipway.core.metrics import GREATER_IS_BETTER
from slipway.core.verdict import Verdict
from slipway.spec import ModelSpec

__all__ = ["gate_page"]

_WIDTH, _HEIGHT, _BOTTOM = 720.0, 226.0, 170.0
_STYLE = """
:root { color-scheme: light dark; --text: #1f2328; --back: #fff; --line: #d1d9e0; --quiet: #59636e;
  --bars: #79a8e0; --pass: #1a7f37; --fail: #cf222e; --mark: #8250df }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --back: #0d1117; --line: #3d444d; --quiet: #9198a1;
  --bars: #316dca; --pass: #3fb950; --fail: #f85149; --mark: #ab7df8 } }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem;
  color: var(--text); background: var(--back) }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .35rem .7rem; border-bottom: 1px solid var(--line); vertical-align: top }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.pass { color: var(--pass) } .fail { color: var(--fail) } .quiet { color: var(--quiet) }
.verdict { font-size: 1.2rem; font-weight: 600 }
.wide { overflow-x: auto }
svg { width: 100%; height: auto; max-width: 720px } svg text { fill: var(--text); font: 13px system-ui, sans-serif }
svg .bar { fill: var(--bars) } svg .axis { stroke: var(--line) } svg .zero { stroke: var(--text) }
svg .bound { stroke: var(--mark); stroke-width: 2 } svg .needed { stroke: var(--fail); stroke-dasharray: 5 4 }
""".strip()


def gate_page(
    spec: ModelSpec,
    result: GateResult,
    intervals: Mapping[str, Mapping[str, Interval]],
    *,
    champion: str | None,
    candidate: str,
    run_id: str,
    snapshot: str,
    at: datetime,
    older_rows: Mapping[str, float] | None = None,
) -> str:
    """The judgement for people: both versions' metrics with intervals, the rule and the verdict in words, the slices.

    Args:
        intervals: by metric, of `champion` (where there is one) and `challenger`.
        champion: its version; None for a first version.
        candidate, run_id: of the challenger.
        older_rows: `rows` of the champion's data set that neither was trained on, and the metric of both on them.
    """
    title = f"{spec.name}: {f'champion {champion} beside' if champion else 'first'} challenger {candidate}"
    passed = result.verdict is Verdict.PASS
    facts = {
        "Judged": at.isoformat(timespec="seconds"),
        "Reason of the training": result.reason,
        "Held-out rows": f"{result.rows:,}{_rows_detail(result)}",
        "Data": snapshot,
        "MLflow run": run_id,
    }
    parts = [
        f"<h1>{_text(title)}</h1>",
        f"<p class='quiet'>{_text(spec.description)}</p>" if spec.description else "",
        f"<p class='verdict {'pass' if passed else 'fail'}'>{'Passed' if passed else 'Refused'}</p>",
        f"<ul>{''.join(f'<li>{_text(reason)}</li>' for reason in result.reasons)}</ul>",
        f"<h2>The rule</h2><p>{_text(_rule(spec, result))}</p>",
        "<h2>Metrics</h2>" + _metrics(spec, intervals, champion),
        _older(spec, older_rows),
        _picture(spec, result),
        _slices(spec, result.slices),
        "<h2>Where it comes from</h2><div class='wide'><table>"
        + "".join(f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in facts.items())
        + "</table></div>",
    ]
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{_text(title)}</title><style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )


def _text(value: object) -> str:
    return html.escape(str(value))


def _number(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.4g}"


def _rows_detail(result: GateResult) -> str:
    if result.champion is None:
        return ""
    blocks = f", resampled in blocks of {result.block_rows}" if result.block_rows > 1 else ""
    return f", {result.differing_rows:,} of them answered differently well{blocks}"


def _rule(spec: ModelSpec, result: GateResult) -> str:
    metric = f"{spec.metric.name} ({'more' if GREATER_IS_BETTER[spec.metric.name] else 'less'} is better)"
    if result.rule == "floor":
        return f"A first version has to reach the floor of the spec: {metric}, {spec.metric.floor:g}."
    how = (
        f"Both versions answered the same held-out rows; {result.resamples:,} resamples of these rows bound the "
        f"improvement of {metric} from below, one-sided, at {result.confidence or 0:.0%}."
    )
    if result.rule == "superiority":
        rule = f"A training for the reason {result.reason} has to be better: the bound has to lie above 0."
    else:
        rule = (
            f"It must not be worse: the bound has to lie above minus the margin ({_number(result.margin)}), and the "
            "improvement itself must not be negative."
        )
    healing = "" if result.baseline is None else (
        f" It also has to heal: to come back to within {spec.retrain.loss_band:.0%} of the {_number(result.baseline)} "
        "that the champion reached at its own gate; if it contradicts older rows, by a bound of the same confidence. "
        f"It leaves a loss of {result.remaining_loss or 0:.1%}, at most {result.remaining_loss_bound or 0:.1%}."
    )  # fmt: skip
    slices = (
        f" No slice of at least {spec.gate.slice_min_rows} rows may get more than {spec.gate.slice_max_loss:.0%} worse."
    )
    return f"{how} {rule}{healing}{slices if spec.gate.slices else ''}"


def _metrics(spec: ModelSpec, intervals: Mapping[str, Mapping[str, Interval]], champion: str | None) -> str:
    names = ["champion", "challenger"] if champion else ["challenger"]
    head = "".join(f"<th class='number'>{_text(name)}</th>" for name in names)
    lines = []
    for metric, found in intervals.items():
        cells = "".join(f"<td class='number'>{_interval(found.get(name))}</td>" for name in names)
        decides = " <span class='quiet'>(decides)</span>" if metric == spec.metric.name else ""
        lines.append(f"<tr><td>{_text(metric)}{decides}</td>{cells}</tr>")
    return (
        f"<div class='wide'><table><thead><tr><th>Metric</th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
        "</div><p class='quiet'>In brackets: two-sided 95 % intervals of each version by itself. They may overlap "
        "though one version is better on the same rows.</p>"
    )


def _older(spec: ModelSpec, older: Mapping[str, float] | None) -> str:
    if older is None:
        return ""
    values = ", ".join(f"{name} {_number(older.get(name))}" for name in ("champion", "challenger"))
    return (
        f"<p>{spec.metric.name} on {older['rows']:,.0f} rows of the champion's own data that neither was trained on: "
        f"{values}; {'the challenger contradicts them' if older.get('worse') else 'it keeps up with them'}. "
        "<span class='quiet'>A challenger that is worse there learnt what contradicts the old data: a change in the "
        "world, or wrong labels.</span></p>"
    )


def _interval(found: Interval | None) -> str:
    if found is None:
        return "–"
    return f"{_number(found[0])} <span class='quiet'>[{_number(found[1])}, {_number(found[2])}]</span>"


def _slices(spec: ModelSpec, slices: Sequence[Mapping[str, Any]]) -> str:
    if not slices:
        return ""
    lines = "".join(
        f"<tr><td>{_text(one['slice'])}</td><td class='number'>{one['rows']:,}</td>"
        f"<td class='number'>{_number(one['champion'])}</td><td class='number'>{_number(one['challenger'])}</td>"
        f"<td class='number'>{_number(one['p_value'])}</td>"
        f"<td class='{'pass' if one['verdict'] == 'pass' else 'fail'}'>{_text(one['verdict'])}</td></tr>"
        for one in slices
    )
    head = "".join(f"<th class='number'>{name}</th>" for name in ("Rows", "champion", "challenger", "p"))
    return (
        f"<h2>Slices</h2><div class='wide'><table><thead><tr><th>Slice</th>{head}<th>Guard</th></tr></thead>"
        f"<tbody>{lines}</tbody></table></div><p class='quiet'>p: how likely the slice is no more than "
        f"{spec.gate.slice_max_loss:.0%} worse; over all slices at once by Holm.</p>"
    )


def _picture(spec: ModelSpec, result: GateResult) -> str:
    """The improvement over all resamples, with what was needed and what is bounded."""
    edges, counts = result.histogram
    if not counts or result.lower_bound is None or not math.isfinite(result.lower_bound):
        return ""
    needed = 0.0 if result.rule == "superiority" else -(result.margin or 0.0)
    low, high = min(edges[0], needed, result.lower_bound), max(edges[-1], 0.0)
    room = 0.05 * (high - low) or 1.0
    low, high = low - room, high + room

    def x(value: float) -> float:
        return (value - low) / (high - low) * _WIDTH

    tallest = max(counts)
    bars = "".join(
        f"<rect class='bar' x='{x(left):.1f}' y='{_BOTTOM - 140 * count / tallest:.1f}' "
        f"width='{max(x(right) - x(left) - 0.5, 0.5):.1f}' height='{140 * count / tallest:.1f}'/>"
        for left, right, count in zip(edges, edges[1:], counts, strict=False)
        if count
    )
    marks = [(0.0, "zero", "0", 186), (result.lower_bound, "bound", f"bound {_number(result.lower_bound)}", 202)]
    if needed:
        marks.append((needed, "needed", f"needed {_number(needed)}", 218))
    lines = "".join(
        f"<line class='{kind}' x1='{x(value):.1f}' x2='{x(value):.1f}' y1='20' y2='{_BOTTOM}'/>"
        f"<text x='{min(max(x(value), 50), _WIDTH - 50):.1f}' y='{at}' text-anchor='middle'>{_text(label)}</text>"
        for value, kind, label, at in marks
    )
    said = (
        f"Improvement of {spec.metric.name} in {result.resamples:,} resamples: {_number(result.improvement)} as "
        f"measured, lower bound {_number(result.lower_bound)}."
    )
    return (
        f"<h2>Improvement over the resamples</h2><svg viewBox='0 0 {_WIDTH:.0f} {_HEIGHT:.0f}' role='img' "
        f"aria-label='{_text(said)}'>{bars}<line class='axis' x1='0' x2='{_WIDTH:.0f}' y1='{_BOTTOM}' y2='{_BOTTOM}'/>"
        f"{lines}</svg><p class='quiet'>{_text(said)} To the right of 0 the challenger is better.</p>"
    )
