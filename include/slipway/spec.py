"""What a fleet file declares: one `ModelSpec` named `MODEL` per file in `include/fleet/`.

A spec is frozen, rejects unknown keys and names the field in its errors. Fleet files are imported by
the Airflow DAG processor, so neither this module nor a fleet file imports an ML library at module top:
loaders and candidates are functions that import what they need when called.
"""

from __future__ import annotations

import importlib.util
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from slipway.errors import NotFoundError, SpecError
from slipway.policy import ChecksPolicy, RolloutPolicy, Step, all_at_once, canary, linear

__all__ = [
    "Candidate",
    "ChecksPolicy",
    "DataPolicy",
    "DriftPolicy",
    "Feature",
    "GatePolicy",
    "LogPolicy",
    "Metric",
    "ModelSpec",
    "RetrainPolicy",
    "RolloutPolicy",
    "Step",
    "Target",
    "all_at_once",
    "canary",
    "fleet_names",
    "linear",
    "load_fleet",
    "load_model",
]

_NAME = re.compile(r"^[a-z][a-z0-9_]{0,62}$")
# Columns that the prediction log adds beside the features; a feature of that name would be overwritten.
RESERVED_COLUMNS = frozenset(
    {
        "request_id",
        "row",
        "rows",
        "ts",
        "version",
        "slot",
        "shadow",
        "latency_ms",
        "prediction",
        "probabilities",
        "label",
        "model",
        "date",
    }
)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Feature(_Frozen):
    """One input column.

    `minimum` and `maximum` are hard bounds in `unit`: a request outside of them is refused with 422 and a
    training row outside of them fails validation. Set them to what is physically possible, not to what
    the training data happens to hold, or drift could never be seen.
    """

    name: str
    kind: Literal["number", "integer", "category", "text"] = "number"
    unit: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str, ...] | None = None
    nullable: bool = False
    max_length: int = Field(default=20_000, ge=1, description="longest text or category accepted, in characters")
    description: str = ""

    @field_validator("name")
    @classmethod
    def _name_is_plain(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,62}", value):
            raise ValueError(f"{value!r} must be a letter followed by letters, digits or underscores")
        if value in RESERVED_COLUMNS:
            raise ValueError(f"{value!r} is a column of the prediction log; rename the feature")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Feature:
        numeric = self.kind in ("number", "integer")
        if not numeric and (self.minimum is not None or self.maximum is not None):
            raise ValueError(f"feature {self.name!r}: minimum and maximum need a numeric kind")
        for bound in (self.minimum, self.maximum):
            if bound is not None and not math.isfinite(bound):
                raise ValueError(f"feature {self.name!r}: bounds must be finite; leave them out instead")
        if self.minimum is not None and self.maximum is not None and self.minimum >= self.maximum:
            raise ValueError(f"feature {self.name!r}: minimum must be below maximum")
        if self.kind == "category" and not self.categories:
            raise ValueError(f"feature {self.name!r}: a category feature lists its categories")
        if self.kind != "category" and self.categories is not None:
            raise ValueError(f"feature {self.name!r}: categories need kind='category'")
        return self


