"""The lake on a local disk and behind an fsspec URL."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from slipway.adapters import log_files
from slipway.adapters.files import FileStore
from slipway.adapters.lake import ParquetLake
from slipway.errors import ArtefactError, DataError, NotFoundError

# Hashes name data sets for ever: this one must not change when a library does.
EXPECTED_SHA256 = "ee58831160dabd2bd8aa630d30d3e8b68e4e247dcf8205359c201176757b1d32"
DAY = datetime(2026, 11, 20, tzinfo=UTC)
COLUMNS = ["request_id", "row", "ts", "version", "slot", "shadow", "latency_ms", "prediction", "probabilities"]
TYPES = {
    "request_id": "string",
    "row": "int32",
    "ts": "timestamp",
    "version": "string",
    "slot": "string",
    "shadow": "bool",
    "latency_ms": "double",
    "prediction": "string",
    "probabilities": "list<double>",
    "length": "double",
    "count": "int64",
}


@pytest.fixture(params=["local", "memory", pytest.param("s3", marks=pytest.mark.services)])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ParquetLake]:
    if request.param == "local":
        yield ParquetLake(str(tmp_path / "lake"))
        return
    if request.param == "s3":
        yield ParquetLake(f"{request.getfixturevalue('bucket')}/{uuid.uuid4().hex}/lake")
        return
    import fsspec

    yield ParquetLake(f"memory://{uuid.uuid4().hex}/lake")
    fsspec.filesystem("memory").store.clear()


def micros(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000)


def log(lake: ParquetLake, name: str, *moments: datetime, shadow: bool = False, types: Any = None, **more: Any) -> bool:
    rows = len(moments)
    columns = {
        "request_id": [str(uuid.uuid4()) for _ in range(rows)],
        "row": list(range(rows)),
        "ts": [micros(moment) for moment in moments],
        "version": ["1"] * rows,
        "slot": ["blue"] * rows,
        "shadow": [shadow] * rows,
        "latency_ms": [0.25] * rows,
        "prediction": ["setosa"] * rows,
        "probabilities": [[0.9, 0.1]] * rows,
        "length": [1.5] * rows,
        "count": [7] * rows,
        **more,
    }
    return lake.write_log("predictions", "iris", moments[0].date(), name, columns, types or TYPES)


def label(lake: ParquetLake, name: str, *entries: tuple[str, int, str, datetime]) -> None:
    columns = dict(zip(("request_id", "row", "label", "ts"), map(list, zip(*entries, strict=True)), strict=True))
    columns["ts"] = [micros(moment) for moment in columns["ts"]]  # type: ignore[arg-type]
    types = {"request_id": "string", "row": "int32", "label": "string", "ts": "timestamp"}
    lake.write_log("labels", "iris", entries[0][3].date(), name, columns, types)


def test_what_was_logged_comes_back_typed(lake: ParquetLake) -> None:
    assert log(lake, "a", DAY, DAY + timedelta(hours=1))
    frame = lake.predictions("iris", DAY, DAY + timedelta(days=1))
    assert list(frame.columns) == [*COLUMNS, "length", "count"]
    assert str(frame["ts"].dtype) == "datetime64[us, UTC]"
    assert (frame["shadow"].dtype, frame["length"].dtype, frame["count"].dtype) == (bool, float, np.dtype("int64"))
    assert frame["ts"].tolist() == [DAY, DAY + timedelta(hours=1)]
    assert list(frame["probabilities"][0]) == [0.9, 0.1]


def test_the_window_is_half_open_and_crosses_dates(lake: ParquetLake) -> None:
    moments = [DAY - timedelta(microseconds=1), DAY, DAY + timedelta(days=1) - timedelta(microseconds=1)]
    log(lake, "a", moments[0])
    log(lake, "b", *moments[1:])
    log(lake, "c", DAY + timedelta(days=1))
    assert lake.predictions("iris", DAY, DAY + timedelta(days=1))["ts"].tolist() == moments[1:]
    assert lake.count_predictions("iris", DAY, DAY + timedelta(days=1)) == 2
    assert lake.count_predictions("iris", DAY - timedelta(days=1), DAY + timedelta(days=2)) == 4
    assert lake.count_predictions("iris", DAY, DAY) == 0


@pytest.fixture
def queried(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The names of the files of each query."""
    seen: list[list[str]] = []
    query = FileStore.query

    def spy(self: FileStore, text: str, paths: Any, *more: Any, **named: Any) -> Any:
        seen.append([path.rsplit("/", 1)[-1].removesuffix(".parquet") for path in paths])
        return query(self, text, paths, *more, **named)

    monkeypatch.setattr(FileStore, "query", spy)
    return seen


