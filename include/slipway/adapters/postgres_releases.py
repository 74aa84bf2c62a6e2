"""Rollouts in Postgres, beside the fleet that they change: the store behind the release jobs.

Every method is one transaction. Whatever belongs together (the phase `live` and its ledger row, say) is
written together, so no crash can part it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, func, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from slipway.adapters.postgres_fleet import PostgresFleet, read_package
from slipway.adapters.postgres_ledger import append
from slipway.adapters.postgres_tables import ledger, packages, rollouts, slots, traffic
from slipway.core.rollout_record import Phase, Rollout
from slipway.core.routes import SlotName
from slipway.core.verdict import Check, Verdict
from slipway.errors import ConflictError, NotFoundError
from slipway.ports import Package
from slipway.spec import RolloutPolicy

__all__ = ["PostgresReleaseStore"]

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


def _still_runs(rollout: Rollout) -> tuple[ColumnElement[bool], ...]:
    return rollouts.c.id == rollout.id, rollouts.c.finished_at.is_(None)


def _ended(rollout: Rollout) -> ConflictError:
    return ConflictError(f"the rollout of {rollout.model} version {rollout.version} has ended meanwhile")


class PostgresReleaseStore(PostgresFleet):
    """Implements the `ReleaseStore` that the release jobs ask for: the fleet, and its rollouts."""

    def begin(self, rollout: Rollout, package: Package, port_is_free: Callable[[int], bool]) -> None:
        """Save a new rollout with its package, slots and ledger row.

        Raises:
            ConflictError: the model has an active rollout, or no port is left.
        """
        with self._database.begin() as connection:
            connection.execute(text("LOCK TABLE slots IN SHARE ROW EXCLUSIVE MODE"))
            self._keep_package(connection, package, rollout.started_at)
            self._place_slots(connection, rollout.model, rollout.started_at, port_is_free)
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
        dag_run: str | None = None,
    ) -> bool:
        """Leave an operator's command for the next decision; `dag_run` is who asked, to be known again.

        False when the rollout has ended, or is to be ended already and `promote` comes too late.
        """
        statement = update(rollouts).where(*_still_runs(rollout))
        if command == "promote":
            statement = statement.where(func.coalesce(rollouts.c.command, command) == command)
        with self._database.begin() as connection:
            if connection.execute(statement.values(command=command).returning(rollouts.c.id)).first() is None:
                return False
            asked = replace(rollout, actor=actor, reason=reason)
            detail = {"phase": rollout.phase.value, **({"dag_run": dag_run} if dag_run else {})}
            self._write(connection, asked, f"{command}_asked", now, detail)
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
        """Keep a person's approval for the next decision; False when the rollout has ended or asks something else."""
        statement = update(rollouts).where(
            *_still_runs(rollout), rollouts.c.approval_asked_at == rollout.approval_asked_at
        )
        with self._database.begin() as connection:
            if connection.execute(statement.values(approved_at=now).returning(rollouts.c.id)).first() is None:
                return False
            approved = replace(rollout, actor=actor, reason=reason)
            detail = {"phase": rollout.phase.value, "step": rollout.step}
            self._write(connection, approved, "approved", now, detail)
            return True

    def shift(
        self,
        rollout: Rollout,
        weights: Mapping[SlotName, int],
        now: datetime,
        *,
        shadow_percent: int = 0,
        counters: Mapping[str, Any] | None = None,
    ) -> None:
        """Save the weights and the mirroring of a rollout before the gateway is told, and a ledger row if the weights
        are news: from here on anybody may publish them.

        Args:
            counters: the slots' requests and errors now, from which the sides' results are counted.
        """
        with self._database.begin() as connection:
            still = select(rollouts.c.id).where(*_still_runs(rollout))
            if connection.execute(still.with_for_update()).first() is None:
                raise _ended(rollout)
            self._want(connection, rollout.model, weights, now, rollout.slot, shadow_percent)
            if self._are_news(connection, rollout.model, weights):
                detail = {"weights": dict(weights), "phase": rollout.phase.value, "counters": dict(counters or {})}
                self._write(connection, rollout, "traffic", now, detail)

    def split(
        self,
        model: str,
        weights: Mapping[SlotName, int],
        now: datetime,
        *,
        actor: str,
        reason: str,
        counters: Mapping[str, Any] | None = None,
    ) -> None:
        """Save the weights of a lasting split before the gateway is told, and a ledger row if they are news."""
        detail = {"weights": dict(weights), "kind": "split", "counters": dict(counters or {})}
        with self._database.begin() as connection:
            self._want(connection, model, weights, now)
            if self._are_news(connection, model, weights):
                append(connection, at=now, model=model, event="traffic", actor=actor, reason=reason, detail=detail)

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
        """Raises ConflictError when it has ended: a driver that lost its lock with Postgres must not wake it up."""
        row = {key: value for key, value in _to_row(rollout).items() if key not in _NOT_SAVED}
        still = update(rollouts).where(*_still_runs(rollout))
        if connection.execute(still.values(**row).returning(rollouts.c.id)).first() is None:
            raise _ended(rollout)

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

    @staticmethod
    def _are_news(connection: Connection, model: str, weights: Mapping[SlotName, int]) -> bool:
        last = select(ledger.c.detail["weights"]).where(ledger.c.model == model, ledger.c.event == "traffic")
        before = connection.execute(last.order_by(ledger.c.seq.desc()).limit(1)).scalar() or {}
        return bool(before != dict(weights))

    @staticmethod
    def _proof(connection: Connection, rollout: Rollout) -> dict[str, Any]:
        """Where the version came from, kept in the ledger for as long as the ledger is."""
        found = select(packages).where(packages.c.model == rollout.model, packages.c.version == rollout.version)
        package = read_package(connection.execute(found).one())
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