class Target(_Frozen):
    """What is predicted: a class out of `classes`, or a number in `unit`."""

    name: str
    classes: tuple[str, ...] | None = None
    unit: str | None = None
    description: str = ""

    @field_validator("classes")
    @classmethod
    def _two_distinct(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (len(value) < 2 or len(set(value)) != len(value)):
            raise ValueError("classes must be at least two distinct names")
        return value


class Candidate(_Frozen):
    """One estimator that is tried at each training.

    Attributes:
        build: returns it unfitted, and imports its library itself.
        finetune: (the champion's estimator, rows, target) -> the estimator trained further on these rows. Used instead
            of `build` and `fit` when the champion was made by the candidate of this name; it may change what it is
            given. Without it every training starts anew.
    """

    name: str
    build: Callable[[], Any]
    finetune: Callable[[Any, Any, Any], Any] | None = None


class Metric(_Frozen):
    """The one number that the gate compares; `floor` is the worst value the very first version may have."""

    name: Literal["accuracy", "f1_macro", "log_loss", "rmse", "mae", "r2"]
    floor: float

    @property
    def greater_is_better(self) -> bool:
        return self.name in ("accuracy", "f1_macro", "r2")


class DataPolicy(_Frozen):
    """What a data set must fulfil before anything is trained on it."""

    min_rows: int = Field(default=50, ge=1)
    max_null_fraction: float = Field(default=0.0, ge=0, le=1, description="for nullable features")
    max_duplicate_fraction: float = Field(default=0.1, ge=0, le=1, description="repeated rows above it are a warning")


class GatePolicy(_Frozen):
    """When a challenger may be registered (paired bootstrap, one-sided)."""

    holdout_fraction: float = Field(default=0.25, gt=0, lt=1)
    margin: float = Field(default=0.01, ge=0, description="non-inferiority margin, as a share of the champion's metric")
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    resamples: int = Field(default=2000, ge=100)
    slices: tuple[str, ...] = ()
    slice_min_rows: int = Field(default=200, ge=1)
    slice_max_loss: float = Field(default=0.05, ge=0, description="largest relative worsening in a slice")


class DriftPolicy(_Frozen):
    """When a window of logged predictions counts as drifted."""

    window_hours: float = Field(default=24.0, gt=0)
    min_rows: int = Field(default=200, ge=1)
    max_rows: int = Field(default=50_000, ge=100, description="rows judged per window; more are sampled")
    alpha: float = Field(default=0.01, gt=0, lt=1, description="false-alarm rate of one window, over all features")
    null_windows: int = Field(default=500, ge=50, description="reference windows behind each threshold")
    effect_floor: float = Field(
        default=0.1, ge=0, description="smallest shift that counts, in standard deviations of the reference"
    )
    season_days: float | None = Field(
        default=None, gt=0, description="with `time`: compare with the reference's rows this close in the year"
    )
    confirm: int = Field(default=2, ge=1)
    confirm_of: int = Field(default=3, ge=1)
    min_coverage: float = Field(default=0.999, ge=0, le=1, description="logged share of answered rows")


class RetrainPolicy(_Frozen):
    """Circuit breaker of automatic retraining."""

    cool_down_hours: float = Field(default=24.0, ge=0)
    min_new_labels: int = Field(default=100, ge=1)
    max_per_week: int = Field(default=3, ge=0, description="retrains in any 7 days; reaching it is an alert")
    max_rejected_in_a_row: int = Field(default=2, ge=1, description="refused challengers until a person has to look")
    label_delay_hours: float = Field(default=0.0, ge=0, description="age at which the labels of a row are complete")
    loss_band: float = Field(default=0.1, ge=0, description="relative worsening on labels that counts as a loss")


class LogPolicy(_Frozen):
    """What the prediction log does when its spool or the disk is full."""

    when_full: Literal["refuse", "serve"] = "refuse"


class ModelSpec(_Frozen):
    """Everything Slipway needs to know about one model.

    Attributes:
        loader: returns a pandas DataFrame with every feature column and the target column, and the
            `time` column if one is named.
        golden_rows: inputs, one dict per row, that every release of the model is asked before it gets traffic.
        drift_cron: when `{name}_drift` runs; five cron fields, UTC.
        data_cron: when `{name}_data` runs by itself; None means only by hand.
    """

    name: str
    task: Literal["classification", "regression"]
    description: str
    features: tuple[Feature, ...] = Field(min_length=1)
    target: Target
    loader: Callable[[], Any]
    candidates: tuple[Candidate, ...] = Field(min_length=1)
    metric: Metric
    golden_rows: tuple[dict[str, Any], ...] = Field(min_length=1)
    time: str | None = None
    drift_cron: str = "0 2 * * *"
    data_cron: str | None = None
    data: DataPolicy = DataPolicy()
    gate: GatePolicy = GatePolicy()
    drift: DriftPolicy = DriftPolicy()
    retrain: RetrainPolicy = RetrainPolicy()
    rollout: RolloutPolicy = RolloutPolicy()
    log: LogPolicy = LogPolicy()

    @field_validator("name")
    @classmethod
    def _name_is_an_identifier(cls, value: str) -> str:
        if not _NAME.match(value):
            raise ValueError(f"{value!r} must be lower case letters, digits and underscores, starting with a letter")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> ModelSpec:
        names = [feature.name for feature in self.features]
        if len(set(names)) != len(names):
            raise ValueError("features: names must be distinct")
        if self.target.name in names:
            raise ValueError(f"target: {self.target.name!r} is also a feature")
        if (self.task == "classification") != (self.target.classes is not None):
            raise ValueError("target.classes: needed for classification, and only there")
        known = {c.name for c in self.candidates}
        if len(known) != len(self.candidates):
            raise ValueError("candidates: names must be distinct")
        for index, row in enumerate(self.golden_rows):
            if set(row) != set(names):
                raise ValueError(f"golden_rows.{index}: must hold exactly the features {', '.join(names)}")
        for name in self.gate.slices:
            if name not in names:
                raise ValueError(f"gate.slices: {name!r} is not a feature")
        # Not in the policy itself: rollouts are kept with theirs and must stay readable.
        if self.rollout.waits_in_vain:
            raise ValueError(
                "rollout.checks.min_labels: labels compare the two slots, so it needs a first step below 100"
            )
        return self

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    def serving_schema(self) -> dict[str, Any]:
        """The part of the spec that a bento carries: plain JSON, no callables."""
        return {
            "model": self.name,
            "task": self.task,
            "description": self.description,
            "features": [feature.model_dump(mode="json") for feature in self.features],
            "target": self.target.model_dump(mode="json"),
        }


def _load_file(path: Path) -> ModelSpec:
    module_name = f"fleet.{path.stem}"
    definition = importlib.util.spec_from_file_location(module_name, path)
    if definition is None or definition.loader is None:
        raise SpecError(f"{path.name}: not a Python file")
    module = importlib.util.module_from_spec(definition)
    sys.modules[module_name] = module  # pickling and dataclasses look the module up by name
    try:
        definition.loader.exec_module(module)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "spec"
        raise SpecError(f"fleet/{path.name}: {field}: {first['msg']}") from error
    except Exception as error:
        raise SpecError(f"fleet/{path.name}: {type(error).__name__}: {error}") from error
    spec = getattr(module, "MODEL", None)
    if not isinstance(spec, ModelSpec):
        raise SpecError(f"fleet/{path.name}: must define MODEL = ModelSpec(...)")
    if spec.name != path.stem:
        raise SpecError(f"fleet/{path.name}: name: {spec.name!r} must equal the file's name {path.stem!r}")
    return spec


def fleet_names(directory: Path) -> frozenset[str]:
    """The models that have a fleet file, without importing any."""
    return frozenset(path.stem for path in directory.glob("*.py") if _NAME.match(path.stem))


def load_fleet(directory: Path) -> dict[str, ModelSpec]:
    """Every model of the installation by name, in name order.

    Raises:
        SpecError: the first fleet file that is wrong, with the field.
    """
    return {name: _load_file(directory / f"{name}.py") for name in sorted(fleet_names(directory))}


def load_model(directory: Path, name: str) -> ModelSpec:
    """The spec of one model.

    Raises:
        NotFoundError: no such fleet file; the message lists those that exist.
        SpecError: the file is wrong.
    """
    names = fleet_names(directory)
    if name not in names:
        raise NotFoundError(f"no model named {name!r}; known models: {', '.join(sorted(names)) or 'none'}")
    return _load_file(directory / f"{name}.py")
