"""What the log promises, while processes die and disks fill up; the whole proof is `make faults-log`."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bento_cases import ROW
from contracts.services import eventually
from faults.log_parts import Bento
from faults.log_run import run
from slipway.adapters.lake import ParquetLake
from slipway.adapters.log_accounts import LogAccounts
from slipway.adapters.spool import Spool
from slipway.adapters.tally import Tallies
from slipway.jobs.reconcile_log import cover
from slipway.jobs.ship import ship

pytestmark = pytest.mark.services


def test_every_answered_row_is_in_the_lake_once_whatever_is_killed(tmp_path: Path) -> None:
    outcome = run(tmp_path, predictions=4000, kills=10, seed=7)
    assert outcome.faults() == {}
    assert outcome.answered_requests >= 4000
    assert sum(outcome.kills.values()) == 10
    assert outcome.reads > 5


class Disk:
    """A file system of a few hundred kilobytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def grow(self) -> None:
        subprocess.run(["mount", "-o", "remount,size=64m", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "slipway-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small file system")
    yield Disk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def serving(folder: Path, spool: Path, prefix: Sequence[str] = (), **extra: str) -> Iterator[Bento]:
    bento = Bento(folder, spool, **extra)
    bento.prefix = list(prefix)
    bento.ensure()
    try:
        eventually(lambda: get(bento, "/readyz")[0] == 200, 30, "the bento")
        yield bento
    finally:
        bento.stop()


def get(bento: Bento, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(f"http://127.0.0.1:{bento.port}{path}", body, headers)
    if body is not None:
        request.add_header("content-type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def ask(bento: Bento, answered: list[str]) -> int:
    """One request of 50 rows; its id is remembered if it is answered."""
    request_id = str(uuid.uuid4())
    body = json.dumps({"rows": [ROW] * 50}).encode()
    status, _ = get(bento, "/predict/iris", body, **{"x-request-id": request_id})
    if status == 200:
        answered.append(request_id)
    return status


def metric(bento: Bento, name: str) -> float:
    for line in get(bento, "/metrics")[1].decode().splitlines():
        if line.startswith(name + "{"):
            return float(line.rpartition(" ")[2])
    raise AssertionError(f"no metric {name}")


def window() -> tuple[datetime, datetime]:
    now = datetime.now(UTC)
    return now - timedelta(hours=2), now + timedelta(hours=2)


def accounted(spool: Path, lake: Path) -> dict[str, int]:
    parts = {"tallies": Tallies(spool), "accounts": LogAccounts(str(lake)), "lake": ParquetLake(str(lake))}
    hours = cover("iris", *window(), waiting_since=None, **parts)  # type: ignore[arg-type]
    names = ("answered", "logged", "lost", "refused", "missing")
    return {name: sum(getattr(hour, name) for hour in hours) for name in names}


def test_a_full_disk_refuses_and_recovers_and_nothing_answered_is_missing(tmp_path: Path, disk: Disk) -> None:
    answered: list[str] = []
    with serving(tmp_path, disk.folder, SLIPWAY_SPOOL_SEGMENT_MAX_BYTES="65536") as bento:
        statuses = [ask(bento, answered) for _ in range(100)]
        assert set(statuses) == {200, 503}
        assert statuses[-1] == 503
        refused = statuses.count(503)
        assert metric(bento, "prediction_log_refused_rows_total") == 50 * refused
        assert metric(bento, "prediction_errors_total") == refused
        ship(Spool(disk.folder), ParquetLake(str(tmp_path / "lake")))
        eventually(lambda: ask(bento, answered) == 200, 20, "room for more")
    ship(Spool(disk.folder), ParquetLake(str(tmp_path / "lake")))
    frame = ParquetLake(str(tmp_path / "lake")).predictions("iris", *window())
    assert frame.groupby("request_id").size().to_dict() == dict.fromkeys(answered, 50)
    account = accounted(disk.folder, tmp_path / "lake")
    assert account["answered"] == account["logged"] == 50 * len(answered)
    assert account["refused"] >= 50 * refused
    assert (account["missing"], account["lost"]) == (0, 0)


def test_a_full_disk_serves_on_if_told_to_and_every_lost_row_is_counted(tmp_path: Path, disk: Disk) -> None:
    answered: list[str] = []
    settings = {"SLIPWAY_SPOOL_SEGMENT_MAX_BYTES": "65536", "SLIPWAY_SPOOL_WHEN_FULL": "serve"}
    with serving(tmp_path, disk.folder, **settings) as bento:
        assert {ask(bento, answered) for _ in range(100)} == {200}
        lost = metric(bento, "prediction_log_lost_rows_total")
        assert lost > 0
    ship(Spool(disk.folder), ParquetLake(str(tmp_path / "lake")))
    frame = ParquetLake(str(tmp_path / "lake")).predictions("iris", *window())
    assert not frame.duplicated(["request_id", "row"]).any()
    assert set(frame["request_id"]) <= set(answered)
    account = accounted(disk.folder, tmp_path / "lake")
    assert (account["answered"], account["logged"]) == (5000, len(frame))
    assert account["lost"] == account["missing"] == lost == 5000 - len(frame)


def test_a_file_system_that_takes_no_more_of_a_file_refuses_until_the_next_segment(tmp_path: Path) -> None:
    """A limit on the size of files stands for any write that fails half way; no root needed."""
    limit = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))"
    prefix = [sys.executable, "-c", f"{limit}; os.execv(sys.argv[1], sys.argv[1:])"]
    answered: list[str] = []
    settings = {"SLIPWAY_SPOOL_SEGMENT_MAX_AGE_SECONDS": "1.5", "PYTHONDONTWRITEBYTECODE": "1"}
    with serving(tmp_path, tmp_path / "spool", prefix, **settings) as bento:
        eventually(lambda: ask(bento, answered) == 503, 10, "a refusal")
        before = len(answered)
        eventually(lambda: ask(bento, answered) == 200, 10, "the next segment")
        refused = metric(bento, "prediction_log_refused_rows_total")
    assert before >= 5
    assert refused >= 50
    assert ship(Spool(tmp_path / "spool"), ParquetLake(str(tmp_path / "lake"))).problems == []
    frame = ParquetLake(str(tmp_path / "lake")).predictions("iris", *window())
    assert frame.groupby("request_id").size().to_dict() == dict.fromkeys(answered, 50)
    account = accounted(tmp_path / "spool", tmp_path / "lake")
    assert (account["answered"], account["refused"]) == (account["logged"], refused)


def test_a_lake_on_a_full_disk_keeps_the_segments_until_there_is_room(tmp_path: Path, disk: Disk) -> None:
    answered: list[str] = []
    with serving(tmp_path, tmp_path / "spool", SLIPWAY_SPOOL_SEGMENT_MAX_BYTES="65536") as bento:
        assert {ask(bento, answered) for _ in range(200)} == {200}
    spool, lake = Spool(tmp_path / "spool"), ParquetLake(str(disk.folder / "lake"))
    waiting = len(spool.sealed())
    (disk.folder / "ballast").write_bytes(b"\1" * (disk_free(disk.folder) - 16_000))
    result = ship(spool, lake)
    assert result.problems
    assert "No space left" in result.problems[0]
    assert len(spool.sealed()) == waiting - result.segments > 0
    disk.grow()
    assert ship(spool, lake).problems == []
    frame = lake.predictions("iris", *window())
    assert frame.groupby("request_id").size().to_dict() == dict.fromkeys(answered, 50)
    assert spool.waiting_since() is None


def disk_free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def test_a_full_spool_refuses_until_it_is_shipped(tmp_path: Path) -> None:
    """The bound of the spool itself, on a disk with room."""
    answered: list[str] = []
    limits = {"SLIPWAY_SPOOL_MAX_BYTES": "100000", "SLIPWAY_SPOOL_SEGMENT_MAX_BYTES": "20000"}
    with serving(tmp_path, tmp_path / "spool", **limits) as bento:
        statuses = [ask(bento, answered) for _ in range(60)]
        refused = statuses.count(503)
        assert 0 < refused < 60
        assert metric(bento, "prediction_log_refused_rows_total") == 50 * refused
        ship(Spool(tmp_path / "spool"), ParquetLake(str(tmp_path / "lake")))
        eventually(lambda: ask(bento, answered) == 200, 20, "room for more")
    ship(Spool(tmp_path / "spool"), ParquetLake(str(tmp_path / "lake")))
    account = accounted(tmp_path / "spool", tmp_path / "lake")
    assert account["answered"] == account["logged"] == 50 * len(answered)
    assert account["missing"] == account["lost"] == 0
