"""The keeper's side of the spool, over files as a bento writes them."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import time
from pathlib import Path
from zlib import crc32

import msgspec
import pytest

from slipway.adapters.spool import Spool
from slipway.errors import DataError

HEADER = {"format": 1, "kind": "predictions", "model": "iris"}


def framed(payload: bytes) -> bytes:
    return struct.pack("<II", len(payload), crc32(payload)) + payload


def prediction(rows: int = 1) -> bytes:
    return msgspec.msgpack.encode((b"\1" * 16, 0, 0, False, [[1.0]] * rows, ["a"] * rows, None))


def write(folder: Path, name: str, *records: bytes, tail: bytes = b"", kind: str = "predictions") -> Path:
    path = folder / kind / "iris" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(framed(json.dumps(HEADER).encode()) + b"".join(map(framed, records)) + tail)
    return path


def test_sealed_segments_come_oldest_first_and_can_be_read_and_removed(tmp_path: Path) -> None:
    write(tmp_path, "20261121T000000.000000-1-b.seg", prediction())
    write(tmp_path, "20261120T000000.000000-1-a.seg", prediction(), prediction(2))
    write(tmp_path, "20261119T000000.000000-1-c.seg", b"label", kind="labels")
    spool = Spool(tmp_path)
    first, second, third = spool.sealed()
    assert [segment.name[:8] for segment in (first, second, third)] == ["20261119", "20261120", "20261121"]
    assert (first.kind, second.kind, second.model) == ("labels", "predictions", "iris")
    content = spool.read(second)
    assert (content.header, content.records, content.damaged) == (HEADER, (prediction(), prediction(2)), 0)
    spool.remove(second)
    spool.remove(second)
    assert spool.sealed() == [first, third]


@pytest.mark.parametrize("tail", [b"\1", b"\5\0\0\0\0\0\0\0abc", framed(b"abc")[:-1], b"\0" * 4096, b"\xff" * 100])
def test_an_abandoned_segment_is_cut_after_its_last_whole_record(tmp_path: Path, tail: bytes) -> None:
    path = write(tmp_path, "a.open", prediction(), prediction(), tail=tail)
    spool = Spool(tmp_path)
    [segment] = spool.salvage()
    assert not path.exists()
    content = spool.read(segment)
    assert (len(content.records), content.damaged) == (2, 0)


def test_a_segment_whose_writer_lives_is_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path, "a.open", prediction())
    spool = Spool(tmp_path)
    with path.open("r+b") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert spool.salvage() == []
        assert spool.sealed() == []
    assert len(spool.salvage()) == 1


def test_a_writers_stray_file_goes_when_it_is_old_and_nobodys(tmp_path: Path) -> None:
    fresh, old, held = (write(tmp_path, f"{name}.tmp") for name in ("fresh", "old", "held"))
    hour_ago = time.time() - 3600
    os.utime(old, (hour_ago, hour_ago))
    os.utime(held, (hour_ago, hour_ago))
    with held.open("r+b") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        Spool(tmp_path).salvage()
    assert [path.exists() for path in (fresh, old, held)] == [True, False, True]


def test_damage_in_a_sealed_segment_is_reported_and_kept(tmp_path: Path) -> None:
    path = write(tmp_path, "a.seg", prediction(), tail=framed(b"abc")[:-1] + b"x")
    spool = Spool(tmp_path)
    [segment] = spool.sealed()
    content = spool.read(segment)
    assert (len(content.records), content.damaged) == (1, 11)
    assert spool.set_aside(segment) == path.with_suffix(".damaged")
    assert spool.sealed() == []


def test_a_segment_without_a_header_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, "a.seg")
    path.write_bytes(b"\0" * 100)
    spool = Spool(tmp_path)
    with pytest.raises(DataError, match="no readable header"):
        spool.read(spool.sealed()[0])


def test_pending_rows_follow_what_is_written_sealed_and_shipped(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    assert spool.pending_rows() == {}
    path = write(tmp_path, "a.open", prediction(3))
    write(tmp_path, "b.seg", prediction())
    write(tmp_path, "c.seg", b"label", kind="labels")
    assert spool.pending_rows() == {"iris": 4}
    with path.open("ab") as writer:
        writer.write(framed(prediction(2)) + framed(prediction(5))[:-1])
        writer.flush()
        assert spool.pending_rows() == {"iris": 6}
        writer.write(framed(prediction(5))[-1:])
    assert spool.pending_rows() == {"iris": 11}
    spool.salvage()
    assert spool.pending_rows() == {"iris": 11}
    for segment in spool.sealed():
        spool.remove(segment)
    assert spool.pending_rows() == {}


def test_only_one_shipper_at_a_time(tmp_path: Path) -> None:
    with Spool(tmp_path).exclusive() as first, Spool(tmp_path).exclusive() as second:
        assert (first, second) == (True, False)
    with Spool(tmp_path).exclusive() as again:
        assert again