def test_only_files_with_rows_of_the_window_are_opened(lake: ParquetLake, queried: list[list[str]]) -> None:
    minute, last = timedelta(minutes=1), DAY + timedelta(days=1) - timedelta(microseconds=1)
    log(lake, "a", DAY, DAY + minute)
    log(lake, "b", DAY + minute, DAY + 2 * minute)
    log(lake, "20261120T000000.0-1-c", last)  # a name says when a file was begun, not what is in it
    log(lake, "d", last + timedelta(microseconds=1))
    for start, end, names in (
        (DAY + minute, DAY + 2 * minute, ["a", "b"]),
        (DAY + minute + timedelta(microseconds=1), DAY + 3 * minute, ["b"]),
        (DAY, DAY + minute, ["a"]),
        (last, last + minute, ["20261120T000000.0-1-c", "d"]),
        (DAY - minute, DAY + timedelta(days=2), ["20261120T000000.0-1-c", "a", "b", "d"]),
    ):
        assert lake.count_predictions("iris", start, end) > 0
        assert queried.pop() == names
    log(lake, "e", DAY + 3 * minute)
    assert lake.count_predictions("iris", DAY + 2 * minute, DAY + 4 * minute) == 2
    assert lake.predictions("iris", DAY + 5 * minute, DAY + 6 * minute).empty
    assert queried == [["b", "e"]]


def test_files_that_do_not_say_their_times_are_always_opened(tmp_path: Path, queried: list[list[str]]) -> None:
    lake = ParquetLake(str(tmp_path))
    log(lake, "a", DAY)
    file = tmp_path / "predictions" / "model=iris" / "date=2026-11-20" / "a.parquet"
    table = pq.read_table(file)
    pq.write_table(table, file.with_name("b.parquet"), write_statistics=False)
    pq.write_table(table.slice(0, 0), file.with_name("c.parquet"))
    coarse = table.set_column(2, "ts", table["ts"].cast(pa.timestamp("ms", "UTC")))
    pq.write_table(coarse, file.with_name("d.parquet"))
    assert lake.count_predictions("iris", DAY, DAY + timedelta(seconds=1)) == 3
    assert lake.count_predictions("iris", DAY + timedelta(hours=1), DAY + timedelta(hours=2)) == 0
    assert queried == [["a", "b", "c", "d"], ["b", "c", "d"]]


def test_the_times_of_more_files_than_are_remembered(lake: ParquetLake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_files, "_MOST_SPANS", 2)
    for number in range(4):
        log(lake, str(number), DAY + timedelta(minutes=number))
    for number in range(4):
        start = DAY + timedelta(minutes=number)
        assert lake.predictions("iris", start, start + timedelta(minutes=1))["ts"].tolist() == [start]


def test_shadow_rows_are_apart(lake: ParquetLake) -> None:
    log(lake, "a", DAY)
    log(lake, "b", DAY, DAY, shadow=True)
    end = DAY + timedelta(days=1)
    assert (lake.count_predictions("iris", DAY, end), lake.count_predictions("iris", DAY, end, shadow=True)) == (1, 2)
    assert lake.predictions("iris", DAY, end, shadow=True)["shadow"].tolist() == [True, True]


def test_writing_a_segment_twice_is_writing_it_once(lake: ParquetLake) -> None:
    assert log(lake, "a", DAY)
    assert not log(lake, "a", DAY)
    assert lake.count_predictions("iris", DAY, DAY + timedelta(days=1)) == 1


def test_other_models_and_days_are_not_touched(lake: ParquetLake) -> None:
    log(lake, "a", DAY)
    assert lake.count_predictions("iri", DAY, DAY + timedelta(days=1)) == 0
    assert lake.predictions("iris", DAY + timedelta(days=5), DAY + timedelta(days=6)).empty


def test_a_column_that_came_later_is_null_before(lake: ParquetLake) -> None:
    log(lake, "a", DAY)
    log(lake, "b", DAY + timedelta(hours=1), types={**TYPES, "width": "double"}, width=[2.0])
    assert lake.predictions("iris", DAY, DAY + timedelta(days=1))["width"].isna().tolist() == [True, False]


