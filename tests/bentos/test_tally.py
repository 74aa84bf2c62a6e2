"""The account of answered rows: kept by the hour, over dates, over kills and over full disks."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bento_cases import ROW, Client, Serve
from predictor.tally import LABELS, LOST, REFUSED, SHADOW, Tally
from slipway.adapters.tally import Tallies

HOUR = 3_600_000_000
MIDNIGHT = 20_000 * 24 * HOUR
HEADER = {"format": 1, "model": "iris", "version": "3", "slot": "blue"}


def counted(folder: Path) -> dict[tuple[str, int], dict[str, int]]:
    """By date and hour, over all files."""
    result: dict[tuple[str, int], dict[str, int]] = {}
    for found in Tallies(folder).read():
        for hour in found.hours:
            cell = result.setdefault((found.date.isoformat(), hour.hour), {})
            for name, number in hour.counts.items():
                cell[name] = cell.get(name, 0) + number
    return result


def test_counts_are_kept_by_the_hour_of_the_record(tmp_path: Path) -> None:
    tally = Tally(tmp_path / "tally" / "iris", HEADER)
    tally.answered(MIDNIGHT - 1, 2)
    tally.answered(MIDNIGHT, 3)
    tally.answered(MIDNIGHT + HOUR, 5)
    tally.answered(MIDNIGHT - 1, 7)
    for counter, number in ((LOST, 1), (REFUSED, 2), (SHADOW, 3), (LABELS, 4)):
        tally.add(counter, MIDNIGHT + HOUR, number)
    assert counted(tmp_path) == {
        ("2024-10-03", 23): {"requests": 2, "answered": 9, "lost": 0, "refused": 0, "shadow": 0, "labels": 0},
        ("2024-10-04", 0): {"requests": 1, "answered": 3, "lost": 0, "refused": 0, "shadow": 0, "labels": 0},
        ("2024-10-04", 1): {"requests": 1, "answered": 5, "lost": 1, "refused": 2, "shadow": 3, "labels": 4},
    }


def test_a_former_date_is_let_go_after_an_hour(tmp_path: Path) -> None:
    tally = Tally(tmp_path / "tally" / "iris", HEADER)
    tally.answered(MIDNIGHT - 1, 1)
    tally.answered(MIDNIGHT, 1)

    def closed() -> list[bool]:
        return [found.closed for found in Tallies(tmp_path).read()]

    tally.tick(MIDNIGHT + HOUR - 1)
    assert closed() == [False, False]
    tally.tick(MIDNIGHT + HOUR)
    assert closed() == [True, False]
    tally.sync()
    tally.close()
    assert closed() == [True, True]


def test_a_disk_without_room_for_the_file_is_said_and_the_counts_are_filed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tally = Tally(tmp_path / "tally" / "iris", HEADER)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("predictor.tally.os.posix_fallocate", full)
        with pytest.raises(OSError, match="No space"):
            tally.open(MIDNIGHT)
        tally.answered(MIDNIGHT, 5)
        tally.tick(MIDNIGHT)
        assert not list(tmp_path.rglob("*.t*"))
    tally.tick(MIDNIGHT)
    assert counted(tmp_path)["2024-10-04", 0]["answered"] == 5


def test_counts_survive_kill_9(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from predictor.tally import Tally\n"
        f"tally = Tally(pathlib.Path(sys.argv[1]), {HEADER!r})\n"
        f"for _ in range(1000): tally.answered({MIDNIGHT}, 3)\n"
        "print(flush=True); input()\n"
    )
    folder = tmp_path / "tally" / "iris"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "bentos")}
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        [path] = folder.iterdir()
        with path.open("rb") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        process.send_signal(signal.SIGKILL)
    [found] = Tallies(tmp_path).read()
    assert (found.closed, found.model, found.slot) == (True, "iris", "blue")
    assert counted(tmp_path)["2024-10-04", 0]["answered"] == 3000


@pytest.mark.parametrize("policy", ["refuse", "serve"])
def test_what_is_answered_lost_and_refused_is_all_in_the_account(serve: Serve, tmp_path: Path, policy: str) -> None:
    seen: dict[str, float] = {}

    async def scenario(client: Client) -> None:
        for _ in range(60):
            await client.post("/predict", {"rows": [ROW, ROW]})
        await client.post("/predict", ROW, x_slipway_shadow="1")
        for name in ("prediction_rows_total", "prediction_log_lost_rows_total", "prediction_log_refused_rows_total"):
            seen[name] = await client.metric(name)

    serve(scenario, spool_max_bytes=9000, spool_when_full=policy)
    totals: dict[str, int] = {}
    for cell in counted(tmp_path / "spool").values():
        for name, number in cell.items():
            totals[name] = totals.get(name, 0) + number
    assert totals["answered"] == seen["prediction_rows_total"]
    assert totals["lost"] == seen["prediction_log_lost_rows_total"]
    assert totals["refused"] == seen["prediction_log_refused_rows_total"]
    assert (totals["refused"] > 0, totals["lost"] > 0) == (policy == "refuse", policy == "serve")
    assert totals["answered"] + totals["refused"] - (1 if policy == "refuse" else 0) == 120


def test_no_row_is_answered_without_an_account_when_the_policy_is_to_refuse(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def scenario(client: Client) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("predictor.tally.os.posix_fallocate", full)
            assert (await client.post("/predict", ROW)).status == 503
        assert (await client.post("/predict", ROW)).status == 200

    serve(scenario)
