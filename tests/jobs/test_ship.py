"""From answered request to lake: real predictor, real segments, real Parquet."""

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
from slipway.adapters.spool import Spool
from slipway.jobs.ship import ship

FIRST = "0198c6b4-31b6-7be2-9f0a-6a1b2c3d4e5f"
SECOND = "0198c6b4-31b6-7be2-9f0a-6a1b2c3d4e60"


def window() -> tuple[datetime, datetime]:
    now = datetime.now(UTC)
    return now - timedelta(hours=1), now + timedelta(hours=1)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def lake(tmp_path: Path) -> ParquetLake:
    return ParquetLake(str(tmp_path / "lake"))


def answer(tmp_path: Path, *requests: tuple[str, Any, dict[str, str]], house: bool = False, **config: Any) -> None:
    """Let a bento answer requests and stop it gracefully."""
    artefacts = write_house(tmp_path / "house") if house else write_iris(tmp_path / "artefacts")
    values = {"slot": "blue", "spool_dir": tmp_path / "spool", **config}

    async def main() -> None:
        async with Client(Engine(Config(artefacts_dir=artefacts, **values))).lifespan() as client:
            for path, body, headers in requests:
                response = await client.post(path, body, **headers)
                assert response.status in (200, 202), response.body

    asyncio.run(main())


def test_every_answered_row_and_label_reaches_the_lake_once(tmp_path: Path, spool: Spool, lake: ParquetLake) -> None:
    answer(
        tmp_path,
        ("/predict", {"rows": [ROW, ROW_2]}, {"x_request_id": FIRST}),
        ("/predict", ROW, {"x_request_id": SECOND}),
        ("/predict", ROW, {"x_slipway_shadow": "1"}),
        ("/feedback", {"request_id": FIRST, "row": 1, "label": "virginica"}, {}),
    )
    assert spool.pending_rows() == {"iris": 4}
    result = ship(spool, lake)
    assert (result.segments, result.rows, result.labels, result.problems) == (2, {"iris": 4}, {"iris": 1}, [])
    assert spool.pending_rows() == {}
    assert spool.sealed() == []

    frame = lake.predictions("iris", *window())
    assert list(zip(frame["request_id"], frame["row"], strict=True)) == [(FIRST, 0), (FIRST, 1), (SECOND, 0)]
    assert frame["prediction"].tolist() == ["setosa", "virginica", "setosa"]
    assert frame[list(ROW)].to_dict("records") == [ROW, ROW_2, ROW]
    assert set(zip(frame["version"], frame["slot"], frame["shadow"], strict=True)) == {("3", "blue", False)}
    assert frame["latency_ms"].between(0, 5000, inclusive="neither").all()
    assert [len(row) for row in frame["probabilities"]] == [3, 3, 3]
    assert lake.count_predictions("iris", *window(), shadow=True) == 1
    labels = lake.labels("iris")
    assert (labels["request_id"][0], labels["row"][0], labels["label"][0]) == (FIRST, 1, "virginica")


def test_regression_rows_are_numbers_with_nulls(tmp_path: Path, spool: Spool, lake: ParquetLake) -> None:
    rows = [{"area": 10.0, "rooms": 3, "age": 4.0}, {"area": 1.5, "rooms": 2, "age": 0}]
    answer(
        tmp_path,
        ("/predict", {"rows": rows}, {"x_request_id": FIRST}),
        ("/feedback", {"request_id": FIRST, "label": 27}, {}),
        house=True,
    )
    ship(spool, lake)
    frame = lake.predictions("house", *window())
    assert frame["prediction"].tolist() == pytest.approx([26.0, 6.0])
    assert frame["probabilities"].isna().all()
    assert (frame["rooms"].dtype.kind, frame["age"].dtype.kind) == ("i", "f")
    assert lake.labels("house")["label"].tolist() == [27.0]


def test_shipping_again_changes_nothing(tmp_path: Path, spool: Spool, lake: ParquetLake) -> None:
    answer(tmp_path, ("/predict", ROW, {}))
    assert ship(spool, lake).segments == 1
    assert ship(spool, lake).segments == 0
    assert lake.count_predictions("iris", *window()) == 1


