"""Clear away what nothing reaches any more: old bentos, MLflow versions and runs, data sets, reports, accounts, logs.

What stays is decided by `core.reach`: whatever is live, in a slot, in a rollout, aliased, kept for a rollback (never
fewer than three versions) or young, and what these and recent decisions refer to. Each removal is complete in itself
and decided on fresh facts, so a run that is killed anywhere is continued by the next, and two runs at a time do no
harm. Where the facts cannot be had, nothing that depends on them is touched.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from slipway.core.faults import fault_point
from slipway.core.reach import LEAST_KEPT, ModelFacts, Stored, reachable
from slipway.errors import ConflictError, SlipwayError
from slipway.jobs.shelves import FileShelf, Shelves
from slipway.jobs.traffic import model_lock

if TYPE_CHECKING:
    from slipway.jobs.parts import Parts
    from slipway.ports import ModelVersion

__all__ = ["Housekeeping", "Item", "housekeep"]

_log = logging.getLogger(__name__)
_LOCK_SECONDS = 5.0
_MOST_DECISIONS = 10_000

Kind = Literal["bento", "version", "run", "data set", "report", "account", "slot log", "damaged segment"]


@dataclass(frozen=True)
class Item:
    """One removal, done or planned."""

    kind: Kind
    model: str
    name: str
    bytes: int = 0


@dataclass
class Housekeeping:
    """What one run removed, or would remove; `kept` says per model which versions stay and why."""

    dry_run: bool
    items: list[Item] = field(default_factory=list)
    kept: dict[str, dict[str, str]] = field(default_factory=dict)
    purged_runs: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.items)


@dataclass
class _Model:
    """One model while it is looked through."""

    name: str
    versions: Sequence[ModelVersion]
    kept: dict[str, str]
    runs: set[str] = field(default_factory=set)
    data_sets: set[str] = field(default_factory=set)


def housekeep(
    parts: Parts,
    shelves: Shelves,
    models: Mapping[str, int],
    *,
    grace: timedelta,
    keep_for: timedelta,
    dry_run: bool = False,
) -> Housekeeping:
    """Remove what nothing reaches, model by model; one that fails does not hold up the others.

    Args:
        models: the fleet's models with their `keep_versions`; models that are only in the tables are looked at too.
        grace: what is younger stays, since its release may be on its way.
        keep_for: how long decisions keep what they refer to, and how long reports, accounts, logs and damaged
            segments stay.
    """
    result = Housekeeping(dry_run)
    if not dry_run:
        shelves.bentos.sweep()
    known = {row.model for row in parts.store.traffic()} | {one.model for one in shelves.bentos.all()}
    for model in sorted({*models, *known}):
        run = _Run(parts, shelves, models.get(model, LEAST_KEPT), grace, keep_for, result)
        try:
            run.clear(model)
        except (SlipwayError, OSError) as error:
            _log.error("%s: %s", model, error)
            result.problems.append(f"{model}: {error}; nothing that depends on it was removed")
    _clear_logs(parts, shelves.logs, keep_for, result)
    _clear_damaged(parts, shelves.damaged, keep_for, result)
    done = "would go" if dry_run else "removed"
    _log.info("housekeeping: %d items with %d bytes %s", len(result.items), result.bytes, done)
    return result


@dataclass
class _Run:
    parts: Parts
    shelves: Shelves
    keep_versions: int
    grace: timedelta
    keep_for: timedelta
    result: Housekeeping

    def clear(self, model: str) -> None:
        found = self._look(model)
        self.result.kept[model] = found.kept
        self._bentos(found)
        self._versions(found)
        self._runs(found)
        self._lake(found)

    # --- what stays ---------------------------------------------------------------------------------------

    def _look(self, model: str) -> _Model:
        versions = self.shelves.runs.versions(model)
        found = _Model(model, versions, self._kept(model, versions))
        # Candidates of one training are compared with each other for as long as its winner stays.
        keys = {one.tags.get("slipway.key") for one in versions if one.version in found.kept} - {None}
        found.runs = {one.run_id for one in versions if one.version in found.kept}
        found.data_sets = {one.tags.get("slipway.snapshot", "") for one in versions if one.run_id in found.runs}
        for version in found.kept:
            found.data_sets |= self._packaged_data(model, version)
        self._behind_decisions(found)
        for run in self.shelves.runs.runs(model):
            if run.tags.get("slipway.key") in keys or self._is_young(run):
                found.runs.add(run.name)
            if run.name in found.runs and run.tags.get("slipway.snapshot"):
                found.data_sets.add(run.tags["slipway.snapshot"])
        return found

    def _kept(self, model: str, versions: Sequence[ModelVersion]) -> dict[str, str]:
        store, now = self.parts.store, self.parts.clock.now()
        rows = self.parts.ledger.until(model, now)
        active = store.active(model)
        slots = {slot.version for slot in store.slots(model)}
        slots |= {slot.version for slot in self.parts.runtime.list() if slot.model == model}
        young = {one.version for one in versions if now - one.created_at < self.grace}
        young |= {one.name for one in self.shelves.bentos.all() if one.model == model and self._is_young(one)}
        return reachable(
            ModelFacts(
                live=store.traffic_of(model).live_version,
                in_slots={version for version in slots if version},
                in_rollouts=[v for v in (active.version, active.previous_version) if v] if active else (),
                aliased=[one.version for one in versions if one.aliases],
                went_live=[(str(r.version), str(r.detail.get("kind"))) for r in rows if r.event == "live"],
                started={str(row.version) for row in rows if row.event == "started"},
                registered=[one.version for one in versions],
                young=young,
                keep_versions=self.keep_versions,
            )
        )

    def _packaged_data(self, model: str, version: str) -> set[str]:
        try:
            sha256 = self.parts.store.package(model, version).dataset_sha256
        except SlipwayError:
            return set()
        return {sha256} if sha256 else set()

    def _behind_decisions(self, found: _Model) -> None:
        since = self.parts.clock.now() - self.keep_for
        checked = False
        for decision in self.shelves.decisions.recent(found.name, limit=_MOST_DECISIONS):
            evidence = decision.evidence
            # The newest data set that passed its checks is what a training without a named one takes.
            newest = not checked and decision.kind == "data" and decision.verdict == "passed" and "sha256" in evidence
            checked = checked or newest
            if decision.at >= since or newest:
                found.runs |= {str(evidence[key]) for key in ("run_id", "champion_run_id") if evidence.get(key)}
                found.data_sets |= {str(evidence[key]) for key in ("sha256", "snapshot") if evidence.get(key)}

    def _is_young(self, stored: Stored) -> bool:
        return self.parts.clock.now() - stored.at < self.grace

    def _is_old(self, stored: Stored) -> bool:
        return self.parts.clock.now() - stored.at >= max(self.keep_for, self.grace)

    # --- what goes ----------------------------------------------------------------------------------------

    def _bentos(self, found: _Model) -> None:
        for bento in self.shelves.bentos.all():
            if bento.model != found.name or bento.name in found.kept:
                continue
            try:
                with self._alone(found.name):
                    # Begun in the meantime? Under the lock nothing can begin.
                    if bento.name not in self._kept(found.name, found.versions):
                        self._remove(Item("bento", *_name(bento)), self.shelves.bentos.remove, bento.model, bento.name)
            except ConflictError as error:
                _log.info("bento %s of %s is left for the next time: %s", bento.name, found.name, error)
        if not self.result.dry_run:
            self.shelves.bentos.sweep()

    def _alone(self, model: str) -> AbstractContextManager[None]:
        return self.parts.store.lock(model_lock(model), _LOCK_SECONDS)

    def _versions(self, found: _Model) -> None:
        for one in found.versions:
            if one.version not in found.kept and one.version not in self._kept(found.name, found.versions):
                item = Item("version", found.name, one.version)
                self._remove(item, self.shelves.runs.remove_version, found.name, one.version)

    def _runs(self, found: _Model) -> None:
        # A run behind a version that is still registered stays, whatever came of removing the version.
        registered = {one.run_id for one in (found.versions if self.result.dry_run else self._registered(found))}
        registered -= self._planned_runs(found)
        for run in self.shelves.runs.runs(found.name):
            if run.name not in found.runs and run.name not in registered and not self._is_young(run):
                self._remove(Item("run", found.name, run.name, run.bytes), self.shelves.runs.remove_run, run.name)
        if not self.result.dry_run:
            self.result.purged_runs += self.shelves.runs.purge(found.name)

    def _registered(self, found: _Model) -> Sequence[ModelVersion]:
        return self.shelves.runs.versions(found.name)

    def _planned_runs(self, found: _Model) -> set[str]:
        if not self.result.dry_run:
            return set()
        gone = {item.name for item in self.result.items if (item.kind, item.model) == ("version", found.name)}
        return {one.run_id for one in found.versions if one.version in gone}

    def _lake(self, found: _Model) -> None:
        lake, model = self.shelves.lake, found.name
        shown = {f"data-{sha256[:12]}" for sha256 in found.data_sets}
        data_sets = [
            one for one in lake.data_sets(model) if one.name not in found.data_sets and not self._is_young(one)
        ]
        judged = tuple(f"gate-{run_id[:12]}-" for run_id in found.runs)  # the page behind a version stays as long
        reports = [
            one
            for one in lake.reports(model)
            if one.name not in shown and not one.name.startswith(judged) and self._is_old(one)
        ]
        accounts = [one for one in lake.accounts(model) if self._is_old(one)]
        kinds: tuple[tuple[Kind, Collection[Stored]], ...] = (
            ("data set", data_sets),
            ("report", reports),
            ("account", accounts),
        )
        for kind, stored in kinds:
            for one in stored:
                self._remove(Item(kind, model, one.name, one.bytes), lake.remove, kind, model, one.name)

    def _remove(self, item: Item, act: Callable[..., None], *arguments: Any) -> None:
        if not self.result.dry_run:
            act(*arguments)
            fault_point(f"removed:{item.kind}")
            _log.info("removed %s %s of %s", item.kind, item.name, item.model)
        self.result.items.append(item)


def _name(stored: Stored) -> tuple[str, str, int]:
    return stored.model, stored.name, stored.bytes


def _clear_logs(parts: Parts, logs: FileShelf, keep_for: timedelta, result: Housekeeping) -> None:
    """Logs of slots that hold nothing; Supervisor itself bounds the others."""
    try:
        used = {(slot.model, slot.slot) for slot in parts.store.slots() if slot.version}
        used |= {(slot.model, slot.slot) for slot in parts.runtime.list()}
        for one in logs.all():
            slot = one.tags["slot"]
            if (one.model, slot) not in used and parts.clock.now() - one.at >= keep_for:
                if not result.dry_run:
                    logs.remove(one.name)
                result.items.append(Item("slot log", one.model, one.name, one.bytes))
    except (SlipwayError, OSError) as error:
        result.problems.append(f"slot logs: {error}")


def _clear_damaged(parts: Parts, damaged: FileShelf, keep_for: timedelta, result: Housekeeping) -> None:
    """Segments of the prediction log that were set aside, once a person had the time to look at them."""
    try:
        for one in damaged.all():
            if parts.clock.now() - one.at >= keep_for:
                if not result.dry_run:
                    damaged.remove(one.name)
                result.items.append(Item("damaged segment", one.model, one.name, one.bytes))
    except OSError as error:
        result.problems.append(f"damaged segments: {error}")
