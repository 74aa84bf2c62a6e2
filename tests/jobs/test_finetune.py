"""Fine-tuning from the champion: who goes on, and what counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.tree import DecisionTreeClassifier

from jobs.loop_cases import Loop
from slipway.errors import DataError
from slipway.spec import Candidate, Feature, Metric, ModelSpec, Target


def noise(rows: int, seed: int) -> pd.DataFrame:
    """Labels that nothing predicts: whoever does well has seen them."""
    random = np.random.default_rng(seed)
    return pd.DataFrame({"x": random.normal(size=rows), "y": random.choice(["a", "b"], rows)})


def unchanged(champion: Any, rows: Any, target: Any) -> Any:
    return champion


def spec(finetune: Any = unchanged) -> ModelSpec:
    return ModelSpec(
        name="noise",
        task="classification",
        description="",
        features=(Feature(name="x"),),
        target=Target(name="y", classes=("a", "b")),
        loader=lambda: noise(400, 1),
        candidates=(
            Candidate(name="tree", build=lambda: DecisionTreeClassifier(random_state=7), finetune=finetune),
            Candidate(name="dummy", build=lambda: DummyClassifier(strategy="prior")),
        ),
        metric=Metric(name="accuracy", floor=0.0),
        golden_rows=({"x": 0.5},),
    )


@pytest.fixture
def loop() -> Loop:
    """With a tree as champion that knows its 400 rows by heart."""
    loop = Loop(spec=spec())
    whole = loop.spec
    loop.spec = whole.model_copy(update={"candidates": whole.candidates[:1]})
    champion = loop.first_champion()
    assert champion.tags["slipway.candidate"] == "tree"
    loop.spec = whole
    return loop


def retrain(loop: Loop) -> dict[str, Any]:
    more = pd.concat([noise(400, 1), noise(200, 2)], ignore_index=True)
    return loop.train(loop.lake.write_snapshot("noise", more, "loader"))


def test_rows_that_the_champion_remembers_do_not_count_in_validation(loop: Loop) -> None:
    trained = retrain(loop)
    assert trained["metrics"]["tree"]["validation_accuracy"] < 0.65
    runs = {run.name: run for run in loop.tracker.find_runs("noise", {"slipway.key": trained["key"]})}
    assert runs["tree"].tags["slipway.finetuned_from"] == "1"
    assert "slipway.finetuned_from" not in runs["dummy"].tags


def test_a_repeat_changes_nothing(loop: Loop) -> None:
    first = retrain(loop)
    runs = len(loop.tracker.runs)
    assert retrain(loop) == first
    assert len(loop.tracker.runs) == runs


def test_an_estimator_is_read_back_whatever_its_serving_format(loop: Loop) -> None:
    champion = loop.tracker.by_alias("noise", "champion")
    assert champion is not None
    folder = loop.tracker.artefacts / champion.run_id / "model"
    assert isinstance(loop.files.read_estimator(loop.spec, folder), DecisionTreeClassifier)


def test_a_finetune_that_fails_is_one_line(loop: Loop) -> None:
    def fails(champion: Any, rows: Any, target: Any) -> Any:
        raise RuntimeError("no")

    loop.spec = spec(fails)
    with pytest.raises(DataError, match="noise: finetune of tree failed: RuntimeError: no"):
        retrain(loop)


def test_each_fold_gets_a_champion_of_its_own(loop: Loop) -> None:
    seen = []

    def marks(champion: Any, rows: Any, target: Any) -> Any:
        seen.append(hasattr(champion, "marked"))
        champion.marked = True
        return champion

    loop.spec = spec(marks)
    retrain(loop)
    assert len(seen) == 6
    assert not any(seen)
