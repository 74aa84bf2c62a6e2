"""Answered = logged: a real predictor's account against real segments and a real lake."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bento_cases import ROW, Client, write_iris
from contracts.tracker_twin import DecisionTwin
from predictor.config import Config
from predictor.engine import Engine
from predictor.tally import Tally
from slipway.adapters.lake import ParquetLake
from slipway.adapters.log_accounts import LogAccounts
from slipway.adapters.log_folders import LogFolders
from slipway.adapters.spool import Spool
from slipway.adapters.tally import Tallies
from slipway.cli import root
from slipway.jobs.log_status import LogStatus, log_status
from slipway.jobs.quarantine import quarantined_windows, record_check
from slipway.jobs.reconcile_log import HourCoverage, Reconciled, answered_rows, collect, cover, reconcile
from slipway.jobs.ship import ship
from slipway.settings import PROJECT_DIR, Settings
from slipway.spec import load_model
from slipway.wiring import Wiring

IRIS = load_model(PROJECT_DIR / "include" / "fleet", "iris")
HOUR = timedelta(hours=1)


class World:
    """One spool and one lake, with a bento that answers when it is told to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spool = Spool(folder / "spool")
        self.tallies = Tallies(folder / "spool")
        url = str(folder / "lake")
        self.lake, self.accounts, self.folders = ParquetLake(url), LogAccounts(url), LogFolders(url)
        self.decisions = DecisionTwin()
        self.now = datetime.now(UTC)

    def answer(self, requests: int = 10, rows: int = 2, *, shadow: bool = False, **config: Any) -> int:
        """Requests to a bento that starts, and stops gracefully; how many were answered."""
        values = {"slot": "blue", "spool_dir": self.folder / "spool", **config}
        headers = {"x_slipway_shadow": "1"} if shadow else {}
        statuses = []

        async def main() -> None:
            engine = Engine(Config(artefacts_dir=write_iris(self.folder / "artefacts"), **values))
            async with Client(engine).lifespan() as client:
                for _ in range(requests):
                    statuses.append((await client.post("/predict", {"rows": [ROW] * rows}, **headers)).status)

        asyncio.run(main())
        return statuses.count(200)

    def reconcile(self) -> Reconciled:
        return reconcile(
            IRIS,
            self.now - HOUR,
            datetime.now(UTC) + HOUR,
            tallies=self.tallies,
            accounts=self.accounts,
            lake=self.lake,
            decisions=self.decisions,
            waiting_since=self.spool.waiting_since("iris"),
            now=datetime.now(UTC),
        )

    def cover(self) -> list[HourCoverage]:
        return cover(
            "iris",
            self.now - HOUR,
            datetime.now(UTC) + HOUR,
            tallies=self.tallies,
            accounts=self.accounts,
            lake=self.lake,
            waiting_since=self.spool.waiting_since("iris"),
            waiting_rows=lambda: self.spool.pending_rows().get("iris", 0),
        )

    def status(self) -> LogStatus:
        parts: dict[str, Any] = {"spool": self.spool, "tallies": self.tallies, "accounts": self.accounts}
        return log_status("iris", lake=self.lake, folders=self.folders, now=datetime.now(UTC), **parts)

    def verdicts(self) -> list[str]:
        return [decision.verdict for decision in self.decisions.rows]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_everything_answered_and_shipped_is_complete(world: World) -> None:
    world.answer()
    world.answer(3, shadow=True)
    ship(world.spool, world.lake)
    done = world.reconcile()
    assert (done.answered, done.logged, done.missing, done.incomplete) == (20, 20, 0, [])
    assert world.verdicts() == []
    kept = world.accounts.coverage("iris", world.now - HOUR, world.now + HOUR)
    assert sum(row["answered"] for row in kept) == sum(row["logged"] for row in kept) == 20
    assert sum(row["shadow"] for row in kept) == 6
    assert {(row["coverage"], row["settled"]) for row in kept} == {(1.0, True)}


def test_what_still_waits_is_not_called_missing(world: World) -> None:
    world.answer()
    done = world.reconcile()
    assert (done.missing, done.unsettled_hours >= 1, done.incomplete, world.verdicts()) == (20, True, [], [])
    status = world.status()
    assert (status.answered_today, status.logged_today, status.pending_rows, status.missing_today) == (20, 0, 20, 0)
    assert status.oldest_seconds is not None
    assert 0 <= status.oldest_seconds < 60
    assert status.pending_bytes > 500


def test_rows_on_their_way_do_not_hold_a_window_back(world: World) -> None:
    world.answer()
    ship(world.spool, world.lake)
    world.answer(5)
    hours = world.cover()
    assert sum(hour.waiting for hour in hours) == 10
    assert sum(hour.missing for hour in hours) == 0
    assert answered_rows(hours, 20) == 20


def test_a_segment_that_vanished_quarantines_its_hour_and_holds_the_window_back(world: World) -> None:
    world.answer()
    ship(world.spool, world.lake)
    world.answer(5)
    for segment in world.spool.sealed():
        segment.path.unlink()
    done = world.reconcile()
    assert (done.answered, done.logged, done.missing) == (30, 20, 10)
    assert done.incomplete == done.found != []
    [window] = quarantined_windows(world.decisions, "iris")
    assert window.start <= world.now + HOUR
    assert window.end - window.start == HOUR
    logged = world.lake.count_predictions("iris", world.now - HOUR, world.now + HOUR)
    assert answered_rows(world.cover(), logged) == 30
    assert world.status().missing_today == 10
    again = world.reconcile()
    assert (again.incomplete, again.found, len(world.verdicts())) == (done.incomplete, [], 1)


