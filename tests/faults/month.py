"""A month of nightly releases in a row: disk, processes, registry and database must stay bounded.

What is there once per kept version, bytes included, must be after the month what it was after the first week. Rows
about releases are kept for good and grow by the same few each night. Logs, the log of predictions, the metrics' history
and the databases are bounded by size or age, which a month of ten minutes does not reach: they may grow by so many
bytes a night.

`python -m faults.month --nights 30` is the acceptance run (`make faults-month`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.results import begin, update_result
from faults.whole_stack import ROW, FaultStack
from slipway.wiring import Wiring

_SETTLED_NIGHT = 8
_GROWTH = 1.15
_FEW = 2.0
_FEW_BYTES = 200_000.0
_KEPT_ROWS = ("rows of packages", "rows of rollouts", "rows of ledger")
_ROWS_A_NIGHT = 10
_REQUESTS_A_NIGHT = 20
# Bounded by rotation, by age or, the databases, by what they keep for good: so many bytes a night are no leak.
_BYTES_A_NIGHT = {
    "bytes of logs": 1e5,
    "bytes of airflow": 1e5,
    "bytes of prometheus": 2e5,
    "bytes of lake/predictions": 1e5,
    "bytes of lake/counts": 1e5,
    "bytes of database slipway": 1e5,
    "bytes of database airflow": 1e5,
    "bytes of database mlflow": 1e5,
}


@dataclass
class Night:
    """What there is after one night's release and housekeeping."""

    facts: dict[str, float]

    @staticmethod
    def look(stack: FaultStack) -> Night:
        from sqlalchemy import text

        slipway, facts = stack.slipway, {}
        for table in ("packages", "rollouts", "ledger", "decisions", "slots"):
            with slipway.database.begin() as connection:
                facts[f"rows of {table}"] = float(
                    connection.execute(text(f"SELECT count(*) FROM {table}")).scalar() or 0
                )
        runs = slipway.mlflow.find_runs("iris", {"slipway.model": "iris"})
        facts |= {
            "bentos": len(list((stack.home / "bentoml" / "bentos" / "iris").glob("v*"))),
            "registered versions": len(slipway.mlflow.versions("iris")),
            "runs": len(runs),
            "processes": len(stack.stack.processes()),
        }
        with slipway.database.begin() as connection:
            databases = connection.execute(
                text("SELECT datname, pg_database_size(datname) FROM pg_database WHERE NOT datistemplate")
            )
            facts |= {f"bytes of database {name}": size for name, size in databases}
        return Night({name: float(value) for name, value in {**facts, **sizes(stack.home)}.items()})


def sizes(home: Path) -> dict[str, float]:
    """Bytes of everything below the home by kind; without the cluster's folder, whose journal is of a fixed size."""
    found: dict[str, float] = {}
    for path in home.rglob("*"):
        parts = path.relative_to(home).parts
        try:
            size = path.stat().st_size if path.is_file() and not path.is_symlink() else 0
        except FileNotFoundError:
            continue
        if not size or parts[0] == "postgres":
            continue
        kind = "/".join(parts[:2]) if parts[0] == "lake" and len(parts) > 2 else parts[0]
        name = f"bytes of {kind if len(parts) > 1 else 'files beside'}"
        found[name] = found.get(name, 0.0) + size
    return found


def month(stack: FaultStack, nights: int) -> list[str]:
    """Release a new version every night; what is wrong afterwards."""
    stack.say(begin("month", fresh=True, keys=[str(nights)]))
    short = stack.settings.model_copy(update={"tidy_grace_hours": 0.0, "tidy_keep_days": 0.0})
    seen: list[Mapping[str, float]] = []
    problems: list[str] = []
    for number in range(nights):
        version = stack.make_version()
        stack.slipway.roll_out("iris", version, actor="faults", reason=f"night {number + 1}")
        for _ in range(_REQUESTS_A_NIGHT):
            stack.slipway.predict("iris", ROW)
        done: dict[str, Any] = Wiring(short).housekeep()
        problems += done["problems"]
        seen.append(Night.look(stack).facts)
        stack.say(f"night {number + 1}: version {version} is live; {seen[-1]}")
    problems += _growth(seen)
    kept = stack.slipway.releases.kept_versions("iris")
    if len(kept) < 3:
        problems.append(f"only {kept} can be rolled back to")
    for version in kept[:3]:
        stack.slipway.roll_back("iris", version, actor="faults", reason="a month is over")
        stack.settle()
        answer = stack.slipway.predict("iris", ROW)
        if answer["model_version"] != version:
            problems.append(f"rolled back to {version}, answered by {answer['model_version']}")
    settled = seen[min(_SETTLED_NIGHT, len(seen) - 1)]
    facts = {"problems": problems, "first": seen[0], "settled": settled, "last": seen[-1], "kept": kept}
    update_result("month", str(nights), lambda _: facts)
    return problems


def _growth(seen: list[Mapping[str, float]]) -> list[str]:
    """What grew by more than it may after the first week."""
    if len(seen) <= _SETTLED_NIGHT:
        return []
    settled, last, nights = seen[_SETTLED_NIGHT], seen[-1], len(seen) - 1 - _SETTLED_NIGHT
    problems = []
    for name, value in last.items():
        before = settled.get(name, 0.0)
        most = before * _GROWTH + (_FEW_BYTES if name.startswith("bytes of") else _FEW)
        if name in _KEPT_ROWS:
            most = before + nights * _ROWS_A_NIGHT
        if name in _BYTES_A_NIGHT:
            most = before + nights * _BYTES_A_NIGHT[name]
        if value > most:
            problems.append(f"{name}: {value:g} after the month, {before:g} after the first week")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nights", type=int, default=30)
    chosen = parser.parse_args()
    with FaultStack().running(versions=1) as stack:
        problems = month(stack, chosen.nights)
    stack.say("; ".join(problems) or f"{chosen.nights} nights, everything bounded")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
