"""Packages, slots and wanted traffic in Postgres: what should run, and who gets which share.

Every method is one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from slipway.adapters.postgres import Database
from slipway.adapters.postgres_tables import packages, slots, traffic
from slipway.core.fleet import SlotRecord, Traffic
from slipway.core.routes import SLOTS, Address, SlotName
from slipway.errors import ConflictError, NotFoundError
from slipway.ports import Package

__all__ = ["PostgresFleet", "read_package"]

_PORTS_TRIED = 2000


def read_package(row: Row[Any]) -> Package:
    """A row of the packages' table as the package that it is."""
    values = row._asdict()
    values.pop("created_at")
    return Package(**{**values, "path": Path(values["path"])})


class PostgresFleet:
    """The half of the release jobs' store that knows no rollout.

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
                return read_package(row)
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

    def keep_warm(self, model: str, slot: SlotName, until: datetime, drain_until: datetime) -> None:
        """Let a slot without traffic stay up until then."""
        values = {"keep_warm_until": until, "drain_until": drain_until}
        with self._database.begin() as connection:
            self._update_slot(connection, model, slot, values)

    def alias_moved(self, model: str, version: str) -> None:
        """The registry's champion alias now names this version."""
        with self._database.begin() as connection:
            connection.execute(update(traffic).where(traffic.c.model == model).values(alias_version=version))

    # --- inside a transaction -------------------------------------------------------------------------------

    @staticmethod
    def _want(
        connection: Connection,
        model: str,
        weights: Mapping[SlotName, int],
        now: datetime,
        shadow_slot: SlotName | None = None,
        shadow_percent: int = 0,
    ) -> None:
        values: dict[str, Any] = {slot: weights.get(slot, 0) for slot in SLOTS}
        values |= {"shadow_slot": shadow_slot if shadow_percent else None, "shadow_percent": shadow_percent}
        connection.execute(update(traffic).where(traffic.c.model == model).values(**values, updated_at=now))

    @staticmethod
    def _update_slot(connection: Connection, model: str, slot: str, values: Mapping[str, Any]) -> None:
        connection.execute(update(slots).where(slots.c.model == model, slots.c.slot == slot).values(**values))

    @staticmethod
    def _keep_package(connection: Connection, package: Package, now: datetime) -> None:
        row = {**asdict(package), "path": str(package.path), "evidence": dict(package.evidence), "created_at": now}
        statement = upsert(packages).values(row)
        renewed = {key: row[key] for key in row if key not in ("model", "version", "created_at")}
        connection.execute(statement.on_conflict_do_update(index_elements=["model", "version"], set_=renewed))

    def _place_slots(
        self, connection: Connection, model: str, now: datetime, port_is_free: Callable[[int], bool]
    ) -> None:
        """Give both slots a port; an empty one whose port somebody else has taken meanwhile gets another."""
        taken = set(connection.execute(select(slots.c.port)).scalars())
        known = {row.slot: row for row in connection.execute(select(slots).where(slots.c.model == model))}
        for slot in SLOTS:
            row = known.get(slot)
            if row is not None and (row.version is not None or port_is_free(row.port)):
                continue
            candidates = range(self._port_base, min(self._port_base + _PORTS_TRIED, 65536))
            port = next((port for port in candidates if port not in taken and port_is_free(port)), None)
            if port is None:
                raise ConflictError(f"no free port from {self._port_base} on for {model}; set SLIPWAY_SLOT_PORT_BASE")
            taken.add(port)
            place = upsert(slots).values(model=model, slot=slot, port=port, updated_at=now)
            moved = place.on_conflict_do_update(
                index_elements=["model", "slot"], set_={"port": port, "updated_at": now}
            )
            connection.execute(moved)
