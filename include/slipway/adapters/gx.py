"""Great Expectations: the suite that a spec implies, run over a frame in memory.

An empty suite succeeds, and on an empty or all-null frame most column expectations pass without having looked at
anything. So every suite holds a row count, and a not-null expectation for each column.

Expectations have Great Expectations' own severities: critical ones stop the data, warnings are reported (a constant
column, many repeated rows, time that runs backwards), and info tells where a window lies far from its reference.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

from slipway.core.encoding import NUMERIC_KINDS
from slipway.errors import DataError
from slipway.ports import Expectation, Validation
from slipway.spec import Feature, ModelSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["GxValidator"]


class GxValidator:
    """The `Validator` port. Frames must have every column, numbers in numeric columns, and no infinities."""

    def validate(
        self,
        spec: ModelSpec,
        frame: pd.DataFrame,
        *,
        min_rows: int,
        target: bool,
        reference: pd.DataFrame | None = None,
    ) -> Validation:
        """Run the suite.

        Args:
            min_rows: of the mandatory row count.
            target: whether the frame has the target column; data to train on is also looked at as a whole.
            reference: what a window is loosely compared with, for information.

        Raises:
            DataError: an expectation could not be evaluated at all.
        """
        import great_expectations as gx
        from great_expectations.data_context.types.base import ProgressBarsConfig

        logging.getLogger("great_expectations").setLevel(logging.WARNING)
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        found = [*_expectations(spec, min_rows, target), *_warnings(spec, frame, target), *_notes(spec, reference)]
        suite = gx.ExpectationSuite(name=spec.name, expectations=found)
        asset = context.data_sources.add_pandas(spec.name).add_dataframe_asset("frame")
        batch = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": frame})
        outcome = batch.validate(suite, result_format="BASIC")
        return Validation(len(frame), tuple(_read(result) for result in outcome.results))


def _expectations(spec: ModelSpec, min_rows: int, target: bool) -> list[Any]:
    import great_expectations.expectations as gxe

    found: list[Any] = [gxe.ExpectTableRowCountToBeBetween(min_value=min_rows)]
    for feature in spec.features:
        found += _feature_expectations(feature, spec.data.max_null_fraction)
    if target:
        found.append(gxe.ExpectColumnValuesToNotBeNull(column=spec.target.name))
        if spec.target.classes is not None:
            found.append(gxe.ExpectColumnValuesToBeInSet(column=spec.target.name, value_set=list(spec.target.classes)))
    return found


def _feature_expectations(feature: Feature, max_null_fraction: float) -> list[Any]:
    import great_expectations.expectations as gxe

    name = feature.name
    found: list[Any] = [
        gxe.ExpectColumnValuesToNotBeNull(column=name, mostly=1 - max_null_fraction if feature.nullable else 1)
    ]
    if feature.minimum is not None or feature.maximum is not None:
        found.append(
            gxe.ExpectColumnValuesToBeBetween(column=name, min_value=feature.minimum, max_value=feature.maximum)
        )
    if feature.categories is not None:
        found.append(gxe.ExpectColumnValuesToBeInSet(column=name, value_set=list(feature.categories)))
    if feature.kind == "text":
        found.append(gxe.ExpectColumnValueLengthsToBeBetween(column=name, max_value=feature.max_length))
    return found


def _warnings(spec: ModelSpec, frame: pd.DataFrame, target: bool) -> list[Any]:
    import great_expectations.expectations as gxe

    if not target:  # live traffic may well be one request over and over
        return []
    found: list[Any] = [
        gxe.ExpectColumnUniqueValueCountToBeBetween(column=name, min_value=2, severity="warning")
        for name in spec.feature_names
    ]
    columns = [*spec.feature_names, spec.target.name]
    if spec.time is not None and spec.time in frame:
        columns.append(spec.time)
        found.append(gxe.ExpectColumnValuesToNotBeNull(column=spec.time))
        found.append(gxe.ExpectColumnValuesToBeIncreasing(column=spec.time, severity="warning"))
    unique = 1 - spec.data.max_duplicate_fraction
    found.append(gxe.ExpectCompoundColumnsToBeUnique(column_list=columns, mostly=unique, severity="warning"))
    return found


def _notes(spec: ModelSpec, reference: pd.DataFrame | None) -> list[Any]:
    """Where the means of a window should lie: within half a deviation of the reference's."""
    import great_expectations.expectations as gxe

    found: list[Any] = []
    for feature in spec.features:
        if reference is None or feature.kind not in NUMERIC_KINDS or feature.name not in reference:
            continue
        column = reference[feature.name].astype(float)
        middle, spread = float(column.mean()), float(column.std())
        if math.isfinite(middle) and math.isfinite(spread):
            low, high = middle - spread / 2, middle + spread / 2
            expected = gxe.ExpectColumnMeanToBeBetween(
                column=feature.name, min_value=low, max_value=high, severity="info"
            )
            found.append(expected)
    return found


def _read(result: Any) -> Expectation:
    plain = result.to_json_dict()
    config, seen = plain["expectation_config"], plain.get("result", {})
    if plain["exception_info"].get("raised_exception"):
        message = str(plain["exception_info"].get("exception_message", "")).splitlines()
        raise DataError(f"{config['type']} could not be evaluated: {message[0] if message else 'no message'}")
    met = bool(plain["success"])
    column = config["kwargs"].get("column")
    return Expectation(config["type"], column, met, "" if met else _detail(seen), config.get("severity", "critical"))


def _detail(seen: dict[str, Any]) -> str:
    if "unexpected_count" not in seen:
        return f"observed {seen.get('observed_value')}"
    examples = [str(value)[:40] for value in seen.get("partial_unexpected_list", ())[:3] if value is not None]
    return f"{seen['unexpected_count']} of {seen.get('element_count')} rows" + (
        f", for example {', '.join(examples)}" if examples else ""
    )
