from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from slipway.errors import NotFoundError, SpecError
from slipway.settings import PROJECT_DIR, Settings
from slipway.spec import (
    ChecksPolicy,
    Feature,
    ModelSpec,
    RolloutPolicy,
    Step,
    all_at_once,
    canary,
    load_fleet,
    load_model,
)
from slipway.wiring import Wiring

FLEET = PROJECT_DIR / "include" / "fleet"


def parts(**changes: Any) -> dict[str, Any]:
    return dict(load_model(FLEET, "iris")) | changes


def test_the_fleet_holds_iris_with_everything_the_loop_needs() -> None:
    spec = load_fleet(FLEET)["iris"]
    assert spec.feature_names == ("sepal_length", "sepal_width", "petal_length", "petal_width")
    assert [c.name for c in spec.candidates] == ["forest_50", "forest_100", "logistic"]
    frame = spec.loader()
    assert list(frame.columns) == [*spec.feature_names, spec.target.name]
    assert len(frame) == 150


def test_a_spec_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_model(FLEET, "iris").name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red"}, "colour"),
        ({"name": "Iris"}, "lower case"),
        ({"features": ()}, "features"),
        ({"golden_rows": ({"petal_length": 1.0},)}, "golden_rows.0"),
        ({"task": "regression"}, "target.classes"),
    ],
)
def test_a_wrong_spec_names_the_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelSpec(**parts(**changes))


def test_labels_are_waited_for_only_where_the_slots_share_traffic() -> None:
    waits = ChecksPolicy(min_labels=200)
    with pytest.raises(ValidationError, match=r"rollout\.checks\.min_labels: .* first step below 100"):
        ModelSpec(**parts(rollout=RolloutPolicy(steps=all_at_once(), checks=waits)))
    for policy in (
        RolloutPolicy(steps=canary(50), checks=waits),
        RolloutPolicy(steps=all_at_once()),
        RolloutPolicy(steps=all_at_once(), checks=waits, min_requests=0),
        RolloutPolicy(steps=all_at_once(), checks=waits.model_copy(update={"max_quality_loss": None})),
    ):
        assert ModelSpec(**parts(rollout=policy)).rollout == policy


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "latency_ms"}, "prediction log"),
        ({"name": "a b"}, "letters"),
        ({"name": "x", "minimum": 2, "maximum": 1}, "below maximum"),
        ({"name": "x", "maximum": float("inf")}, "finite"),
        ({"name": "x", "kind": "category"}, "lists its categories"),
        ({"name": "x", "kind": "text", "minimum": 1}, "numeric kind"),
    ],
)
def test_a_wrong_feature_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Feature(**arguments)


@pytest.mark.parametrize("weights", [(), (5, 50), (50, 25, 100), (100, 100)])
def test_rollout_steps_rise_to_all(weights: tuple[int, ...]) -> None:
    with pytest.raises(ValidationError, match="steps"):
        RolloutPolicy(steps=tuple(Step(weight=w) for w in weights))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "must define MODEL"),
        ("raise RuntimeError('boom')", "RuntimeError: boom"),
        ("import nowhere_to_be_found", "ModuleNotFoundError"),
    ],
)
def test_a_broken_fleet_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(SpecError, match=f"fleet/broken.py: .*{message}"):
        load_fleet(tmp_path)


def test_a_file_under_another_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rose.py").write_text((FLEET / "iris.py").read_text())
    with pytest.raises(SpecError, match=r"fleet/rose.py: name: 'iris' must equal"):
        load_fleet(tmp_path)


def test_an_unknown_model_lists_the_known_ones() -> None:
    with pytest.raises(NotFoundError, match=r"no model named 'rose'; known models: .*iris"):
        load_model(FLEET, "rose")


def test_a_new_fleet_file_is_noticed_by_a_running_process(tmp_path: Path) -> None:
    slipway = Wiring(Settings(fleet_dir=tmp_path))
    assert slipway.fleet == {}
    (tmp_path / "rose.py").write_text((FLEET / "iris.py").read_text().replace('name="iris"', 'name="rose"'))
    assert list(slipway.fleet) == ["rose"]
