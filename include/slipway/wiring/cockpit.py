"""What the cockpit's pages show. Reads only; a part that does not answer is left out and said so, never an error."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from slipway.errors import DataError, GatewayError, NotFoundError, SlipwayError
from slipway.spec import ModelSpec, fleet_names, load_model
from slipway.wiring.controls import Controls
from slipway.wiring.facts import now_utc, parse_time, plain, rollout_facts, slots_facts

if TYPE_CHECKING:
    from slipway.adapters.postgres_cockpit import PostgresCockpit
    from slipway.adapters.postgres_samples import PostgresSamples
    from slipway.core.fleet import ModelStatus
    from slipway.core.rollout_record import Rollout
    from slipway.core.routes import Address
    from slipway.core.slot_metrics import SlotMetrics

__all__ = ["Cockpit"]

_ACTIONS = 8  # that a page shows
_KINDS = ("data", "gate", "drift", "retrain")
_HOUR_BUCKETS, _BUCKET_SECONDS = 30, 120
_REPORT = re.compile(r"reports/model=([^/]+)/([^/]+)/([^/]+)$")
_REPORT_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+:-]{0,199}")


class Cockpit(Controls):
    """One look at the fleet, a model, a rollout or the past."""

    @cached_property
    def cockpit(self) -> PostgresCockpit:
        from slipway.adapters.postgres_cockpit import PostgresCockpit

        return PostgresCockpit(self.database)

    @cached_property
    def samples(self) -> PostgresSamples:
        from slipway.adapters.postgres_samples import PostgresSamples

        return PostgresSamples(self.database)

    # --- the fleet ------------------------------------------------------------------------------------------

    def specs(self) -> tuple[dict[str, ModelSpec], dict[str, str]]:
        """Every model's spec, and what is wrong with the fleet files that cannot be read."""
        try:
            return dict(self.fleet), {}
        except SlipwayError:
            good: dict[str, ModelSpec] = {}
            broken: dict[str, str] = {}
            for name in sorted(fleet_names(self.settings.fleet_dir)):
                try:
                    good[name] = load_model(self.settings.fleet_dir, name)
                except SlipwayError as error:
                    broken[name] = str(error)
            return good, broken

    def fleet_facts(self) -> dict[str, Any]:
        """Every model: live version, slots, traffic of the last hour, drift, the champion's age, the rollout."""
        specs, broken = self.specs()
        statuses = {status.model: status for status in self.releases.status()}
        names = sorted({*specs, *statuses})
        newest = self.cockpit.newest_decisions(names, _KINDS)
        live, ended = self.cockpit.went_live(names), self.cockpit.last_ended(names)
        now = now_utc()
        series = self.samples.series(self._hour_ago(now), _BUCKET_SECONDS, _HOUR_BUCKETS)
        models = []
        for name in names:
            decided = {kind: plain(newest[name, kind]) for kind in _KINDS if (name, kind) in newest}
            entry = self._state(statuses.get(name), now)
            entry |= {"model": name, "known": name in specs, "decisions": decided, "live": plain(live.get(name))}
            entry |= {"last_rollout": plain(ended.get(name)), "traffic": series.get(name)}
            entry["description"] = specs[name].description if name in specs else ""
            entry["task"] = specs[name].task if name in specs else ""
            models.append(entry)
        gateway_up = all(status.applied_weights is not None for status in statuses.values())
        return {"at": now.isoformat(), "models": models, "broken": broken, "gateway_up": gateway_up}

    @staticmethod
    def _hour_ago(now: datetime) -> datetime:
        """So that the last bucket is the one that is being filled."""
        end = now.replace(second=0, microsecond=0) + timedelta(minutes=1)
        return end - timedelta(seconds=_HOUR_BUCKETS * _BUCKET_SECONDS)

    @staticmethod
    def _state(status: ModelStatus | None, now: datetime) -> dict[str, Any]:
        if status is None:
            return {"live_version": None, "live_slot": None, "slots": {}, "weights": {}, "applied": {}, "rollout": None}
        warm = {s.slot: s.keep_warm_until for s in status.slots if s.keep_warm_until and s.keep_warm_until > now}
        slots = slots_facts(status)
        for name, slot in slots.items():
            slot["warm_until"] = warm[name].isoformat() if name in warm else None
        return {
            "live_version": status.live_version,
            "live_slot": status.live_slot,
            "slots": slots,
            "weights": dict(status.weights),
            "applied": None if status.applied_weights is None else dict(status.applied_weights),
            "alias_pending": status.alias_pending,
            "rollout": rollout_facts(status.rollout) if status.rollout else None,
        }

    # --- one model --------------------------------------------------------------------------------------------

    def known_model(self, model: str) -> ModelSpec | None:
        """The model's spec, or None for one that has no readable fleet file any more but a past.

        Raises:
            NotFoundError: nobody knows it.
        """
        specs, broken = self.specs()
        known = {*specs, *broken}
        if model not in known and model not in {row.model for row in self.releases.parts.store.traffic()}:
            raise NotFoundError(f"no model named {model!r}; known models: {', '.join(specs) or 'none'}")
        return specs.get(model)

    def model_facts(self, model: str) -> dict[str, Any]:
        """One model: its state, timeline, gate, drift and quality over time, versions, and what was asked for.

        Raises:
            NotFoundError: nobody knows it.
        """
        spec, now = self.known_model(model), now_utc()
        status = next(iter(s for s in self.releases.status() if s.model == model), None)
        decisions = self.cockpit.decisions(model=model, kinds=None, before=None, limit=60, whole=False)
        series = self.samples.series(self._hour_ago(now), _BUCKET_SECONDS, _HOUR_BUCKETS, model)
        newest = self.cockpit.newest_decisions([model], _KINDS)
        gates = []
        if (model, "gate") in newest:
            gates = self.cockpit.decisions(model=model, kinds=["gate"], before=None, limit=1)
        return {
            "at": now.isoformat(),
            "model": model,
            "known": spec is not None,
            **self._state(status, now),
            "decisions": {kind: plain(newest[model, kind]) for kind in _KINDS if (model, kind) in newest},
            "live": plain(self.cockpit.went_live([model]).get(model)),
            "last_rollout": plain(self.cockpit.last_ended([model]).get(model)),
            "traffic": series.get(model),
            "events": [plain(row) for row in self.cockpit.ledger(model=model, limit=80)],
            "timeline": [plain(row) for row in decisions],
            "gate": plain(gates[0]) if gates else None,
            "drift": [plain(row) for row in reversed(self.cockpit.drift_history(model))],
            "versions": [plain(row) for row in self.cockpit.versions(model)],
            "kept_versions": self._kept(model),
            "rollouts": [plain(row) for row in self.cockpit.rollouts(model)],
            "actions": self.recent_actions(model, _ACTIONS),
        }

    def _kept(self, model: str) -> list[str]:
        latest = self.releases.parts.store.latest(model)
        return self.releases.kept_versions(model, latest.policy.keep_versions if latest else 3)

    # --- one rollout --------------------------------------------------------------------------------------------

    def rollout_view(self, model: str, rollout_id: str | None = None) -> dict[str, Any]:
        """A rollout with its checks and both slots' numbers: the one named, the running one, or else the newest.

        Raises:
            NotFoundError: nobody knows the model or the rollout.
        """
        self.known_model(model)
        store, now = self.releases.parts.store, now_utc()
        status = next(iter(s for s in self.releases.status() if s.model == model), None)
        rollout = store.rollout(rollout_id) if rollout_id else store.active(model) or store.latest(model)
        if rollout is not None and rollout.model != model:
            raise NotFoundError(f"no rollout {rollout_id} of {model}")
        view: dict[str, Any] = {"at": now.isoformat(), "model": model, **self._state(status, now), "shown": None}
        view["kept_versions"], view["actions"] = self._kept(model), self.recent_actions(model, _ACTIONS)
        view["rollouts"] = [plain(row) for row in self.cockpit.rollouts(model)]
        if rollout is not None:
            view["shown"] = self._rollout(rollout)
            view["events"] = [plain(row) for row in self.releases.parts.ledger.of_rollout(rollout.id)]
            view["sides"] = {} if rollout.ended else self._sides(rollout)
        return view

    @staticmethod
    def _rollout(rollout: Rollout) -> dict[str, Any]:
        policy = rollout.policy
        return {
            **rollout_facts(rollout),
            "previous_slot": rollout.previous_slot,
            "command": rollout.command,
            "dag_run": rollout.dag_run,
            "ended": rollout.ended,
            "phase_since": rollout.phase_since.isoformat(),
            "confirmed_at": rollout.confirmed_at.isoformat() if rollout.confirmed_at else None,
            "finished_at": rollout.finished_at.isoformat() if rollout.finished_at else None,
            "driven_at": rollout.driven_at.isoformat(),
            "deadline": rollout.deadline.isoformat(),
            "checks": [plain(check.as_dict()) for check in rollout.checks],
            "replay": plain(rollout.replay.as_dict()) if rollout.replay else None,
            "policy": policy.model_dump(mode="json"),
        }

    def _sides(self, rollout: Rollout) -> dict[str, Any]:
        """What both slots counted since the step began, and their counters as they stand."""
        try:
            gateway = self.releases.parts.gateway.observe()
        except GatewayError:
            gateway = None
        places = {slot.slot: slot.address for slot in self.releases.parts.store.slots(rollout.model)}
        sides: dict[str, Any] = {}
        for side, slot, version in (
            ("new", rollout.slot, rollout.version),
            ("old", rollout.previous_slot, rollout.previous_version),
        ):
            if slot is None:
                continue
            entry: dict[str, Any] = {"slot": slot, "version": version, "weight": None}
            if gateway is not None:
                stats = gateway.of(rollout.model, slot)
                before = rollout.baseline.get("gateway", {}).get(side, {})
                if stats.requests < before.get("requests", 0):
                    before = {}  # the gateway was restarted and counts from zero
                entry |= {"weight": gateway.weights.get(rollout.model, {}).get(slot, 0), "total": stats.requests}
                entry |= {"total_errors": stats.errors, "requests": stats.requests - before.get("requests", 0)}
                entry |= {"errors": stats.errors - before.get("errors", 0)}
            sides[side] = entry | self._latency(rollout.baseline.get(side), places.get(slot))
        return sides

    def _latency(self, before: Mapping[str, Any] | None, place: Address | None) -> dict[str, Any]:
        from slipway.core.slot_metrics import SlotMetrics

        try:
            found: SlotMetrics | None = self.releases.parts.probe.metrics(place) if place else None
        except SlipwayError:
            found = None
        if found is None:
            return {"p50_ms": None, "p99_ms": None}
        if before:
            found = found.since(SlotMetrics.from_dict(before))
        return {name: _ms(found.quantile_seconds(share)) for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99))}

    # --- the past -----------------------------------------------------------------------------------------------

    def ledger_rows(
        self, *, model: str | None = None, events: Sequence[str] | None = None, before: int | None = None, limit: int
    ) -> list[dict[str, Any]]:
        """Ledger rows, the newest first, from below a sequence number on."""
        return [plain(row) for row in self.cockpit.ledger(model=model, events=events, before=before, limit=limit)]

    def ledger_summary(self) -> dict[str, Any]:
        """How many rows the ledger has, and since when."""
        return dict(plain(self.cockpit.ledger_summary()))

    def decision_rows(
        self, *, model: str | None, kind: str | None, before: str | None, limit: int
    ) -> list[dict[str, Any]]:
        """Decisions with their evidence, the newest first, from before a time on."""
        at = parse_time(before) if before else None
        kinds = [kind] if kind else None
        return [plain(row) for row in self.cockpit.decisions(model=model, kinds=kinds, before=at, limit=limit)]

    # --- reports ------------------------------------------------------------------------------------------------

    def report(self, model: str, run: str, name: str) -> bytes:
        """A report of the lake.

        Raises:
            DataError: a name that could leave the reports' folder.
            NotFoundError: there is no such report.
        """
        for part in (model, run, name):
            if not _REPORT_PART.fullmatch(part) or ".." in part:
                raise DataError(f"{part[:80]!r} cannot name a report")
        return self.lake.read_report(model, run, name)


def report_parts(url: str) -> tuple[str, str, str] | None:
    """Model, run and name of a report out of the place where a decision's evidence says it lies."""
    found = _REPORT.search(url)
    return (found[1], found[2], found[3]) if found else None


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None or seconds == float("inf") else round(seconds * 1e3, 3)
