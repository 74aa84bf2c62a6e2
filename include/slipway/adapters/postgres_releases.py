"""Packages, slots, traffic and rollouts in Postgres: the store behind the release jobs.

Every method is one transaction. Whatever belongs together (the phase `live` and its ledger row, say) is
written together, so no crash can part it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, Row, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from slipway.adapters.postgres import Database
from slipway.adapters.postgres_ledger import append
from slipway.adapters.postgres_tables import ledger, packages, rollouts, slots, traffic
from slipway.core.fleet import SlotRecord, Traffic
from slipway.core.rollout_record import Phase, Rollout
from slipway.core.routes import SLOTS, Address, SlotName
from slipway.core.verdict import Check, Verdict
from slipway.errors import ConflictError, NotFoundError
from slipway.ports import Package
from slipway.spec import RolloutPolicy

__all__ = ["PostgresReleaseStore"]

_PORTS_TRIED = 2000
_NOT_SAVED = ("id", "command", "approved_at")


def _to_row(rollout: Rollout) -> dict[str, Any]:
    row = {**vars(rollout), "phase": rollout.phase.value}
    row["policy"] = rollout.policy.model_dump(mode="json")
    row["baseline"], row["evidence"] = dict(rollout.baseline), dict(rollout.evidence)
    row["checks"] = [check.as_dict() for check in rollout.checks]
    return row


def _from_row(row: Row[Any]) -> Rollout:
    values = row._asdict()
    values["phase"] = Phase(values["phase"])
    values["policy"] = RolloutPolicy.model_validate(values["policy"])
    values["checks"] = tuple(Check(**{**c, "verdict": Verdict(c["verdict"])}) for c in values["checks"])
    return Rollout(**values)


def _package(row: Row[Any]) -> Package:
    values = row._asdict()
    values.pop("created_at")
    return Package(**{**values, "path": Path(values["path"])})


class PostgresReleaseStore:
    """Implements the `ReleaseStore` that the release jobs ask for.

    Args:
        address: where a slot is found, given its model, its name and the port that the tables have for it. One that
            runs in a container ignores that port, so one database serves either runtime.
    """

    def __init__(
        self,
        database: Database,
        *,
        slot_port_base: int,
        address: Callable[[str, SlotName, int], Address] = lambda model, slot, port: Address("127.0.0.1", port),
    ) -> None:
        self._database = database
        self._port_base = slot_port_base
        self._address = address

    @contextmanager
    def lock(self, name: str, wait_seconds: float = 10.0) -> Iterator[None]:
        """One worker at a time on `name`; see `Database.lock`."""
        with self._database.lock(name, wait_seconds):
            yield

    # --- packages ---------------------------------------------------------------------------------------

    def package(self, model: str, version: str) -> Package:
        """The package that was released under this version.

        Raises:
            NotFoundError: it never was; the message lists those that were.
        """
        with self._database.begin() as connection:
            rows = connection.execute(select(packages).where(packages.c.model == model)).all()
        for row in rows:
            if row.version == version:
                return _package(row)
        known = ", ".join(sorted(row.version for row in rows)) or "none"
        raise NotFoundError(f"{model} has no released version {version}; released versions: {known}")

    # --- slots and traffic --------------------------------------------------------------------------------

    def slots(self, model: str | None = None) -> list[SlotRecord]:
        """Every slot, or those of one model."""
        query = select(slots).order_by(slots.c.model, slots.c.slot)
        with self._database.begin() as connection:
            rows = connection.execute(query if model is None else query.where(slots.c.model == model)).all()
        return [self._slot(row) for row in rows]

    def _slot(self, row: Row[Any]) -> SlotRecord:
        values = {key: value for key, value in row._asdict().items() if key != "updated_at"}
        return SlotRecord(**{**values, **vars(self._address(row.model, row.slot, row.port))})

    def traffic(self) -> list[Traffic]:
        """Every model's wanted traffic, in name order."""
        with self._database.begin() as connection:
            rows = connection.execute(select(traffic).order_by(traffic.c.model)).all()
        return [Traffic(**{k: v for k, v in row._asdict().items() if k != "updated_at"}) for row in rows]

    def traffic_of(self, model: str) -> Traffic:
        """One model's wanted traffic; nothing at all for a model that was never released."""
        return next((row for row in self.traffic() if row.model == model), Traffic(model))

    def fleet(self) -> tuple[list[SlotRecord], list[Traffic]]:
        """Slots and traffic of all models, seen at one moment."""
        return self.slots(), self.traffic()

    def know(self, models: Collection[str], now: datetime) -> None:
        """Give every model a row, so that the gateway has routes for those that were never released, too."""
        if models:
            rows = [{"model": model, "updated_at": now} for model in sorted(models)]
            with self._database.begin() as connection:
                connection.execute(upsert(traffic).values(rows).on_conflict_do_nothing())

    def assign(self, model: str, slot: SlotName, version: str | None, bento_tag: str | None, now: datetime) -> None:
        """Say which version belongs in a slot; None empties it."""
        values = {"version": version, "bento_tag": bento_tag, "keep_warm_until": None, "drain_until": None}
        with self._database.begin() as connection:
            self._update_slot(connection, model, slot, {**values, "updated_at": now})

    def want_weights(
        self,
        model: str,
        weights: Mapping[SlotName, int],
        now: datetime,
        *,
        shadow_slot: SlotName | None = None,
        shadow_percent: int = 0,
    ) -> None:
        """Save what the gateway is to apply, before it is told: the weights, and what it mirrors to which slot."""
        values: dict[str, Any] = {slot: weights.get(slot, 0) for slot in SLOTS}
        values |= {"shadow_slot": shadow_slot if shadow_percent else None, "shadow_percent": shadow_percent}
        with self._database.begin() as connection:
            connection.execute(update(traffic).where(traffic.c.model == model).values(**values, updated_at=now))

    def keep_warm(self, model: str, slot: SlotName, until: datetime, drain_until: datetime) -> None:
        """Let a slot without traffic stay up until then."""
        values = {"keep_warm_until": until, "drain_until": drain_until}
        with self._database.begin() as connection:
            self._update_slot(connection, model, slot, values)

    def alias_moved(self, model: str, version: str) -> None:
        """The registry's champion alias now names this version."""
        with self._database.begin() as connection:
            connection.execute(update(traffic).where(traffic.c.model == model).values(alias_version=version))

    # --- rollouts -----------------------------------------------------------------------------------------

    def begin(self, rollout: Rollout, package: Package, port_is_free: Callable[[int], bool]) -> None:
        """Save a new rollout with its package, slots and ledger row.

        Raises:
            ConflictError: the model has an active rollout, or no port is left.
        """
        with self._database.begin() as connection:
            connection.execute(text("LOCK TABLE slots IN SHARE ROW EXCLUSIVE MODE"))
            self._keep_package(connection, package, rollout.started_at)
            self._make_slots(connection, rollout.model, rollout.started_at, port_is_free)
            made = {"model": rollout.model, "updated_at": rollout.started_at}
            connection.execute(upsert(traffic).values(made).on_conflict_do_nothing())
            statement = upsert(rollouts).values(_to_row(rollout)).on_conflict_do_nothing().returning(rollouts.c.id)
            if connection.execute(statement).first() is None:
                raise ConflictError(f"{rollout.model} has an active rollout; wait for it, or abort it")
            self._write(connection, rollout, "started", rollout.started_at, {"kind": rollout.kind})

    def active(self, model: str) -> Rollout | None:
        """The model's unfinished rollout."""
        return self._one(select(rollouts).where(rollouts.c.model == model, rollouts.c.finished_at.is_(None)))

    def all_active(self) -> list[Rollout]:
        """Unfinished rollouts of all models."""
        query = select(rollouts).where(rollouts.c.finished_at.is_(None)).order_by(rollouts.c.model)
        with self._database.begin() as connection:
            return [_from_row(row) for row in connection.execute(query)]

    def rollout(self, rollout_id: str) -> Rollout:
        """One rollout by its id.

        Raises:
            NotFoundError: there is none.
        """
        found = self._one(select(rollouts).where(rollouts.c.id == rollout_id))
        if found is None:
            raise NotFoundError(f"no rollout {rollout_id}")
        return found

    def latest(self, model: str, *, phase: Phase | None = None, dag_run: str | None = None) -> Rollout | None:
        """The newest rollout of a model, in one phase or of one DAG run if named."""
        query = select(rollouts).where(rollouts.c.model == model)
        if phase is not None:
            query = query.where(rollouts.c.phase == phase.value)
        if dag_run is not None:
            query = query.where(rollouts.c.dag_run == dag_run)
        return self._one(query.order_by(rollouts.c.started_at.desc()).limit(1))

    def save(self, rollout: Rollout) -> None:
        """Save everything but an operator's command and approval, which only `command` and `approve` write."""
        with self._database.begin() as connection:
            self._save(connection, rollout)

    def command(
        self,
        rollout: Rollout,
        command: Literal["abort", "promote", "reject"],
        *,
        actor: str,
        reason: str,
        now: datetime,
    ) -> bool:
        """Leave an operator's command for the next decision; False when the rollout has ended."""
        statement = update(rollouts).where(rollouts.c.id == rollout.id, rollouts.c.finished_at.is_(None))
        with self._database.begin() as connection:
            if connection.execute(statement.values(command=command).returning(rollouts.c.id)).first() is None:
                return False
            asked = replace(rollout, actor=actor, reason=reason)
            self._write(connection, asked, f"{command}_asked", now, {"phase": rollout.phase.value})
            return True

    def ask(self, rollout: Rollout, why: str, now: datetime) -> Rollout:
        """A person is asked from now on: the rollout and its ledger row."""
        asked = replace(rollout, approval_asked_at=now)
        with self._database.begin() as connection:
            self._save(connection, asked)
            detail = {"phase": asked.phase.value, "step": asked.step, "why": why}
            self._write(connection, asked, "approval_asked", now, detail)
        return asked

    def approve(self, rollout: Rollout, *, actor: str, reason: str, now: datetime) -> bool:
        """Keep a person's approval for the next decision; False when the rollout has ended."""
        statement = update(rollouts).where(rollouts.c.id == rollout.id, rollouts.c.finished_at.is_(None))
        with self._database.begin() as connection:
            if connection.execute(statement.values(approved_at=now).returning(rollouts.c.id)).first() is None:
                return False
            approved = replace(rollout, actor=actor, reason=reason)
            detail = {"phase": rollout.phase.value, "step": rollout.step}
            self._write(connection, approved, "approved", now, detail)
            return True

    def confirmed(self, rollout: Rollout, weights: Mapping[SlotName, int], now: datetime) -> None:
        """The gateway applies these weights: save the rollout, and a ledger row if the weights are news."""
        with self._database.begin() as connection:
            self._save(connection, rollout)
            self._note_traffic(connection, rollout, weights, now)

    def note_split(
        self,
        model: str,
        weights: Mapping[SlotName, int],
        actor: str,
        reason: str,
        now: datetime,
        counters: Mapping[str, Any] | None = None,
    ) -> None:
        """A lasting split is in force: one ledger row, with the slots' counters that its results count from."""
        with self._database.begin() as connection:
            append(
                connection,
                at=now,
                model=model,
                event="traffic",
                actor=actor,
                reason=reason,
                detail={"weights": dict(weights), "kind": "split", "counters": dict(counters or {})},
            )

    def go_live(self, rollout: Rollout, *, alias_moved: bool, now: datetime) -> Rollout:
        """The phase `live`, its ledger row, the live version and the old slot's keep-warm time, all at once."""
        live = rollout.moved(Phase.LIVE, now)
        policy = rollout.policy
        with self._database.begin() as connection:
            self._save(connection, live)
            values = {"live_slot": live.slot, "live_version": live.version, "updated_at": now}
            if alias_moved:
                values["alias_version"] = live.version
            connection.execute(update(traffic).where(traffic.c.model == live.model).values(**values))
            self._update_slot(connection, live.model, live.slot, {"keep_warm_until": None, "drain_until": None})
            if live.previous_slot:
                until = now + timedelta(seconds=policy.keep_warm_seconds)
                drain = until + timedelta(seconds=policy.drain_seconds)
                warm = {"keep_warm_until": until, "drain_until": drain}
                self._update_slot(connection, live.model, live.previous_slot, warm)
            self._write(connection, live, "live", now, self._proof(connection, live))
        return live

    def end(self, rollout: Rollout, phase: Phase, now: datetime) -> Rollout:
        """The phase `rolled_back` or `aborted` with its ledger row; the candidate's slot becomes empty."""
        ended = rollout.moved(phase, now)
        with self._database.begin() as connection:
            self._save(connection, ended)
            # Only if it was given to this version: before that, the slot may keep a former one warm.
            own = (slots.c.model == ended.model, slots.c.slot == ended.slot, slots.c.version == ended.version)
            empty = {"version": None, "bento_tag": None, "keep_warm_until": None, "drain_until": None}
            connection.execute(update(slots).where(*own).values(**empty, updated_at=now))
            detail = {"kind": ended.kind, "failure": ended.failure, "checks": [c.as_dict() for c in ended.checks]}
            self._write(connection, ended, phase.value, now, detail)
        return ended

    # --- inside a transaction -------------------------------------------------------------------------------

    def _one(self, query: Any) -> Rollout | None:
        with self._database.begin() as connection:
            row = connection.execute(query).first()
        return None if row is None else _from_row(row)

    @staticmethod
    def _save(connection: Connection, rollout: Rollout) -> None:
        row = {key: value for key, value in _to_row(rollout).items() if key not in _NOT_SAVED}
        connection.execute(update(rollouts).where(rollouts.c.id == rollout.id).values(**row))

    @staticmethod
    def _update_slot(connection: Connection, model: str, slot: str, values: Mapping[str, Any]) -> None:
        connection.execute(update(slots).where(slots.c.model == model, slots.c.slot == slot).values(**values))

    @staticmethod
    def _keep_package(connection: Connection, package: Package, now: datetime) -> None:
        row = {**asdict(package), "path": str(package.path), "evidence": dict(package.evidence), "created_at": now}
        statement = upsert(packages).values(row)
        renewed = {key: row[key] for key in row if key not in ("model", "version", "created_at")}
        connection.execute(statement.on_conflict_do_update(index_elements=["model", "version"], set_=renewed))

    def _make_slots(
        self, connection: Connection, model: str, now: datetime, port_is_free: Callable[[int], bool]
    ) -> None:
        taken = set(connection.execute(select(slots.c.port)).scalars())
        known = set(connection.execute(select(slots.c.slot).where(slots.c.model == model)).scalars())
        for slot in SLOTS:
            if slot in known:
                continue
            candidates = range(self._port_base, min(self._port_base + _PORTS_TRIED, 65536))
            port = next((port for port in candidates if port not in taken and port_is_free(port)), None)
            if port is None:
                raise ConflictError(f"no free port from {self._port_base} on for {model}; set SLIPWAY_SLOT_PORT_BASE")
            taken.add(port)
            connection.execute(insert(slots).values(model=model, slot=slot, port=port, updated_at=now))

    @staticmethod
    def _write(connection: Connection, rollout: Rollout, event: str, now: datetime, detail: Mapping[str, Any]) -> None:
        append(
            connection,
            at=now,
            model=rollout.model,
            event=event,
            version=rollout.version,
            slot=rollout.slot,
            actor=rollout.actor,
            reason=rollout.reason,
            rollout_id=rollout.id,
            detail=detail,
        )

    def _note_traffic(
        self, connection: Connection, rollout: Rollout, weights: Mapping[SlotName, int], now: datetime
    ) -> None:
        last = select(ledger.c.detail["weights"]).where(ledger.c.model == rollout.model, ledger.c.event == "traffic")
        before = connection.execute(last.order_by(ledger.c.seq.desc()).limit(1)).scalar() or {}
        if before != dict(weights):
            # Where the gateway's counters stood: what each side does with this traffic is counted from here.
            counted = rollout.baseline.get("gateway", {})
            slots = {"new": rollout.slot, "old": rollout.previous_slot}
            counters = {slots[side]: counts for side, counts in counted.items()}
            detail = {"weights": dict(weights), "phase": rollout.phase.value, "counters": counters}
            self._write(connection, rollout, "traffic", now, detail)

    @staticmethod
    def _proof(connection: Connection, rollout: Rollout) -> dict[str, Any]:
        """Where the version came from, kept in the ledger for as long as the ledger is."""
        found = select(packages).where(packages.c.model == rollout.model, packages.c.version == rollout.version)
        package = _package(connection.execute(found).one())
        count = (
            select(func.count()).select_from(ledger).where(ledger.c.model == rollout.model, ledger.c.event == "live")
        )
        return {
            "kind": rollout.kind,
            "previous_version": rollout.previous_version,
            "promotion": (connection.execute(count).scalar() or 0) + 1,
            "dag_run": rollout.dag_run,
            "bento_tag": package.bento_tag,
            "digest": package.digest,
            "dataset_sha256": package.dataset_sha256,
            "code_commit": package.code_commit,
            "evidence": dict(package.evidence),
            "checks": [check.as_dict() for check in rollout.checks],
        }
