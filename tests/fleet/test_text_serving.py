"""The text model behind a real bento: every way to send a text, and every text that can be sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet import code_language
from served_models import Served

pytestmark = pytest.mark.services
LONGEST = code_language.MODEL.features[0].max_length
PYTHON = code_language.MODEL.golden_rows[0]["text"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    rows = code_language.load(60)
    spec = code_language.MODEL.model_copy(update={"loader": lambda: rows})
    made = Served(spec, "chars_sgd", tmp_path_factory.mktemp("code_language"))
    yield made
    made.stop()


def invoke(served: Served, document: dict[str, Any]) -> tuple[int, Any]:
    return served.ask("POST", "/invocations/code_language", json.dumps(document).encode())


def test_one_text_and_many(served: Served) -> None:
    assert served.format == "skops"
    status, answer = served.predict({"text": PYTHON})
    assert status == 200
    served.check([{"text": PYTHON}], [answer["prediction"]], [answer["probabilities"]])
    rows = [{"text": f"{PYTHON}{index}"} for index in range(1500)]
    status, answer = served.predict({"rows": rows})
    assert status == 200
    served.check(rows, answer["predictions"], answer["probabilities"])


@pytest.mark.parametrize(
    "document",
    [
        {"inputs": ["print(1)", PYTHON]},
        {"inputs": [["print(1)"], [PYTHON]]},
        {"inputs": {"text": ["print(1)", PYTHON]}},
        {"instances": ["print(1)", PYTHON]},
        {"instances": [{"text": "print(1)"}, {"text": PYTHON}]},
        {"dataframe_split": {"columns": ["text"], "data": [["print(1)"], [PYTHON]]}},
        {"dataframe_records": [{"text": "print(1)"}, {"text": PYTHON}]},
    ],
)
def test_every_spelling_of_mlflow_gives_the_same_answer(served: Served, document: dict[str, Any]) -> None:
    status, answer = invoke(served, document)
    assert status == 200, answer
    expected = served.pipeline.predict([["print(1)"], [PYTHON]])
    assert answer["predictions"] == [code_language.LANGUAGES[index] for index in expected]


@pytest.mark.parametrize("row", [1, None, ["a", "b"], [], {"text": 1}, {"texts": "a"}, [["a"]], "x" * (LONGEST + 1)])
def test_what_is_no_text_is_refused_with_its_path(served: Served, row: Any) -> None:
    status, answer = invoke(served, {"inputs": ["fine", row]})
    assert status == 422
    assert answer["errors"][0]["path"].startswith("inputs[1]")


@given(text=st.text(max_size=200) | st.sampled_from(["", "\0", "\0" * 50, "\ufeff", "\U0001f600" * 99, "\n" * LONGEST]))
@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_every_text_is_answered(served: Served, text: str) -> None:
    status, answer = served.predict({"text": text})
    assert status == 200, answer
    served.check([{"text": text}], [answer["prediction"]], [answer["probabilities"]])


@pytest.mark.parametrize(
    "text", ["\ud800", "a\udfff", "x" * (LONGEST + 1), "\U0001f600" * (LONGEST + 1), None, 1, ["a"]]
)
def test_what_cannot_be_answered_is_422(served: Served, text: Any) -> None:
    status, answer = served.predict({"text": text})
    assert status == 422
    assert answer["errors"][0]["path"] == "text"


def test_the_longest_text_is_answered(served: Served) -> None:
    assert served.predict({"text": "\U0001f600" * LONGEST})[0] == 200


def test_labels_come_back(served: Served) -> None:
    request_id = served.predict({"text": PYTHON})[1]["request_id"]
    label = json.dumps({"request_id": request_id, "label": "python"}).encode()
    assert served.ask("POST", "/feedback/code_language", label)[0] == 202
    other = json.dumps({"request_id": request_id, "label": "klingon"}).encode()
    assert served.ask("POST", "/feedback/code_language", other)[0] == 422
