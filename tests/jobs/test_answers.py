"""The log as a release reads it: real predictors, real segments, real Parquet."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bento_cases import ROW, ROW_2, Client, write_house, write_iris
from predictor.config import Config
from predictor.engine import Engine
from slipway.adapters.lake import ParquetLake
from slipway.adapters.slot_probe import read_metrics
from slipway.adapters.spool import Spool
from slipway.core.checks import Pair
from slipway.core.slot_metrics import SlotMetrics
from slipway.jobs.answers import LakeAnswers
from slipway.jobs.ship import ship

IDS = [f"0198c6b4-31b6-7be2-9f0a-6a1b2c3d4e{n:02x}" for n in range(16)]
BEGAN = datetime.now(UTC) - timedelta(minutes=1)
FEATURES = {"iris": dict.fromkeys(ROW, False), "house": {"area": False, "rooms": True, "age": False}}


@pytest.fixture
def answers(tmp_path: Path) -> LakeAnswers:
    spool, lake = Spool(tmp_path / "spool"), ParquetLake(str(tmp_path / "lake"))
    return LakeAnswers(lake, lambda model: FEATURES[model], lambda: ship(spool, lake))


def serve(tmp_path: Path, artefacts: Path, *requests: tuple[str, Any, dict[str, str]]) -> str:
    """Let a bento answer requests; its metrics page at the end."""
    config = Config(artefacts_dir=artefacts, slot="blue", spool_dir=tmp_path / "spool")

    async def main() -> str:
        async with Client(Engine(config)).lifespan() as client:
            for path, body, headers in requests:
                await client.post(path, body, **headers)
            return (await client.get("/metrics")).body.decode()

    return asyncio.run(main())


def iris(tmp_path: Path, version: str) -> Path:
    return write_iris(tmp_path / f"v{version}", version=version)


def until() -> datetime:
    return datetime.now(UTC) + timedelta(minutes=1)


def asked(count: int, **headers: str) -> list[tuple[str, Any, dict[str, str]]]:
    return [("/predict", {"rows": [ROW, ROW_2]}, {"x_request_id": key, **headers}) for key in IDS[:count]]


def test_both_versions_answers_and_their_labels(tmp_path: Path, answers: LakeAnswers) -> None:
    labels = [("/feedback", {"request_id": IDS[0], "row": 1, "label": "setosa"}, {})]
    serve(tmp_path, iris(tmp_path, "1"), *asked(3), *labels)
    serve(tmp_path, iris(tmp_path, "2"), ("/predict", ROW, {}), *asked(3, x_slipway_shadow="1"))
    both = answers.sides("iris", BEGAN, until(), ("1", "2"))
    assert sorted(both["1"].predictions) == ["setosa"] * 3 + ["virginica"] * 3
    assert both["1"].labelled == [("virginica", "setosa")]
    assert (both["2"].predictions, both["2"].labelled) == (["setosa"], [])
    timed = answers.latency("iris", BEGAN, until())
    assert (timed["1"].requests, timed["1"].rows, timed["2"].requests) == (3, 6, 1)
    assert 0 < timed["1"].p50_ms <= timed["1"].p99_ms


def test_mirrored_answers_are_joined_by_request(tmp_path: Path, answers: LakeAnswers) -> None:
    labels = [("/feedback", {"request_id": IDS[1], "label": "versicolor"}, {})]
    serve(tmp_path, iris(tmp_path, "1"), *asked(4), *labels)
    serve(tmp_path, iris(tmp_path, "2"), *asked(2, x_slipway_shadow="1"))
    pairs = answers.pairs("iris", BEGAN, until(), "1", "2")
    assert len(pairs) == 4
    assert Pair("setosa", "setosa", "versicolor") in pairs
    assert pairs.count(Pair("virginica", "virginica")) == 2


def test_an_empty_log_has_no_answers(answers: LakeAnswers) -> None:
    assert answers.pairs("iris", BEGAN, until(), "1", "2") == []
    assert answers.last_requests("iris", until(), 10) == []
    assert answers.sides("iris", BEGAN, until(), ("1",))["1"].predictions == []
    assert answers.latency("iris", BEGAN, until()) == {}


def test_the_last_requests_can_be_asked_again(tmp_path: Path, answers: LakeAnswers) -> None:
    serve(tmp_path, iris(tmp_path, "1"), *asked(5))
    last = answers.last_requests("iris", until(), 3)
    assert [one.request_id for one in last] == IDS[2:5]
    assert last[0].rows == (ROW, ROW_2)
    assert last[0].predictions == ("setosa", "virginica")
    again = [("/predict", {"rows": list(one.rows)}, {"x_slipway_shadow": "1"}) for one in last]
    assert read_metrics(serve(tmp_path, iris(tmp_path, "2"), *again)).shadow_requests == 3


def test_whole_numbers_are_sent_as_they_came(tmp_path: Path, answers: LakeAnswers) -> None:
    row = {"area": 10.5, "rooms": 3, "age": 4.0}
    house = write_house(tmp_path / "house")
    serve(tmp_path, house, ("/predict", row, {"x_request_id": str(uuid.uuid4())}))
    [one] = answers.last_requests("house", until(), 5)
    assert one.rows == (row,)
    assert isinstance(one.rows[0]["rooms"], int)


def test_a_bentos_metrics_page_is_read(tmp_path: Path) -> None:
    shadow = {"x_slipway_shadow": "1"}
    bad = [
        ("/predict", b"{", {}),
        ("/predict", {**ROW, "more": 1}, {}),
        ("/predict", ROW, {"content_type": "text/csv"}),
    ]
    bad += [("/predict", b" " * 2**25, {}), ("/feedback", {"label": "setosa"}, {}), ("/predict", ROW, shadow)]
    bad += [("/predict", b"{", shadow), ("/predict", {}, shadow)]
    found = read_metrics(serve(tmp_path, iris(tmp_path, "1"), *asked(3), *bad))
    assert (found.requests, found.rejected, found.shadow_requests, found.shadow_errors) == (3, 0, 1, 0)
    assert (found.refused, found.shadow_refused) == (4, 2)
    assert (found.answered, found.in_flight, len(found.latency)) == (3, 0, len(found.bounds) + 1)
    assert abs(found.started_at - datetime.now(UTC).timestamp()) < 60
    assert SlotMetrics.from_dict(found.as_dict()) == found


@pytest.mark.parametrize("text", ["", "prediction_requests_total 1", "<html>"])
def test_another_page_is_no_metrics(text: str) -> None:
    with pytest.raises((KeyError, ValueError)):
        read_metrics(text)
