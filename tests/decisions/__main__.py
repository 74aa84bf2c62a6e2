"""`python -m decisions`: replay what Slipway decides by itself, print how often it was right, and keep the figures.

Writes `var/bench/decisions.json` and `var/bench/decisions.png`; exits with 1 when a bound is missed.
`DECISIONS_QUICK=1` takes a tenth of the trials: enough to see that everything runs, too few to quote; a miss then
counts only when chance does not explain it. `DECISIONS_ONLY=gate` takes one file; batch scoring is
measured by `DECISIONS_ONLY=score` alone.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
import time
import warnings
from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec

from decisions import report
from decisions.case import Case, Outcome
from slipway.settings import home_path

_MODULES = ("gate", "retrain", "drift")
_ON_REQUEST = ("score",)  # speed and memory, which need a quiet machine
_QUICK_SCALE = 0.1
_begun = time.monotonic()


def say(line: str) -> None:
    print(f"[{time.monotonic() - _begun:6.1f} s] {line}", flush=True)


def cases() -> list[tuple[str, Case]]:
    """Every case with the name of its file."""
    only = {name for name in os.environ.get("DECISIONS_ONLY", "").split(",") if name}
    found = []
    for name in (*_MODULES, *_ON_REQUEST):
        if name not in (only or _MODULES):
            continue
        if find_spec(f"decisions.{name}") is None:
            say(f"tests/decisions/{name}.py is not there; its cases are left out")
            continue
        found += [(name, case) for case in import_module(f"decisions.{name}").CASES]
    return found


def main() -> int:
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    quick = os.environ.get("DECISIONS_QUICK", "0") not in ("", "0")
    lines: list[report.Line] = []
    chosen = cases()
    for number, (group, case) in enumerate(chosen, start=1):
        say(f"{number} of {len(chosen)}: {group}, {case.name}")
        began = time.monotonic()
        outcomes: list[Outcome] = case.run(_QUICK_SCALE if quick else 1.0)
        seconds = time.monotonic() - began
        for outcome in outcomes:
            lines.append(report.Line(group, case.name, outcome, seconds / len(outcomes)))
            say(f"  {report.sentence(outcome, quick)}")
    about = {
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "plan": "quick" if quick else "full",
        "seconds": round(time.monotonic() - _begun, 1),
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version()},
    }
    folder = home_path() / "bench"
    report.write(about, lines, folder / "decisions.json")
    report.draw(lines, folder / "decisions.png")
    print(f"\n{report.table(lines, quick)}\n\n{folder / 'decisions.json'}\n{folder / 'decisions.png'}")
    missed = [line.outcome for line in lines if not line.outcome.kept]
    failed = [one for one in missed if not (quick and report.may_be_chance(one))]
    if missed or not lines:
        chance = f", {len(missed) - len(failed)} of them within the chance of so few trials" if quick else ""
        print(f"{len(missed)} of {len(lines)} bounds missed{chance}", file=sys.stderr)
    return 1 if failed or not lines else 0


if __name__ == "__main__":
    sys.exit(main())
