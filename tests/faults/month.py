"""A month of nightly releases in a row: disk, processes, registry and database rows must stay bounded.

`python -m faults.month --nights 30` is the acceptance run (`make faults-month`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.whole_stack import HOME, ROW, FaultStack, save_result
from slipway.wiring import Wiring

_SETTLED_NIGHT = 8
_GROWTH = 1.15


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
            "bentos": len(list((HOME / "bentoml" / "bentos" / "iris").glob("v*"))),
            "registered versions": len(slipway.mlflow.versions("iris")),
            "runs": len(runs),
            "processes": len(stack.stack.processes()),
            "bytes of bentos": _bytes(HOME / "bentoml"),
            "bytes of artefacts": _bytes(HOME / "mlflow"),
            "bytes of data sets": _bytes(HOME / "lake" / "datasets"),
        }
        return Night({name: float(value) for name, value in facts.items()})


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def month(stack: FaultStack, nights: int) -> list[str]:
    """Release a new version every night; what is wrong afterwards."""
    short = stack.settings.model_copy(update={"tidy_grace_hours": 0.0, "tidy_keep_days": 0.0})
    seen: list[Mapping[str, float]] = []
    problems: list[str] = []
    for number in range(nights):
        version = stack.make_version()
        stack.slipway.roll_out("iris", version, actor="faults", reason=f"night {number + 1}")
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
    save_result("month", str(nights), {"problems": problems, "first": seen[0], "last": seen[-1], "kept": kept})
    return problems


def _growth(seen: list[Mapping[str, float]]) -> list[str]:
    """Rows about releases grow by the same number each night; everything else stays as after the first week."""
    if len(seen) <= _SETTLED_NIGHT:
        return []
    settled, last, nights = seen[_SETTLED_NIGHT], seen[-1], len(seen) - 1 - _SETTLED_NIGHT
    problems = []
    for name, value in last.items():
        most = settled[name] * _GROWTH + 2
        if name in ("rows of packages", "rows of rollouts", "rows of ledger"):
            most = settled[name] + nights * 10
        if value > most:
            problems.append(f"{name}: {value:g} after the month, {settled[name]:g} after the first week")
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
