"""The log's nightly work as the DAG calls it, over real Postgres."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bento_cases import ROW, Client, write_iris
from predictor.config import Config
from predictor.engine import Engine
from slipway.adapters.postgres import Database
from slipway.errors import ConflictError
from slipway.jobs.quarantine import quarantined_windows
from slipway.settings import Settings
from slipway.wiring import Wiring

pytestmark = pytest.mark.services


@pytest.fixture
def wired(tmp_path: Path, database_url: str) -> Wiring:
    made = Wiring(Settings(home=tmp_path))
    made.database = Database(database_url)
    return made


def answer(wired: Wiring, hours_ago: int, monkeypatch: pytest.MonkeyPatch, requests: int = 5) -> None:
    """Let a bento answer as it would have `hours_ago` hours ago."""
    home = wired.settings.home
    config = Config(artefacts_dir=write_iris(home / "artefacts"), slot="blue", spool_dir=wired.settings.spool_dir)
    at = datetime.now(UTC).replace(minute=30) - timedelta(hours=hours_ago)

    async def main() -> None:
        async with Client(Engine(config)).lifespan() as client:
            for _ in range(requests):
                assert (await client.post("/predict", ROW)).status == 200

    with monkeypatch.context() as patch:
        patch.setattr("predictor.log.time.time_ns", lambda: int(at.timestamp() * 1e9))
        asyncio.run(main())


def test_a_night_quarantines_what_is_incomplete_and_compacts_the_rest(
    wired: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    from slipway.jobs.ship import ship

    for hours_ago in (30, 30, 29):
        answer(wired, hours_ago, monkeypatch)
    ship(wired.spool, wired.lake)
    answer(wired, 28, monkeypatch, requests=7)
    for segment in wired.spool.sealed():
        segment.path.unlink()

    iris = next(one for one in wired.reconcile_log() if one["model"] == "iris")
    assert (iris["answered"], iris["logged"], iris["missing"], len(iris["found"])) == (22, 15, 7, 1)
    assert wired.tallies.read() == []
    [window] = quarantined_windows(wired.decision_log, "iris")
    assert window.end - window.start == timedelta(hours=1)
    again = next(one for one in wired.reconcile_log() if one["model"] == "iris")
    assert (again["missing"], again["found"]) == (7, [])

    monkeypatch.setattr("slipway.wiring.learning.time.sleep", lambda _: None)
    now = datetime.now(UTC)
    monkeypatch.setattr("slipway.wiring.learning.now_utc", lambda: now + timedelta(days=2))
    done = wired.compact_log()
    assert done["problems"] == []
    assert done["days"] >= 1
    assert wired.lake.count_predictions("iris", now - timedelta(days=3), now) == 15
    assert wired.log_folders.count("iris").shipped <= 1


def test_two_compactions_do_not_run_at_a_time(wired: Wiring, database_url: str) -> None:
    other = Database(database_url)
    wired.database.lock = lambda name, wait_seconds=0.1: Database.lock(wired.database, name, 0.1)  # type: ignore[method-assign]
    with other.lock("log_compaction"), pytest.raises(ConflictError):
        wired.compact_log()
    assert wired.compact_log()["busy"] is False
