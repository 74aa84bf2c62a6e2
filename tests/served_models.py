"""Fitted pipelines of several kinds, each behind a real bento in its serving format."""

from __future__ import annotations

import http.client
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from contracts.services import eventually
from faults.log_parts import Bento
from slipway.core.encoding import feature_matrix
from slipway.settings import PROJECT_DIR
from slipway.spec import Candidate, Feature, Metric, ModelSpec, Target, load_model

if TYPE_CHECKING:
    import pandas as pd

TOLERANCE = 1e-5
TOWNS = ("bern", "köln", "łódź", "")


def house_spec(*, towns: bool) -> ModelSpec:
    """A regression with nulls and whole numbers, and with categories if `towns`."""
    features = [
        Feature(name="area", unit="m2", minimum=0, maximum=10_000),
        Feature(name="rooms", kind="integer", minimum=0, maximum=100),
        Feature(name="age", unit="years", nullable=True, minimum=-1, maximum=2000),
    ]
    golden: dict[str, Any] = {"area": 100.0, "rooms": 4, "age": 20.0}
    if towns:
        features.append(Feature(name="town", kind="category", categories=TOWNS))
        golden["town"] = "köln"
    return ModelSpec(
        name="house",
        task="regression",
        description="",
        features=tuple(features),
        target=Target(name="price"),
        loader=lambda: house_frame(),
        candidates=(Candidate(name="ridge", build=lambda: house_pipeline(towns=towns)),),
        metric=Metric(name="mae", floor=100),
        golden_rows=(golden, golden | {"age": None}),
    )


def house_frame() -> pd.DataFrame:
    import pandas as pd

    rng = np.random.default_rng(3)
    count = 300
    frame = pd.DataFrame({"area": rng.uniform(10, 500, count), "rooms": rng.integers(1, 12, count)})
    frame["age"] = np.where(rng.random(count) < 0.2, np.nan, rng.uniform(0, 100, count))
    frame["town"] = rng.choice(TOWNS, count)
    return frame.assign(price=3 * frame["area"] + 10 * frame["rooms"] - frame["age"].fillna(30))


def house_pipeline(*, towns: bool) -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    if not towns:
        return make_pipeline(numbers, Ridge())
    columns = ColumnTransformer([("numbers", numbers, [0, 1, 2]), ("town", OneHotEncoder(), [3])])
    return make_pipeline(columns, Ridge())


def iris_spec() -> ModelSpec:
    return load_model(PROJECT_DIR / "include" / "fleet", "iris")


class Served:
    """A fitted pipeline and the bento that serves it."""

    def __init__(self, spec: ModelSpec, candidate: str, folder: Path) -> None:
        from slipway.adapters.onnx import OnnxModelFiles

        self.spec = spec
        pipeline = next(one for one in spec.candidates if one.name == candidate).build()
        frame = spec.loader()
        self.kinds = [(feature.name, feature.kind) for feature in spec.features]
        classes = spec.target.classes
        truth = frame[spec.target.name]
        target = truth if classes is None else truth.map(lambda name: classes.index(name))
        self.magnitude = 1.0 if classes is not None else max(1.0, float(truth.abs().mean()))
        self.pipeline = pipeline.fit(feature_matrix(self.kinds, frame), target.to_numpy())
        written = OnnxModelFiles().write(spec, self.pipeline, frame, folder)
        self.format = written["format"]
        (folder / "model" / "identity.json").write_text(json.dumps({"model": spec.name, "version": "1"}))
        self.bento = Bento(folder, folder / "spool")
        self.bento.artefacts = folder / "model"
        self.bento.ensure()
        self.connection = http.client.HTTPConnection("127.0.0.1", self.bento.port, timeout=20)
        eventually(lambda: self.ask("GET", "/readyz")[0] == 200, 30, "the bento")

    def stop(self) -> None:
        self.connection.close()
        self.bento.stop()

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        for attempt in (1, 2):
            try:
                self.connection.request(method, path, body, {"content-type": "application/json"})
                response = self.connection.getresponse()
                return response.status, json.loads(response.read())
            except (OSError, http.client.HTTPException):
                # The server closes idle connections, and the search for examples takes its time now and then.
                self.connection.close()
                if attempt == 2:
                    raise
        raise AssertionError("unreachable")

    def predict(self, document: Any) -> tuple[int, Any]:
        return self.ask("POST", f"/predict/{self.spec.name}", json.dumps(document).encode("utf-8", "surrogatepass"))

    def expected(self, rows: Sequence[dict[str, Any]]) -> Any:
        """What the pipeline answers, or the exception that it raises."""
        import pandas as pd

        matrix = feature_matrix(self.kinds, pd.DataFrame(rows, columns=list(self.spec.feature_names)))
        if matrix.dtype != object and self.format == "onnx":
            matrix = matrix.astype(np.float32).astype(np.float64)
        if self.spec.target.classes is not None:
            return self.pipeline.predict_proba(matrix)
        return self.pipeline.predict(matrix)

    def check(self, rows: Sequence[dict[str, Any]], predictions: Sequence[Any], probabilities: Any) -> None:
        expected = self.expected(rows)
        classes = self.spec.target.classes
        if classes is None:
            # An ONNX model adds in float32: where large terms cancel each other, it is as exact as those terms are.
            scale = np.maximum(self.magnitude, np.abs(expected))
            assert (np.abs(np.array(predictions) - expected) / scale).max() <= TOLERANCE
            return
        got = np.array([[row[name] for name in classes] for row in probabilities])
        assert np.abs(got - expected).max() <= TOLERANCE
        for name, row in zip(predictions, expected, strict=True):
            assert row[classes.index(name)] >= row.max() - TOLERANCE
