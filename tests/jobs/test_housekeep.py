"""Housekeeping removes what nothing reaches, never anything live, and may be killed anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from contracts.tracker_twin import DecisionTwin
from contracts.twins import fault_hook
from contracts.world import QUICK, World
from slipway.core.reach import Stored
from slipway.core.rollout_record import Phase
from slipway.errors import RegistryError
from slipway.jobs.housekeep import Housekeeping, housekeep
from slipway.jobs.shelves import Shelves
from slipway.ports import Decision, ModelVersion, Slot

pytestmark = pytest.mark.services
DAY = timedelta(days=1)


def sha(version: str) -> str:
    return version.zfill(2) * 32


@dataclass
class House:
    """Bentos, versions, runs, data sets and reports of `iris`, all in memory."""

    world: World
    bentos: dict[str, datetime] = field(default_factory=dict)
    versions: dict[str, ModelVersion] = field(default_factory=dict)
    runs: dict[str, Stored] = field(default_factory=dict)
    data: dict[str, datetime] = field(default_factory=dict)
    reports: dict[str, datetime] = field(default_factory=dict)
    accounts: dict[str, datetime] = field(default_factory=dict)
    logs: dict[str, Stored] = field(default_factory=dict)
    damaged: dict[str, Stored] = field(default_factory=dict)
    decisions: DecisionTwin = field(default_factory=DecisionTwin)
    down: bool = False
    marked: set[str] = field(default_factory=set)

    def make(self, version: str) -> None:
        """A version as training and packaging leave it."""
        now = self.world.clock.now()
        tags = {"slipway.snapshot": sha(version), "slipway.key": f"key-{version}"}
        self.bentos[version] = self.data[sha(version)] = now
        self.versions[version] = ModelVersion("iris", version, f"run-{version}", now, (), tags)
        for name in (f"run-{version}", f"loser-{version}"):
            self.runs[name] = Stored("iris", name, now, 0, tags)

    def release(self, version: str) -> None:
        self.make(version)
        self.world.release(version)

    def keep(
        self, *, dry_run: bool = False, grace: timedelta = timedelta(0), keep_for: timedelta = DAY
    ) -> Housekeeping:
        files = _Files(self.logs), _Files(self.damaged)
        shelves = Shelves(_Bentos(self), _Runs(self), _Lake(self), *files, self.decisions)
        return housekeep(self.world.parts, shelves, {"iris": 3}, grace=grace, keep_for=keep_for, dry_run=dry_run)

    def everything(self) -> list[list[str]]:
        kinds: list[Any] = [self.bentos, self.versions, self.runs, self.data, self.reports, self.accounts]
        return [sorted(kind) for kind in (*kinds, self.logs, self.damaged)]


@dataclass
class _Bentos:
    house: House

    def all(self) -> list[Stored]:
        return [Stored("iris", version, at, 10) for version, at in self.house.bentos.items()]

    def remove(self, model: str, version: str) -> None:
        self.house.bentos.pop(version, None)

    def sweep(self) -> None:
        pass


@dataclass
class _Runs:
    house: House

    def versions(self, model: str) -> list[ModelVersion]:
        if self.house.down:
            raise RegistryError("MLflow does not answer")
        aliases = {to: (alias,) for (_, alias), to in self.house.world.registry.aliases.items()}
        return [replace(one, aliases=aliases.get(one.version, ())) for one in self.house.versions.values()]

    def runs(self, model: str) -> list[Stored]:
        return [run for run in self.house.runs.values() if run.name not in self.house.marked]

    def remove_version(self, model: str, version: str) -> None:
        self.house.versions.pop(version, None)

    def remove_run(self, run_id: str) -> None:
        self.house.marked.add(run_id)

    def purge(self, model: str) -> int:
        gone = [self.house.runs.pop(run_id) for run_id in self.house.marked & set(self.house.runs)]
        return len(gone)


@dataclass
class _Lake:
    house: House

    def _kind(self, kind: str) -> dict[str, datetime]:
        return {"data set": self.house.data, "report": self.house.reports, "account": self.house.accounts}[kind]

    def _all(self, kind: str) -> list[Stored]:
        return [Stored("iris", name, at, 1) for name, at in self._kind(kind).items()]

    def data_sets(self, model: str) -> list[Stored]:
        return self._all("data set")

    def reports(self, model: str) -> list[Stored]:
        return self._all("report")

    def accounts(self, model: str) -> list[Stored]:
        return self._all("account")

    def remove(self, kind: str, model: str, name: str) -> None:
        self._kind(kind).pop(name, None)


@dataclass
class _Files:
    files: dict[str, Stored]

    def all(self) -> list[Stored]:
        return list(self.files.values())

    def remove(self, name: str) -> None:
        self.files.pop(name, None)


@pytest.fixture
def house(world: World) -> House:
    made = House(world)
    for version in "123456":
        made.release(version)
    made.world.clock.sleep(40 * 86400)
    made.world.releases.reconcile()  # what was kept warm stops
    return made


def test_the_live_version_and_the_last_three_stay_with_all_that_they_need(house: House) -> None:
    done = house.keep()
    assert done.problems == []
    assert sorted(house.bentos) == sorted(house.versions) == ["3", "4", "5", "6"]
    assert sorted(house.runs) == sorted([*(f"run-{v}" for v in "3456"), *(f"loser-{v}" for v in "3456")])
    assert sorted(house.data) == [sha(v) for v in "3456"]
    assert done.purged_runs == 4
    assert house.keep().items == []
    for version in ("5", "4", "3"):
        assert house.world.releases.rollback("iris", version, actor="ops", reason="try").what == "rolled_back"


def test_a_dry_run_lists_the_same_and_removes_nothing(house: House) -> None:
    before = house.everything()
    planned = house.keep(dry_run=True)
    assert house.everything() == before
    done = house.keep()
    assert [(i.kind, i.name) for i in done.items] == [(i.kind, i.name) for i in planned.items]
    assert planned.bytes == done.bytes > 0


def test_what_is_young_stays(house: House) -> None:
    house.make("7")
    house.make("8")
    house.world.begin("7", QUICK)
    house.world.releases.abort("iris", actor="ops", reason="no")
    house.keep(grace=DAY)
    assert {"7", "8"} <= set(house.bentos)
    house.world.clock.sleep(2 * 86400)
    house.keep(grace=DAY)
    assert "7" not in house.bentos, "its rollout was aborted"
    assert "8" in house.bentos, "it waits for its release"


def test_a_rollout_keeps_both_of_its_versions(house: House) -> None:
    house.make("7")
    house.world.begin("7", QUICK)
    for phase in (Phase.STARTING, Phase.VERIFYING, Phase.SHIFTING, Phase.BAKING, Phase.PROMOTING):
        house.world.until(phase)
        house.keep()
        assert {"6", "7"} <= set(house.bentos), phase


def test_a_slot_that_runs_keeps_its_version_whatever_the_tables_say(house: House) -> None:
    house.world.runtime.start(Slot("iris", "blue", 1), replace(house.world.packager.build("iris", "1")))
    house.keep()
    assert "1" in house.bentos


def test_any_alias_keeps_a_version(house: House) -> None:
    house.world.registry.aliases["iris", "challenger"] = "2"
    house.keep()
    assert "2" in house.versions
    assert "run-2" in house.runs
    assert sha("2") in house.data


def test_recent_decisions_keep_what_they_refer_to(house: House) -> None:
    now = house.world.clock.now()
    recent = Decision("a", "iris", "gate", "fail", (), {"run_id": "loser-1"}, now)
    old = Decision("b", "iris", "gate", "fail", (), {"run_id": "loser-2"}, now - 3 * DAY)
    checked = Decision("c", "iris", "data", "passed", (), {"sha256": sha("2")}, now - 9 * DAY)
    house.decisions.rows = [recent, old, checked]
    house.keep()
    assert "loser-1" in house.runs
    assert "loser-2" not in house.runs
    assert {sha("1"), sha("2")} <= set(house.data), "of a recent decision, and the newest that passed its checks"


def test_without_the_registry_nothing_that_depends_on_it_goes(house: House) -> None:
    before = house.everything()
    house.down = True
    done = house.keep()
    assert "nothing that depends on it was removed" in done.problems[0]
    assert house.everything() == before


def test_old_reports_accounts_and_logs_of_idle_slots_go(house: House) -> None:
    now = house.world.clock.now()
    house.reports = {"drift-old": now - 2 * DAY, "drift-new": now, f"data-{sha('6')[:12]}": now - 99 * DAY}
    page = f"gate-{house.versions['6'].run_id[:12]}-against-v5-drift"  # as long as its version
    house.reports |= {page: now - 99 * DAY, "gate-0123456789ab-against-v5-drift": now - 99 * DAY}
    house.accounts = {"2026-11-20": now - 2 * DAY, "2026-12-30": now}
    live = house.world.parts.store.traffic_of("iris").live_slot
    idle = "blue" if live == "green" else "green"
    for slot in ("blue", "green"):
        house.logs[slot] = Stored("iris", slot, now - 2 * DAY, 5, {"slot": slot})
    house.keep()
    assert sorted(house.reports) == sorted(["drift-new", f"data-{sha('6')[:12]}", page])
    assert sorted(house.accounts) == ["2026-12-30"]
    assert idle not in house.logs
    assert live in house.logs


def test_damaged_segments_go_when_a_person_had_the_time_to_look(house: House) -> None:
    now = house.world.clock.now()
    for name, at in (("old", now - 2 * DAY), ("new", now)):
        house.damaged[name] = Stored("iris", name, at, 5)
    planned = house.keep(dry_run=True).items
    assert sorted(house.damaged) == ["new", "old"]
    assert [(one.name, one.bytes) for one in planned if one.kind == "damaged segment"] == [("old", 5)]
    assert house.keep().items == planned
    assert sorted(house.damaged) == ["new"]


class _KilledError(Exception):
    pass


def test_killed_after_any_removal_the_next_run_finishes(house: House) -> None:
    whole = len(house.keep(dry_run=True).items)
    assert whole > 5
    for killed in range(whole + 1):
        seen: list[str] = []

        def hook(name: str, seen: list[str] = seen) -> None:
            seen.append(name)
            raise _KilledError

        with fault_hook(hook):
            try:
                house.keep()
            except _KilledError:
                continue
        assert killed == whole, "each run got exactly one item further"
        break
    assert sorted(house.bentos) == ["3", "4", "5", "6"]
    assert house.keep().items == []
    assert sorted(house.runs) == sorted([*(f"run-{v}" for v in "3456"), *(f"loser-{v}" for v in "3456")])


def test_a_month_of_nightly_releases_stays_bounded(world: World) -> None:
    made = House(world)
    for night in range(30):
        made.release(str(night + 1))
        world.clock.sleep(86400)
        world.releases.reconcile()
        made.keep(keep_for=7 * DAY)
        assert len(made.bentos) <= 4
        assert len(made.data) <= 4
        assert len(made.runs) <= 8
    assert world.releases.kept_versions("iris") == ["29", "28", "27"]


def test_the_shelves_on_disk(tmp_path: Path) -> None:
    from slipway.adapters.shelves import BentoStore, DamagedSegments, LakeStore, SlotLogs
    from slipway.adapters.spool import Spool

    for version in ("1", "2"):
        folder = tmp_path / "bentos" / "iris" / f"v{version}" / "src"
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(b"x" * 100)
    (tmp_path / "bentos" / "iris" / "latest").write_text("v2")
    (tmp_path / "digests").mkdir()
    (tmp_path / "digests" / "iris-v2.json").write_text("{}")
    store = BentoStore(tmp_path)
    assert [(one.name, one.bytes) for one in store.all()] == [("1", 100), ("2", 100)]
    store.remove("iris", "2")
    store.remove("iris", "2")
    assert [one.name for one in store.all()] == ["1"]
    assert (tmp_path / "bentos" / "iris" / "latest").read_text() == "v1"
    assert list((tmp_path / "digests").iterdir()) == []
    store.remove("iris", "1")
    assert store.all() == []
    assert list((tmp_path / ".trash").iterdir()) == []

    lake = LakeStore(str(tmp_path / "lake"))
    data = tmp_path / "lake" / "datasets" / "model=iris" / f"{'a' * 64}.parquet"
    report = tmp_path / "lake" / "reports" / "model=iris" / "drift-x" / "drift.html"
    for path in (data, report):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"12345")
    assert [(one.name, one.bytes) for one in lake.data_sets("iris")] == [("a" * 64, 5)]
    assert [(one.name, one.bytes) for one in lake.reports("iris")] == [("drift-x", 5)]
    assert lake.accounts("iris") == []
    lake.remove("data set", "iris", "a" * 64)
    lake.remove("report", "iris", "drift-x")
    lake.remove("report", "iris", "drift-x")
    assert not data.exists()
    assert not report.parent.exists()

    (tmp_path / "slot-iris-blue.log").write_text("a")
    (tmp_path / "slot-iris-blue.log.1").write_text("a")
    (tmp_path / "keeper.log").write_text("a")
    logs = SlotLogs(tmp_path)
    assert [one.name for one in logs.all()] == ["slot-iris-blue.log", "slot-iris-blue.log.1"]
    logs.remove("keeper.log")
    logs.remove("slot-iris-blue.log")
    assert (tmp_path / "keeper.log").exists()
    assert [one.name for one in logs.all()] == ["slot-iris-blue.log.1"]

    segments = tmp_path / "spool" / "predictions" / "iris"
    segments.mkdir(parents=True)
    for name in ("a.seg", "b.damaged"):
        (segments / name).write_bytes(b"12345")
    damaged = DamagedSegments(Spool(tmp_path / "spool"))
    assert [(one.model, one.name, one.bytes) for one in damaged.all()] == [("iris", "predictions/iris/b.damaged", 5)]
    damaged.remove("predictions/iris/a.seg")
    damaged.remove("predictions/iris/b.damaged")
    damaged.remove("predictions/iris/b.damaged")
    assert [path.name for path in segments.iterdir()] == ["a.seg"]
