"""Iris: which of three species a flower belongs to, from four lengths in centimetres.

Data: Fisher's 150 flowers as shipped with scikit-learn. The hard bounds of the features are what a
flower can physically measure, not what the 150 flowers happen to show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from slipway.spec import (
    Candidate,
    DriftPolicy,
    Feature,
    Metric,
    ModelSpec,
    RetrainPolicy,
    RolloutPolicy,
    Target,
    all_at_once,
)

if TYPE_CHECKING:
    import pandas as pd

SPECIES = ("setosa", "versicolor", "virginica")


def load() -> pd.DataFrame:
    """150 rows: four lengths in cm and the species' name."""
    from sklearn.datasets import load_iris

    bunch = load_iris(as_frame=True)
    frame = bunch.data.set_axis(["sepal_length", "sepal_width", "petal_length", "petal_width"], axis=1)
    frame["species"] = [SPECIES[code] for code in bunch.target]
    return frame


def forest_50() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_estimators=50, max_depth=5, random_state=7)


def forest_100() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_estimators=100, max_depth=7, random_state=7)


def logistic() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


MODEL = ModelSpec(
    name="iris",
    task="classification",
    description="Species of an iris flower from its sepal and petal lengths.",
    features=(
        Feature(name="sepal_length", unit="cm", minimum=0, maximum=30, description="length of the sepal"),
        Feature(name="sepal_width", unit="cm", minimum=0, maximum=30, description="width of the sepal"),
        Feature(name="petal_length", unit="cm", minimum=0, maximum=30, description="length of the petal"),
        Feature(name="petal_width", unit="cm", minimum=0, maximum=30, description="width of the petal"),
    ),
    target=Target(name="species", classes=SPECIES),
    loader=load,
    candidates=(
        Candidate(name="forest_50", build=forest_50),
        Candidate(name="forest_100", build=forest_100),
        Candidate(name="logistic", build=logistic),
    ),
    metric=Metric(name="accuracy", floor=0.85),
    golden_rows=(
        {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2},
        {"sepal_length": 6.0, "sepal_width": 2.7, "petal_length": 4.2, "petal_width": 1.3},
        {"sepal_length": 6.9, "sepal_width": 3.1, "petal_length": 5.9, "petal_width": 2.2},
    ),
    drift=DriftPolicy(window_hours=24, min_rows=200, confirm=1, confirm_of=1),
    retrain=RetrainPolicy(cool_down_hours=0, min_new_labels=100, max_per_week=20),
    # The demo has no traffic of its own, so nothing but readiness, errors and the replay is waited for.
    rollout=RolloutPolicy(
        steps=all_at_once(), bake_seconds=3, replay_requests=100, min_requests=0, deadline_seconds=900
    ),
)
