"""Compaction: fewer files, each row exactly once, whoever reads, ships or is killed meanwhile."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from slipway.adapters.files import FileStore
from slipway.adapters.lake import ParquetLake
from slipway.adapters.log_folders import LogFolders
from slipway.errors import DataError
from slipway.jobs.tidy import TidyResult, tidy

DAY = datetime(2026, 11, 20, tzinfo=UTC)
NEXT_DAY = DAY + timedelta(days=1)
TYPES = {
    "request_id": "string", "row": "int32", "ts": "timestamp", "version": "string", "slot": "string", "shadow": "bool",
    "latency_ms": "double", "prediction": "string", "probabilities": "list<double>", "length": "double",
}  # fmt: skip


class Log:
    """A lake in which each segment is one request of three rows; what must come back is remembered."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.lake, self.folders = ParquetLake(url), LogFolders(url)
        self.expected: list[tuple[str, int]] = []

    def segment(self, at: datetime, *, extra: bool = False, **change: Any) -> str:
        name = f"{at:%Y%m%dT%H%M%S.%f}-1-{uuid.uuid4().hex[:8]}"
        request_id = str(uuid.uuid4())
        types = TYPES | ({"width": "int64"} if extra else {}) | change
        values: dict[str, Any] = {
            "request_id": request_id, "version": "1", "slot": "blue", "shadow": False, "latency_ms": 0.5,
            "prediction": "setosa", "probabilities": [0.9, 0.1], "length": 1.0, "width": 2,
            "ts": int(at.timestamp() * 1_000_000),
        }  # fmt: skip
        columns = {key: [values[key]] * 3 for key in types if key != "row"} | {"row": [0, 1, 2]}
        assert self.lake.write_log("predictions", "iris", at.date(), name, columns, types)
        self.expected += [(request_id, row) for row in range(3)]
        self.columns, self.types = columns, types
        return name

    def fill(self, *, hours: int = 3, each: int = 3, start: datetime = DAY) -> None:
        for hour in range(hours):
            for index in range(each):
                self.segment(start + timedelta(hours=hour, minutes=index))

    def rows(self, lake: ParquetLake | None = None) -> pd.DataFrame:
        return (lake or self.lake).predictions("iris", DAY, DAY + timedelta(days=9))

    def check(self, lake: ParquetLake | None = None) -> None:
        """Each row once; the rows of a batch in their order."""
        frame = self.rows(lake)
        assert list(zip(frame["request_id"], frame["row"], strict=True)) == sorted(
            self.expected, key=lambda pair: (self._order(pair[0]), pair[1])
        )

    def _order(self, request_id: str) -> int:
        return next(index for index, pair in enumerate(self.expected) if pair[0] == request_id)

    def files(self, day: datetime = DAY) -> list[str]:
        store = FileStore(self.url)
        return [path.rsplit("/", 1)[-1] for path in store.list(f"predictions/model=iris/date={day:%Y-%m-%d}")]

    def tidy(self, at: datetime, *, grace_seconds: float = 0.0) -> TidyResult:
        # Replaced files are dated by the real clock; without a grace all of them have to lie in the past.
        clock = at if grace_seconds else max(at, datetime.now(UTC) + timedelta(hours=1))
        return tidy(
            self.folders, now=lambda: clock, sleep=lambda _: None, settle_seconds=0.0, grace_seconds=grace_seconds
        )