def test_a_crash_between_writing_and_deleting_changes_nothing(
    tmp_path: Path, spool: Spool, lake: ParquetLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(tmp_path, ("/predict", {"rows": [ROW] * 3}, {}))
    with monkeypatch.context() as patch:
        patch.setattr(spool, "remove", lambda segment: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ship(spool, lake)
    assert lake.count_predictions("iris", *window()) == 3
    assert ship(spool, lake).rows == {"iris": 3}
    assert lake.count_predictions("iris", *window()) == 3
    assert spool.sealed() == []


def test_a_killed_writers_segment_is_shipped_up_to_its_last_whole_record(
    tmp_path: Path, spool: Spool, lake: ParquetLake
) -> None:
    answer(tmp_path, ("/predict", ROW, {}), ("/predict", ROW, {}))
    [path] = (tmp_path / "spool").glob("*/*/*.seg")
    path.write_bytes(path.read_bytes() + b"\x40\0\0\0half a record")
    path.rename(path.with_suffix(".open"))
    result = ship(spool, lake)
    assert (result.salvaged, result.rows, result.problems) == (1, {"iris": 2}, [])
    assert lake.count_predictions("iris", *window()) == 2


def test_one_bad_segment_does_not_hold_up_the_others(tmp_path: Path, spool: Spool, lake: ParquetLake) -> None:
    answer(tmp_path, ("/predict", ROW, {}))
    folder = tmp_path / "spool" / "predictions" / "iris"
    (folder / "00000000T000000.000000-1-0.seg").write_bytes(b"\0" * 64)
    result = ship(spool, lake)
    assert result.rows == {"iris": 1}
    assert len(result.problems) == 1
    assert "no readable header" in result.problems[0]
    assert [path.suffix for path in folder.iterdir()] == [".damaged"]


def test_damage_inside_a_sealed_segment_ships_what_is_before_it_and_keeps_the_file(
    tmp_path: Path, spool: Spool, lake: ParquetLake
) -> None:
    answer(tmp_path, ("/predict", ROW, {}), ("/predict", ROW_2, {}))
    [path] = (tmp_path / "spool").glob("*/*/*.seg")
    content = bytearray(path.read_bytes())
    content[-1] ^= 0xFF
    path.write_bytes(content)
    result = ship(spool, lake)
    assert result.rows == {"iris": 1}
    assert "unreadable" in result.problems[0]
    assert path.with_suffix(".damaged").exists()
    assert lake.predictions("iris", *window())["prediction"].tolist() == ["setosa"]


def test_a_lake_that_cannot_be_written_keeps_the_segments(
    tmp_path: Path, spool: Spool, lake: ParquetLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(tmp_path, ("/predict", ROW, {}))

    def full(*_: Any) -> bool:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(lake, "write_log", full)
        result = ship(spool, lake)
    assert (result.segments, len(result.problems), spool.pending_rows()) == (0, 1, {"iris": 1})
    assert ship(spool, lake).rows == {"iris": 1}


def test_a_second_shipper_stands_back(tmp_path: Path, spool: Spool, lake: ParquetLake) -> None:
    answer(tmp_path, ("/predict", ROW, {}))
    with Spool(tmp_path / "spool").exclusive():
        assert ship(spool, lake).busy
    assert not ship(spool, lake).busy


def test_segments_are_shipped_oldest_first_and_as_many_as_asked(
    tmp_path: Path, spool: Spool, lake: ParquetLake
) -> None:
    requests = [("/predict", ROW, {"x_request_id": str(uuid.UUID(int=index))}) for index in range(60)]
    answer(tmp_path, *requests, spool_segment_max_bytes=4096)
    assert len(spool.sealed()) >= 2
    ship(spool, lake, max_segments=1)
    first = lake.predictions("iris", *window())["request_id"].tolist()
    assert first == [str(uuid.UUID(int=index)) for index in range(len(first))]
    ship(spool, lake)
    everything = lake.predictions("iris", *window())["request_id"].tolist()
    assert everything == [str(uuid.UUID(int=index)) for index in range(60)]


def test_names_of_files_are_names_of_segments(tmp_path: Path, spool: Spool, lake: ParquetLake) -> None:
    answer(tmp_path, ("/predict", ROW, {}))
    [segment] = spool.sealed()
    header = spool.read(segment).header
    assert header["feature_kinds"] == ["number"] * 4
    ship(spool, lake)
    [path] = (tmp_path / "lake").rglob("*.parquet")
    day = datetime.now(UTC).date().isoformat()
    assert str(path.relative_to(tmp_path / "lake")) == f"predictions/model=iris/date={day}/{segment.name}.parquet"