def test_an_hour_whose_rows_come_late_is_released_again(world: World) -> None:
    world.answer()
    [segment] = world.spool.sealed()
    aside = segment.path.rename(world.folder / "aside")
    assert world.reconcile().found
    aside.rename(segment.path)
    ship(world.spool, world.lake)
    done = world.reconcile()
    assert (done.missing, done.incomplete) == (0, [])
    assert world.verdicts() == ["quarantined", "passed"]
    assert list(quarantined_windows(world.decisions, "iris")) == []


def test_an_hour_that_failed_its_data_checks_is_not_released_by_its_coverage(world: World) -> None:
    world.answer()
    [segment] = world.spool.sealed()
    aside = segment.path.rename(world.folder / "aside")
    world.reconcile()
    [window] = quarantined_windows(world.decisions, "iris")
    span = {"start": window.start.isoformat(), "end": window.end.isoformat()}
    record_check(world.decisions, "iris", f"window:{window.name}", "quarantined", ("nulls",), span, world.now)
    aside.rename(segment.path)
    ship(world.spool, world.lake)
    assert world.reconcile().incomplete == []
    assert list(quarantined_windows(world.decisions, "iris")) == [window]


def test_rows_that_the_bento_lost_knowingly_are_missing_too(world: World) -> None:
    answered = world.answer(60, spool_max_bytes=9000, spool_when_full="serve")
    ship(world.spool, world.lake)
    done = world.reconcile()
    assert answered == 60
    assert done.answered == 120
    assert 0 < done.lost == done.missing == 120 - done.logged
    assert done.incomplete


def test_refused_rows_are_counted_and_not_missing(world: World) -> None:
    answered = world.answer(60, spool_max_bytes=9000, spool_when_full="refuse")
    ship(world.spool, world.lake)
    done = world.reconcile()
    assert done.answered == done.logged == 2 * answered < 120
    assert (done.refused, done.missing, done.incomplete) == (120 - done.answered, 0, [])
    assert world.status().refused_today == done.refused


def test_counts_move_into_the_lake_once_and_stay_the_same(world: World) -> None:
    world.answer()
    world.answer(5)
    ship(world.spool, world.lake)
    before = world.cover()
    assert collect(world.tallies, world.accounts) == 2
    assert world.tallies.read() == []
    assert world.cover() == before
    assert collect(world.tallies, world.accounts) == 0
    assert sum(hour.answered for hour in before) == 30


def test_a_crash_between_keeping_and_deleting_a_tally_counts_it_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.answer()
    before = world.cover()
    with monkeypatch.context() as patch:
        patch.setattr(world.tallies, "remove", lambda tally: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            collect(world.tallies, world.accounts)
    assert world.cover() == before
    assert collect(world.tallies, world.accounts) == 1
    assert world.cover() == before


def test_a_living_process_keeps_its_tally(world: World) -> None:
    tally = Tally(world.folder / "spool" / "tally" / "iris", {"model": "iris", "version": "1", "slot": "blue"})
    tally.answered(int(world.now.timestamp() * 1e6), 4)
    assert collect(world.tallies, world.accounts) == 0
    assert sum(hour.answered for hour in world.cover()) == 4
    tally.close()
    assert collect(world.tallies, world.accounts) == 1


def test_a_window_without_an_account_is_not_judged_by_it(world: World) -> None:
    assert answered_rows(world.cover(), 17) is None


def test_a_damaged_segment_is_shown(world: World) -> None:
    world.answer()
    [segment] = world.spool.sealed()
    segment.path.write_bytes(b"\0" * 100)
    ship(world.spool, world.lake)
    status = world.status()
    assert (status.damaged_segments, status.missing_today, status.pending_rows) == (1, 20, 0)


def test_the_command_shows_every_model(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.answer()
    ship(world.spool, world.lake)
    wired = Wiring(Settings(home=world.folder))
    monkeypatch.setattr("slipway.wiring.wiring", lambda: wired)
    shown = CliRunner().invoke(root, ["log", "status"])
    assert shown.exit_code == 0, shown.output
    assert "20 rows answered, 20 in the lake, none missing" in shown.output
    rows = [json.loads(line) for line in CliRunner().invoke(root, ["log", "status", "--json"]).output.splitlines()]
    iris = next(row for row in rows if row["model"] == "iris")
    assert (iris["answered_today"], iris["files_shipped"], iris["oldest_seconds"]) == (20, 1, None)


def test_the_watch_asks_for_what_was_answered_once_the_log_is_there(world: World) -> None:
    world.answer()
    wired = Wiring(Settings(home=world.folder, keeper_interval_seconds=0.01))
    until = datetime.now(UTC)
    assert wired._answered_rows("iris", world.now - HOUR, until) == 20
    assert wired.lake.count_predictions("iris", world.now - HOUR, until) == 20
    assert wired._answered_rows("house", world.now - HOUR, until) is None
