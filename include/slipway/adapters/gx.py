"""Great Expectations: the suite that a spec implies, run over a frame in memory.

An empty suite succeeds, and on an empty or all-null frame most column expectations pass without having looked at
anything. So every suite holds a row count, and a not-null expectation for each column.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from slipway.errors import DataError
from slipway.ports import Expectation, Validation
from slipway.spec import Feature, ModelSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["GxValidator"]


class GxValidator:
    """The `Validator` port. Frames must have every column, numbers in numeric columns, and no infinities."""

    def validate(self, spec: ModelSpec, frame: pd.DataFrame, *, min_rows: int, target: bool) -> Validation:
        """Run the suite.

        Args:
            min_rows: of the mandatory row count.
            target: whether the frame has the target column.

        Raises:
            DataError: an expectation could not be evaluated at all.
        """
        import great_expectations as gx
        from great_expectations.data_context.types.base import ProgressBarsConfig

        logging.getLogger("great_expectations").setLevel(logging.WARNING)
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        suite = gx.ExpectationSuite(name=spec.name, expectations=_expectations(spec, min_rows, target))
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


def _read(result: Any) -> Expectation:
    plain = result.to_json_dict()
    config, seen = plain["expectation_config"], plain.get("result", {})
    if plain["exception_info"].get("raised_exception"):
        message = str(plain["exception_info"].get("exception_message", "")).splitlines()
        raise DataError(f"{config['type']} could not be evaluated: {message[0] if message else 'no message'}")
    met = bool(plain["success"])
    return Expectation(config["type"], config["kwargs"].get("column"), met, "" if met else _detail(seen))


def _detail(seen: dict[str, Any]) -> str:
    if "unexpected_count" not in seen:
        return f"observed {seen.get('observed_value')}"
    examples = [str(value)[:40] for value in seen.get("partial_unexpected_list", ())[:3] if value is not None]
    return f"{seen['unexpected_count']} of {seen.get('element_count')} rows" + (
        f", for example {', '.join(examples)}" if examples else ""
    )
