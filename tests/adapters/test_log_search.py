"""One request is found where it is: in the spool, in the lake as shipped, in the lake compacted."""

from __future__ import annotations

import json
import struct
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zlib import crc32

import msgspec
import pytest

from slipway.adapters.lake import ParquetLake
from slipway.adapters.log_folders import LogFolders
from slipway.adapters.log_search import LogSearch
from slipway.adapters.spool import Spool
from slipway.errors import DataError
from slipway.jobs.ship import ship

NOW = datetime.now(UTC).replace(microsecond=0)
HEADER = {
    "format": 1,
    "kind": "predictions",
    "model": "iris",
    "version": "3",
    "slot": "green",
    "features": ["width"],
    "feature_kinds": ["number"],
    "task": "classification",
}


def uuid7(at: datetime) -> uuid.UUID:
    value = (int(at.timestamp() * 1000) << 80) | (uuid.uuid4().int & ((1 << 80) - 1))
    return uuid.UUID(int=value & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62)


def segment(folder: Path, name: str, *records: list[object]) -> None:
    frames = [json.dumps(HEADER).encode(), *(msgspec.msgpack.encode(record) for record in records)]
    path = folder / "spool" / "predictions" / "iris" / f"{name}.seg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(struct.pack("<II", len(frame), crc32(frame)) + frame for frame in frames))


def record(request_id: uuid.UUID, at: datetime = NOW, rows: int = 1, *, shadow: bool = False) -> list[object]:
    predictions = ["setosa"] * rows
    return [request_id.bytes, int(at.timestamp() * 1e6), 1500, shadow, [[1.0]] * rows, predictions, None]


@pytest.fixture
def search(tmp_path: Path) -> LogSearch:
    return LogSearch(str(tmp_path / "lake"), Spool(tmp_path / "spool"))


def test_a_request_is_found_in_the_spool_and_then_in_the_lake(search: LogSearch, tmp_path: Path) -> None:
    own, clients = uuid7(NOW), uuid.uuid4()
    segment(tmp_path, "a", record(own, rows=2), record(clients), record(uuid.uuid4()))
    for where in ("spool", "lake"):
        for wanted, rows in ((own, 2), (clients, 1)):
            (found,) = search.find(str(wanted).upper())
            assert (found["where"], found["rows"], found["predictions"]) == (where, rows, ["setosa"] * rows)
            assert (found["model"], found["version"], found["slot"]) == ("iris", "3", "green")
            assert (found["shadow"], found["at"], found["latency_ms"]) == (False, NOW, 1.5)
        ship(Spool(tmp_path / "spool"), ParquetLake(str(tmp_path / "lake")))
    folders = LogFolders(str(tmp_path / "lake"))
    assert sum(folders.merge_day(folder) for folder in folders.all()) >= 0
    assert len(search.find(str(own))) == 1


def test_an_old_request_is_found_and_the_shadows_answer_beside_it(search: LogSearch, tmp_path: Path) -> None:
    then = NOW - timedelta(days=40)
    own, clients = uuid7(then), uuid.uuid4()
    segment(tmp_path, "a", record(own, then), record(own, then, shadow=True), record(clients, then))
    segment(tmp_path, "b", record(uuid.uuid4()))
    ship(Spool(tmp_path / "spool"), ParquetLake(str(tmp_path / "lake")))
    assert sorted(found["shadow"] for found in search.find(str(own))) == [False, True]
    assert len(search.find(str(clients))) == 1
    assert search.find(str(uuid.uuid4())) == []


def test_what_is_no_id_is_refused(search: LogSearch) -> None:
    with pytest.raises(DataError, match="x-request-id"):
        search.find("12")