def test_files_that_are_being_written_are_not_seen(tmp_path: Path) -> None:
    lake = ParquetLake(str(tmp_path))
    log(lake, "a", DAY)
    folder = tmp_path / "predictions" / "model=iris" / "date=2026-11-20"
    (folder / ".b.parquet.1234.tmp").write_bytes(b"half")
    (folder / ".c.parquet").write_bytes(b"half")
    assert [path.name for path in folder.glob("*.parquet") if not path.name.startswith(".")] == ["a.parquet"]
    assert lake.count_predictions("iris", DAY, DAY + timedelta(days=1)) == 1


def test_a_file_that_vanishes_after_listing_is_listed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = ParquetLake(str(tmp_path))
    log(lake, "a", DAY)
    real, calls = lake._log_files, []

    def stale(*arguments: Any) -> list[str]:
        calls.append(1)
        gone = ["predictions/model=iris/date=2026-11-20/gone.parquet"] if len(calls) == 1 else []
        return real(*arguments) + gone

    monkeypatch.setattr(lake, "_log_files", stale)
    assert lake.count_predictions("iris", DAY, DAY + timedelta(days=1)) == 1
    assert len(calls) == 2


def test_an_unreadable_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    lake = ParquetLake(str(tmp_path))
    log(lake, "a", DAY)
    bad = tmp_path / "predictions" / "model=iris" / "date=2026-11-20" / "bad.parquet"
    bad.write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"bad\.parquet"):
        lake.count_predictions("iris", DAY, DAY + timedelta(days=1))


def test_nothing_logged_gives_all_columns(tmp_path: Path) -> None:
    plain = ParquetLake(str(tmp_path)).predictions("iris", DAY, DAY + timedelta(days=1))
    assert (list(plain.columns), len(plain)) == (COLUMNS, 0)
    declared = ParquetLake(str(tmp_path), lambda model: {"length": "number", "kind": "category"})
    frame = declared.predictions("iris", DAY, DAY + timedelta(days=1))
    assert (list(frame.columns), frame["length"].dtype) == ([*COLUMNS, "length", "kind"], float)
    assert str(frame["ts"].dtype) == "datetime64[us, UTC]"


def test_an_empty_window_has_the_columns_of_the_log(lake: ParquetLake) -> None:
    log(lake, "a", DAY)
    frame = lake.predictions("iris", DAY + timedelta(days=5), DAY + timedelta(days=6))
    assert (list(frame.columns), len(frame)) == ([*COLUMNS, "length", "count"], 0)


def test_times_need_a_zone(lake: ParquetLake) -> None:
    with pytest.raises(DataError, match="time zone"):
        lake.predictions("iris", DAY.replace(tzinfo=None), DAY)


def test_a_value_of_another_type_is_refused(lake: ParquetLake) -> None:
    with pytest.raises(DataError, match="segment a"):
        log(lake, "a", DAY, length=["x"])


def test_the_last_of_two_labels_counts(lake: ParquetLake) -> None:
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    hour = timedelta(hours=1)
    label(lake, "a", (first, 0, "setosa", DAY), (first, 1, "setosa", DAY), (second, 0, "virginica", DAY + hour))
    label(lake, "b", (first, 0, "versicolor", DAY + timedelta(days=40)))
    frame = lake.labels("iris")
    assert list(frame.columns) == ["request_id", "row", "label", "ts"]
    assert {(row.request_id, row.row): row.label for row in frame.itertuples()} == {
        (first, 0): "versicolor",
        (first, 1): "setosa",
        (second, 0): "virginica",
    }
    assert lake.labels("iris", DAY, DAY + hour)["label"].tolist() == ["setosa", "setosa"]


def test_no_labels_give_an_empty_frame(lake: ParquetLake) -> None:
    frame = lake.labels("iris")
    assert (list(frame.columns), len(frame)) == (["request_id", "row", "label", "ts"], 0)


def example() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "length": [1.0, np.nan, 3.0],
            "count": [1, 2, 3],
            "kind": pd.Categorical(["a", "b", "a"]),
            "text": ["x", None, "z"],
            "at": pd.date_range("2026-11-20", periods=3, freq="h", tz="UTC"),
        }
    )


