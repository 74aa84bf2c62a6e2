"""Whatever is sent: what scikit-learn would reject is 422, everything else is the pipeline's own prediction.

The bentos are real ones under `bentoml serve`, with fitted pipelines in both serving formats; the oracle is the
pipeline itself and ten lines of Python that say what a schema allows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from served_models import Served, house_spec, iris_spec
from slipway.errors import DataError
from slipway.spec import Feature, ModelSpec

pytestmark = pytest.mark.services

FLOAT32_MAX = 3.4028234663852886e38
EXAMPLES = settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


MODELS = {
    "iris": (iris_spec, "forest_100"),
    "house": (lambda: house_spec(towns=False), "ridge"),
    "towns": (lambda: house_spec(towns=True), "ridge"),
}


@pytest.fixture(scope="module", params=list(MODELS))
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    spec, candidate = MODELS[request.param]
    made = Served(spec(), candidate, tmp_path_factory.mktemp(request.param))
    yield made
    made.stop()


def fits(value: Any, feature: Feature) -> bool:
    """Whether a value is one of this feature's; the oracle of the decoder."""
    if value is None:
        return feature.nullable
    if feature.kind in ("category", "text"):
        return isinstance(value, str) and (feature.categories is None or value in feature.categories)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if isinstance(value, float) and not math.isfinite(value):  # whole numbers may be too large to be asked
        return False
    low = -FLOAT32_MAX if feature.minimum is None else feature.minimum
    high = FLOAT32_MAX if feature.maximum is None else feature.maximum
    return low <= value <= high and (feature.kind == "number" or value == int(value))


def good(feature: Feature) -> st.SearchStrategy[Any]:
    if feature.kind == "category":
        values: st.SearchStrategy[Any] = st.sampled_from(feature.categories or ())
    elif feature.kind == "integer":
        whole = st.integers(int(feature.minimum or 0), int(feature.maximum or 100))
        values = whole | whole.map(float)
    else:
        values = st.floats(feature.minimum, feature.maximum) | st.integers(0, int(feature.maximum or 30))
    return values | st.none() if feature.nullable else values


def any_value() -> st.SearchStrategy[Any]:
    """Whatever JSON, and Python's JSON, can hold; numbers near all kinds of limits are likely."""
    edges = [0, -0.0, -1, 1e-320, 30, 30.000000001, 1e38, 3.5e38, 1e308, 10**25, -(10**400), 2**53 + 1, 2**63, 1.5]
    words = st.text(max_size=5) | st.sampled_from(["bern", "1", "nan", "true", "setosa"])
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | words | st.sampled_from(edges)
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2))


def good_row(spec: ModelSpec) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({feature.name: good(feature) for feature in spec.features})


def any_row(spec: ModelSpec) -> st.SearchStrategy[Any]:
    """Rows that are often right but for a field or two."""
    field = {feature.name: good(feature) | good(feature) | any_value() for feature in spec.features}
    rows = st.fixed_dictionaries(field)
    lacking = st.builds(
        lambda row, name: {key: value for key, value in row.items() if key != name},
        rows,
        st.sampled_from(spec.feature_names),
    )
    extended = st.builds(lambda row, name, value: {**row, name: value}, rows, st.text(max_size=8), any_value())
    return rows | rows | rows | lacking | extended | any_value()


def is_right(spec: ModelSpec, row: Any) -> bool:
    return (
        isinstance(row, dict)
        and set(row) == set(spec.feature_names)
        and all(fits(row[feature.name], feature) for feature in spec.features)
    )


@given(data=st.data())
@EXAMPLES
def test_right_rows_get_the_pipelines_own_prediction(served: Served, data: st.DataObject) -> None:
    rows = data.draw(st.lists(good_row(served.spec), min_size=1, max_size=20))
    status, answer = served.predict({"rows": rows})
    assert status == 200, answer
    served.check(rows, answer["predictions"], answer.get("probabilities"))
    status, answer = served.predict(rows[0])
    assert status == 200, answer
    one = [answer["probabilities"]] if "probabilities" in answer else None
    served.check(rows[:1], [answer["prediction"]], one)
    status, answer = served.ask(
        "POST", f"/invocations/{served.spec.name}", json.dumps({"dataframe_records": rows}).encode()
    )
    assert status == 200, answer
    assert len(answer["predictions"]) == len(rows)


@given(data=st.data())
@EXAMPLES
def test_any_row_is_predicted_as_the_pipeline_does_or_refused(served: Served, data: st.DataObject) -> None:
    row = data.draw(any_row(served.spec))
    status, answer = served.predict(row)
    if isinstance(row, dict) and "rows" in row:
        return  # by chance a batch; the tests below send those
    if not is_right(served.spec, row):
        assert status == 422, (row, answer)
        assert answer["errors"]
        assert answer["detail"]
        return
    assert status == 200, (row, answer)
    probabilities = [answer["probabilities"]] if "probabilities" in answer else None
    served.check([row], [answer["prediction"]], probabilities)


@given(data=st.data())
@EXAMPLES
def test_what_the_pipeline_rejects_is_never_predicted(served: Served, data: st.DataObject) -> None:
    """The other direction, with scikit-learn itself as the judge."""
    row = data.draw(st.fixed_dictionaries({feature.name: any_value() for feature in served.spec.features}))
    try:
        with np.errstate(all="ignore"):
            finite = bool(np.isfinite(served.expected([row])).all())
    except (DataError, ValueError, TypeError, OverflowError):
        finite = False
    status, _ = served.predict(row)
    assert status in (200, 422)
    if not finite:
        assert status == 422


@given(data=st.data())
@EXAMPLES
def test_one_wrong_row_refuses_the_batch_and_is_named(served: Served, data: st.DataObject) -> None:
    rows: list[Any] = data.draw(st.lists(good_row(served.spec), min_size=1, max_size=8))
    wrong = data.draw(any_row(served.spec).filter(lambda row: not is_right(served.spec, row)))
    index = data.draw(st.integers(0, len(rows)))
    rows.insert(index, wrong)
    status, answer = served.predict({"rows": rows})
    assert status == 422, (rows, answer)
    assert {error["row"] for error in answer["errors"]} == {index}
    assert all(error["path"].startswith(f"rows[{index}]") for error in answer["errors"])


@given(body=st.binary(max_size=80) | st.text(alphabet='{}[]":,0123456789.eE+-nulltrsafbNI \\', max_size=60))
@EXAMPLES
def test_any_bytes_are_answered_with_a_clients_error(served: Served, body: bytes | str) -> None:
    content = body if isinstance(body, bytes) else body.encode()
    for path in ("predict", "invocations", "feedback"):
        status, answer = served.ask("POST", f"/{path}/{served.spec.name}", content)
        assert status in (400, 422), (content, answer)
        assert answer["status"] == status


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e39"])
def test_numbers_that_are_not_finite_are_refused_by_name(served: Served, number: str) -> None:
    feature = served.spec.features[0].name
    row = json.dumps(dict(served.spec.golden_rows[0]) | {feature: "X"}).replace('"X"', number)
    status, answer = served.ask("POST", f"/predict/{served.spec.name}", row.encode())
    assert (status, answer["errors"][0]["path"]) == (422, feature)


def test_the_formats_are_the_expected_ones(served: Served) -> None:
    assert served.format == ("skops" if served.spec.features[-1].kind == "category" else "onnx")
