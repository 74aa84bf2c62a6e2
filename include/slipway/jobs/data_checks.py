"""Data checks of training sets and of windows of traffic: first the shape, then Great Expectations.

Great Expectations and Evidently crash or mislead on missing columns, strings among numbers and infinities, so those
are looked for here, and a frame that fails goes no further.
"""

from __future__ import annotations

import html
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from slipway.core.encoding import NUMERIC_KINDS
from slipway.jobs.holdout import TIME_COLUMN
from slipway.ports import Expectation, Severity, Validation, Validator
from slipway.spec import Feature, ModelSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["check_frame", "report_page"]

_TIERS: dict[Severity, str] = {
    "critical": "Critical: these stop the data",
    "warning": "Warnings: these are reported",
    "info": "For information: far from the reference",
}


def check_frame(
    spec: ModelSpec,
    frame: pd.DataFrame,
    validator: Validator,
    *,
    min_rows: int,
    target: bool,
    reference: pd.DataFrame | None = None,
) -> Validation:
    """All expectations about a frame; those of the suite are missing where the shape already failed.

    Args:
        min_rows: fewer fail the frame.
        target: whether the frame must have the target column too; it is then data to train on.
        reference: what a window is loosely compared with, for information.
    """
    shape = _shape(spec, frame, target)
    if any(not one.met and one.severity == "critical" for one in shape):
        return Validation(len(frame), tuple(shape))
    suite = validator.validate(spec, frame, min_rows=min_rows, target=target, reference=reference)
    found = (replace(one, detail=_plain(one.detail)) for one in (*shape, *suite.expectations))
    return Validation(len(frame), tuple(found))


def _plain(detail: str) -> str:
    """Details quote data: a quoted text may hold line ends, and characters that no database or page can keep."""
    return "".join(character if character.isprintable() else " " for character in detail)


def _shape(spec: ModelSpec, frame: pd.DataFrame, target: bool) -> list[Expectation]:
    columns = [*spec.feature_names, *([spec.target.name] if target else [])]
    found = [Expectation("column_exists", name, name in frame.columns) for name in columns]
    known = {*columns, spec.time, TIME_COLUMN}
    if target and (extra := [str(name) for name in frame.columns if name not in known]):
        found.append(Expectation("no_other_columns", None, False, ", ".join(extra), "warning"))
    for feature in spec.features:
        if feature.name in frame.columns and feature.kind in NUMERIC_KINDS:
            found += _numeric(feature, frame[feature.name])
    if target and spec.target.classes is None and spec.target.name in frame.columns:
        found += _numeric(Feature(name=spec.target.name), frame[spec.target.name])
    return found


def _numeric(feature: Feature, column: pd.Series) -> list[Expectation]:
    import pandas as pd

    present = column.dropna()
    plain = present[[not isinstance(value, str | bool | np.bool_) for value in present]]
    numbers = pd.to_numeric(plain, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    bad = len(present) - int((~np.isnan(numbers)).sum())
    infinite = int(np.isinf(numbers).sum())
    found = [
        Expectation("values_are_numbers", feature.name, bad == 0, f"{bad} are not" if bad else ""),
        Expectation("values_are_finite", feature.name, infinite == 0, f"{infinite} are infinite" if infinite else ""),
    ]
    if feature.kind == "integer":
        broken = int((numbers != np.round(numbers)).sum())
        found.append(Expectation("values_are_whole", feature.name, broken == 0, f"{broken} are not" if broken else ""))
    return found


def _tier(validation: Validation, severity: Severity, heading: str) -> str:
    found = [one for one in validation.expectations if one.severity == severity]
    if not found:
        return ""
    rows = "".join(
        f"<tr class='{'met' if one.met else 'unmet'} {severity}'><td>{'met' if one.met else 'not met'}</td>"
        f"<td>{html.escape(one.column or 'table')}</td><td>{html.escape(one.name)}</td>"
        f"<td>{html.escape(one.detail)}</td></tr>"
        for one in sorted(found, key=lambda one: one.met)
    )
    return (
        f"<h2>{heading}</h2><table><thead><tr><th>Outcome<th>Column<th>Expectation<th>Seen instead</tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def report_page(spec: ModelSpec, validation: Validation, title: str) -> str:
    """One self-contained HTML page; Great Expectations' own needs a dozen scripts from the network."""
    tiers = "".join(_tier(validation, severity, title_) for severity, title_ in _TIERS.items())
    verdict = "passed" if validation.passed else "quarantined"
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        f"<title>{html.escape(title)}</title><style>:root{{color-scheme:light dark}}"
        "body{font:16px/1.5 system-ui;margin:2rem auto;max-width:60rem;padding:0 1rem}"
        "table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .6rem;"
        "border-bottom:1px solid #8884}.unmet td:first-child{font-weight:bold}"
        ".unmet.critical td:first-child{color:#c22}.unmet.warning td:first-child{color:#b60}</style>"
        f"<h1>{html.escape(title)}</h1><p>{html.escape(spec.description)}</p>"
        f"<p><strong>{verdict}</strong>: {validation.rows} rows, {len(validation.expectations)} expectations, "
        f"{len(validation.failures)} critical ones and {len(validation.warnings)} warnings not met.</p>"
        f"{tiers}</html>"
    )