def test_a_snapshot_is_named_by_its_content(lake: ParquetLake) -> None:
    snapshot = lake.write_snapshot("iris", example(), "loader")
    assert (snapshot.model, snapshot.rows, snapshot.source) == ("iris", 3, "loader")
    assert snapshot.sha256 in snapshot.uri
    assert abs(datetime.now(UTC) - snapshot.created_at) < timedelta(minutes=1)
    assert lake.write_snapshot("iris", example().set_index(pd.Index([7, 8, 9])), "retrain") == snapshot
    assert lake.snapshot("iris", snapshot.sha256) == snapshot
    pd.testing.assert_frame_equal(lake.read_snapshot(snapshot), example(), check_dtype=False)
    assert str(lake.read_snapshot(snapshot)["kind"].dtype) == "category"


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.assign(length=[1.0, np.nan, 3.5]),
        lambda frame: frame.assign(length=[1.0, 0.0, 3.0]),
        lambda frame: frame.iloc[::-1],
        lambda frame: frame.iloc[:2],
        lambda frame: frame.rename(columns={"text": "words"}),
        lambda frame: frame[list(frame.columns[::-1])],
        lambda frame: frame.assign(text=["x", "", "z"]),
        lambda frame: frame.assign(text=["xz", None, ""]),
        lambda frame: frame.assign(count=[1.0, 2.0, 3.0]),
    ],
)
def test_any_change_of_content_changes_the_hash(lake: ParquetLake, change: Any) -> None:
    first = lake.write_snapshot("iris", example(), "loader")
    assert lake.write_snapshot("iris", change(example()), "loader").sha256 != first.sha256


def test_the_hash_is_stable_across_releases(lake: ParquetLake) -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})
    assert lake.write_snapshot("iris", frame, "loader").sha256 == EXPECTED_SHA256


def test_a_changed_snapshot_is_noticed(tmp_path: Path) -> None:
    lake = ParquetLake(str(tmp_path))
    first = lake.write_snapshot("iris", example(), "loader")
    second = lake.write_snapshot("iris", example().iloc[:2], "loader")
    Path(second.uri).replace(first.uri)
    with pytest.raises(ArtefactError, match="was changed"):
        lake.read_snapshot(first)


def test_an_unknown_snapshot_says_what_to_do(lake: ParquetLake) -> None:
    with pytest.raises(NotFoundError, match="iris_data"):
        lake.snapshot("iris", "0" * 64)
    with pytest.raises(NotFoundError, match="64"):
        lake.snapshot("iris", "../x")


def test_a_column_of_mixed_types_is_named(lake: ParquetLake) -> None:
    with pytest.raises(DataError, match="mixed"):
        lake.write_snapshot("iris", pd.DataFrame({"mixed": [1, "x", None]}), "loader")


def test_reports_are_replaced_by_name(tmp_path: Path) -> None:
    lake = ParquetLake(str(tmp_path))
    run = "manual__2026-11-20T22:48:23+00:00"
    path = lake.write_report("iris", run, "drift.html", "<p>old</p>")
    assert lake.write_report("iris", run, "drift.html", b"<p>new</p>") == path
    assert Path(path) == tmp_path / "reports" / "model=iris" / run / "drift.html"
    assert Path(path).read_text() == "<p>new</p>"
    assert [entry.name for entry in Path(path).parent.iterdir()] == ["drift.html"]


@pytest.mark.parametrize(("run", "name"), [("..", "x"), ("a/b", "x"), ("a", "../x"), ("", "x"), ("a", ".x")])
def test_a_report_cannot_leave_its_folder(lake: ParquetLake, run: str, name: str) -> None:
    with pytest.raises(DataError, match="plain file name"):
        lake.write_report("iris", run, name, "x")


def test_an_unknown_protocol_is_an_error() -> None:
    with pytest.raises(DataError, match="cannot be opened"):
        ParquetLake("nosuch://bucket/lake").read_report("iris", "run", "drift.json")


def test_the_layout_is_the_documented_one(tmp_path: Path) -> None:
    lake = ParquetLake(str(tmp_path))
    log(lake, "20261120T000000.000000-1-a", DAY)
    snapshot = lake.write_snapshot("iris", example(), "loader")
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.parquet"))
    assert found == [
        f"datasets/model=iris/{snapshot.sha256}.parquet",
        f"predictions/model=iris/date={date(2026, 11, 20)}/20261120T000000.000000-1-a.parquet",
    ]
