"""`python -m bench`: measure, print the table, write `var/bench/latest.json` and `docs/bench.png`.

`BENCH_QUICK=1` takes under three minutes, `BENCH_ONLY=slipway,uvicorn_bare` only some servers. With `BENCH_STRICT=1` a
demand that is not met makes it exit with 1.
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from bench import contest, fleet_models, report
from bench.generator import Generator
from bench.measure import Bench
from bench.plan import FULL, Plan, chosen
from slipway.settings import PROJECT_DIR, home_path

_begun = time.monotonic()


def say(line: str) -> None:
    print(f"[{time.monotonic() - _begun:6.1f} s] {line}", flush=True)


def cores() -> tuple[frozenset[int], frozenset[int]]:
    """One core for the servers and another one for the generator, or the same one where there is no other."""
    available = sorted(os.sched_getaffinity(0))
    return frozenset(available[:1]), frozenset(available[1:2] or available[:1])


def run(plan: Plan, work: Path, only: set[str]) -> dict[str, object]:
    server_cpus, generator_cpus = cores()
    say("fitting the forest, writing it for every server, building the bento")
    forest = contest.prepare(work)
    with Bench(plan, work, server_cpus, Generator(generator_cpus), say) as bench:
        servers = contest.contestants(forest, bench.spool)
        running = bench.start([server for name, server in servers.items() if not only or name in only])
        found: dict[str, object] = {
            "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "plan": plan.name,
            "rounds": plan.rounds,
            "connections": plan.connections,
            "generator": bench.generator.name,
            "machine": {
                "cpus": os.cpu_count(),
                "python": platform.python_version(),
                "system": platform.system(),
                "load_before": os.getloadavg()[0],
            },
        }
        serving = bench.serving(running)
        found["serving"] = serving
        bento, saturation = running["slipway"], serving["slipway"]["rps"]
        found["half_saturation"] = bench.half_saturation(bento, saturation)
        gateway = found["gateway"] = bench.gateway(bento)
        serving["slipway_envoy"] = {
            **gateway[f"envoy_{plan.connections}"],
            "pss_mb": gateway["pss_mb"],
            "ready_s": gateway["ready_s"],
        }
        batches = found["batches"] = bench.batches(running)
        if not only:
            models = [fleet_models.prepare(name, work, bench.spool) for name in fleet_models.NAMES]
            found["other_models"] = bench.other_models(models)
        found["overload"] = bench.overload(bento, batches["100"]["slipway"]["rps"])
    return found


def main() -> int:
    logging.disable(logging.WARNING)
    plan = chosen()
    only = {name for name in os.environ.get("BENCH_ONLY", "").split(",") if name}
    folder = home_path() / "bench"
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    found = run(plan, work, {*only, "slipway"} if only else set())
    report.write(found, folder / "latest.json")
    print("\n" + report.table(found) + "\n")
    if plan is FULL and not only:
        report.draw(found, PROJECT_DIR / "docs" / "bench.png")
        say("drew docs/bench.png")
    say(f"wrote {folder / 'latest.json'}")
    missed = [one.name for one in report.demands(found) if not one.met]
    return 1 if missed and os.environ.get("BENCH_STRICT", "0") not in ("", "0") else 0


if __name__ == "__main__":
    sys.exit(main())