@pytest.fixture(params=["local", "memory"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    if request.param == "local":
        yield Log(str(tmp_path / "lake"))
        return
    import fsspec

    yield Log(f"memory://{uuid.uuid4().hex}/lake")
    fsspec.filesystem("memory").store.clear()


def test_hours_that_are_over_become_a_file_each(log: Log) -> None:
    log.fill()
    folder = log.folders.all()[0]
    assert log.folders.merge_hours(folder, DAY + timedelta(hours=2, minutes=59)) == 2
    log.check()
    assert log.folders.sweep(folder, datetime.now(UTC)) == 6
    names = log.files()
    assert [name[:8] for name in names if name.startswith("hour")] == ["hour-00-", "hour-01-"]
    assert len(names) == 2 + 3
    log.check()
    assert log.folders.merge_hours(folder, DAY + timedelta(hours=2, minutes=59)) == 0


def test_a_date_that_is_over_becomes_one_file(log: Log) -> None:
    log.fill()
    log.folders.merge_hours(log.folders.all()[0], DAY + timedelta(hours=2))
    log.segment(DAY + timedelta(hours=5))
    log.segment(NEXT_DAY)
    result = log.tidy(NEXT_DAY)
    assert (result.days, result.problems, result.busy) == (1, [], False)
    [name] = log.files()
    assert name.startswith("day-")
    log.check()
    assert log.tidy(NEXT_DAY).days == 0
    assert log.folders.count("iris").compacted == 1


def test_a_segment_that_comes_after_its_day_was_compacted_is_read_and_merged_next_time(log: Log) -> None:
    log.fill()
    log.tidy(NEXT_DAY)
    log.expected.sort()
    log.segment(DAY + timedelta(hours=23))
    assert len(log.files()) == 2
    assert len(log.rows()) == len(log.expected)
    log.tidy(NEXT_DAY)
    assert len(log.files()) == 1
    assert len(log.rows()) == len(log.expected)


def test_a_segment_that_was_merged_is_not_shipped_again(log: Log) -> None:
    log.fill(hours=1)
    name = log.segment(DAY + timedelta(minutes=30))
    again = (log.columns, log.types)
    for compact in (
        lambda: log.folders.merge_hours(log.folders.all()[0], NEXT_DAY),
        lambda: log.folders.sweep(log.folders.all()[0], datetime.now(UTC)),
        lambda: log.segment(DAY + timedelta(hours=2)),
        lambda: log.tidy(NEXT_DAY),
    ):
        compact()
        assert not ParquetLake(log.url).write_log("predictions", "iris", DAY.date(), name, *again)
    assert len(log.files()) == 1
    log.check()


def test_replaced_files_stay_for_the_grace_and_are_not_read(log: Log) -> None:
    log.fill()
    result = log.tidy(datetime.now(UTC) + timedelta(days=2), grace_seconds=7 * 86400)
    assert (result.days, result.deleted, len(log.files())) == (1, 0, 10)
    log.check()
    count = log.folders.count("iris")
    assert (count.shipped, count.compacted, count.replaced) == (0, 1, 9)


def test_columns_that_came_or_went_are_null_where_they_were_not(log: Log) -> None:
    log.segment(DAY)
    log.segment(DAY + timedelta(hours=1), extra=True)
    log.segment(DAY + timedelta(hours=2))
    log.tidy(NEXT_DAY)
    assert len(log.files()) == 1
    assert log.rows()["width"].isna().tolist() == [True] * 3 + [False] * 3 + [True] * 3


def test_columns_of_contradicting_types_are_left_in_their_files(log: Log) -> None:
    log.segment(DAY)
    name = log.segment(NEXT_DAY)
    log.lake.write_log("predictions", "iris", DAY.date(), name, log.columns | {"length": ["x"] * 3},
                       log.types | {"length": "string"})  # fmt: skip
    log.segment(NEXT_DAY)
    result = log.tidy(NEXT_DAY + timedelta(days=1))
    assert result.days == 1
    assert len(result.problems) == 1
    assert "date=2026-11-20" in result.problems[0]
    assert len(log.files()) == 2


def test_labels_keep_the_last_word_through_compaction(tmp_path: Path) -> None:
    lake, folders = ParquetLake(str(tmp_path)), LogFolders(str(tmp_path))
    request_id = str(uuid.uuid4())
    types = {"request_id": "string", "row": "int32", "label": "string", "ts": "timestamp"}
    for index, word in enumerate(["first", "second", "third"]):
        at = DAY + timedelta(minutes=index)
        columns = {"request_id": [request_id], "row": [0], "label": [word], "ts": [int(at.timestamp() * 1e6)]}
        lake.write_log("labels", "iris", DAY.date(), f"{at:%Y%m%dT%H%M%S.%f}-1-{index:08x}", columns, types)
    assert folders.merge_day(folders.all()[0]) == 1
    assert lake.labels("iris")["label"].tolist() == ["third"]


def test_a_local_lake_is_compacted_by_one_at_a_time(tmp_path: Path) -> None:
    log = Log(str(tmp_path))
    log.fill()
    with LogFolders(str(tmp_path)).exclusive() as alone:
        assert alone
        assert log.tidy(NEXT_DAY).busy
    assert not log.tidy(NEXT_DAY).busy


class Crash(BaseException):
    """Stands for kill -9."""


@pytest.mark.slow
def test_a_crash_at_any_step_loses_and_doubles_nothing_and_the_next_run_finishes(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each single operation on files, in turn, the run dies."""
    steps = 0
    crashes = 0
    while True:
        log.fill(hours=2, each=2, start=DAY + timedelta(days=crashes % 7))
        remaining = steps
        real = {name: getattr(FileStore, name) for name in ("list", "footer", "table", "writing", "delete", "exists")}

        def counted(name: str) -> Callable[..., Any]:
            def call(*arguments: Any) -> Any:
                nonlocal remaining
                remaining -= 1
                if remaining < 0:
                    raise Crash
                return real[name](*arguments)  # noqa: B023

            return call

        with monkeypatch.context() as patch:
            for name in real:
                patch.setattr(FileStore, name, counted(name))
            try:
                tidy(LogFolders(log.url), now=lambda: datetime.now(UTC) + timedelta(days=9), sleep=lambda _: None,
                     settle_seconds=0, grace_seconds=0)  # fmt: skip
            except Crash:
                crashes += 1
            else:
                break
        assert sorted(map(tuple, log.rows()[["request_id", "row"]].to_numpy().tolist())) == sorted(log.expected)
        steps += 1 if steps < 40 else 7
    assert crashes > 40
    log.tidy(DAY + timedelta(days=20))
    for day in range(7):
        assert len(log.files(DAY + timedelta(days=day))) == 1
    assert sorted(map(tuple, log.rows()[["request_id", "row"]].to_numpy().tolist())) == sorted(log.expected)


def test_a_reader_sees_each_row_once_while_files_are_merged_and_deleted_at_once(tmp_path: Path) -> None:
    """Without any grace: every reader runs into deleted files all the time and has to list again."""
    log = Log(str(tmp_path / "lake"))
    for day in range(3):
        log.fill(hours=4, each=6, start=DAY + timedelta(days=day))
    expected = sorted(log.expected)
    reads: list[int] = []
    wrong: list[Any] = []
    finished = threading.Event()

    def read() -> None:
        while not finished.is_set():
            lake = ParquetLake(log.url)
            try:
                frame = lake.predictions("iris", DAY, DAY + timedelta(days=9))
                found = sorted(zip(frame["request_id"], frame["row"].tolist(), strict=True))
                if found != expected or lake.count_predictions("iris", DAY, DAY + timedelta(days=9)) != len(expected):
                    wrong.append(len(found))
            except Exception as error:
                wrong.append(error)
            reads.append(1)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for folder in log.folders.all():
        for hour in range(1, 5):
            log.folders.merge_hours(folder, folder.begins + timedelta(hours=hour))
            log.folders.sweep(folder, datetime.now(UTC))
        log.folders.merge_day(folder)
        log.folders.sweep(folder, datetime.now(UTC))
    before = len(reads)
    while len(reads) < before + 4:
        finished.wait(0.01)
    finished.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert len(reads) >= before + 4
    assert [len(log.files(DAY + timedelta(days=day))) for day in range(3)] == [1, 1, 1]


def test_a_file_that_only_looks_compacted_is_an_error_and_not_silently_read(tmp_path: Path) -> None:
    log = Log(str(tmp_path))
    name = log.segment(DAY)
    folder = tmp_path / "predictions" / "model=iris" / "date=2026-11-20"
    (folder / f"{name}.parquet").rename(folder / "day-0123456789abcdef.parquet")
    with pytest.raises(DataError, match="does not say what it replaces"):
        log.rows()
