"""The measurements, in the order in which they run. Every figure of a ratio comes from interleaved rounds."""

from __future__ import annotations

import shutil
import statistics
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import contest
from bench.fleet_models import FleetModel
from bench.generator import Generator
from bench.plan import Plan
from bench.rows import bodies
from bench.servers import Running, Server, free_port, pss_mb

__all__ = ["Bench", "medians", "recovery"]

_FIGURES = ("rps", "p50_ms", "p99_ms", "p999_ms")
_DIFFERENT = {1: 16, 100: 4}
_OVERLOAD_ROWS, _OVERLOAD_CONNECTIONS = 100, 1000
_BUSY_CONNECTIONS = 64


def medians(rounds: Sequence[dict[str, Any]], names: Sequence[str] = _FIGURES) -> dict[str, float]:
    """The median of each figure over the rounds."""
    return {name: statistics.median(float(one[name]) for one in rounds) for name in names}


@dataclass
class Bench:
    """One run. `say` gets a line of progress; servers run on `server_cpus`, the generator on its own cores."""

    plan: Plan
    work: Path
    server_cpus: frozenset[int]
    generator: Generator
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self.spool = self.work / "spool"
        self.both = self.server_cpus | self.generator.cpus
        self._stack = ExitStack()

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # -- servers -----------------------------------------------------------------------------------

    def start(self, servers: Sequence[Server]) -> dict[str, Running]:
        """Start one after the other, each alone on the machine, and freeze it; `ready` keeps the start times."""
        self.ready: dict[str, list[float]] = {}
        running: dict[str, Running] = {}
        for server in servers:
            body = bodies(server.protocol, 1, 1)[0]
            for turn in range(self.plan.starts):
                begun = Running(server, self.server_cpus, self.work / "logs", body)
                self.ready.setdefault(server.name, []).append(begun.ready_seconds)
                if turn < self.plan.starts - 1:
                    begun.stop()
            self._stack.callback(begun.stop)
            begun.freeze()
            running[server.name] = begun
            self.say(f"{server.name}: ready after {statistics.median(self.ready[server.name]):.2f} s")
        return running

    def empty_spool(self) -> None:
        """What the keeper does in a stack: take away sealed segments."""
        for path in self.spool.glob("*/*/*.seg"):
            path.unlink(missing_ok=True)

    # -- closed loop ---------------------------------------------------------------------------------

    def serving(self, running: dict[str, Running]) -> dict[str, dict[str, float]]:
        """Single rows: rounds over all servers in turn."""
        found = self._rounds(running, 1, self.plan.seconds, self.plan.connections)
        for name, one in running.items():
            with one.thawed():
                found[name]["pss_mb"] = pss_mb(one.pids())
            found[name]["ready_s"] = statistics.median(self.ready[name])
        return found

    def batches(self, running: dict[str, Running]) -> dict[str, dict[str, dict[str, float]]]:
        """Batches of each size; the largest over one connection, so that its latency is that of one answer."""
        able = {name: one for name, one in running.items() if one.server.batch}
        found = {}
        for size in self.plan.batches:
            connections = 1 if size > 1000 else self.plan.connections
            results = self._rounds(able, size, self.plan.batch_seconds, connections)
            for one in results.values():
                one["rows_per_s"] = one["rps"] * size
            found[str(size)] = results
        return found

    def _rounds(
        self, running: dict[str, Running], size: int, seconds: float, connections: int
    ) -> dict[str, dict[str, float]]:
        asked = {name: bodies(one.server.protocol, size, _DIFFERENT.get(size, 1)) for name, one in running.items()}
        rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in running}
        for turn in range(self.plan.rounds):
            for name, one in running.items():
                rounds[name].append(self._round_of(one, size, asked[name], connections, seconds))
            self.empty_spool()
            shown = " ".join(f"{name} {rounds[name][-1]['rps']:.0f}" for name in running)
            self.say(f"{size} row(s), round {turn + 1}/{self.plan.rounds}, requests/s: {shown}")
        return {name: medians(results) for name, results in rounds.items()}

    def other_models(self, models: Sequence[FleetModel]) -> dict[str, dict[str, Any]]:
        """Single rows and batches of 100 of other models, each beside the same estimator in FastAPI."""
        found: dict[str, dict[str, Any]] = {}
        for model in models:
            rounds: dict[str, list[dict[str, Any]]] = {}
            started: dict[str, Running] = {}
            with ExitStack() as stack:
                for name, server in model.servers.items():
                    logs = self.work / "logs" / model.name
                    started[name] = Running(server, self.server_cpus, logs, model.bodies(1)[0])
                    stack.callback(started[name].stop)
                    started[name].freeze()
                for _ in range(self.plan.rounds):
                    for size in (1, 100):
                        for name, one in started.items():
                            seconds = self.plan.batch_seconds
                            result = self._round_of(one, size, model.bodies(size), self.plan.connections, seconds)
                            rounds.setdefault(f"{name}_{size}", []).append(result)
                    self.empty_spool()
            figures = {name: medians(each) for name, each in rounds.items()}
            shown = " ".join(f"{name} {each['rps']:.0f}" for name, each in figures.items())
            self.say(f"{model.name} ({model.format}), requests/s: {shown}")
            found[model.name] = {"format": model.format, **figures}
        return found

    def _round_of(
        self, one: Running, size: int, asked: Sequence[str], connections: int, seconds: float
    ) -> dict[str, Any]:
        path = one.server.single if size == 1 else one.server.batch
        assert path is not None
        with one.thawed():
            one.ask(path, asked[0])
            result = self.generator.closed(one.port, path, asked, connections=connections, seconds=seconds)
        if set(result["statuses"]) != {"200"} or result["errors"]:
            raise RuntimeError(f"{one.server.name} gave {result['statuses']} and {result['errors']} errors")
        return result

    # -- through the gateway ---------------------------------------------------------------------------

    def gateway(self, bento: Running) -> dict[str, Any]:
        """The bento directly and through Envoy, all of it on the same cores, at 1, 8 and 64 connections."""
        folder = self.work / "envoy"
        shutil.rmtree(folder, ignore_errors=True)
        port = free_port()
        server = contest.gateway(folder, bento.port, port, free_port())
        asked = bodies("flat", 1, 16)
        with bento.thawed():
            bento.pin(self.both)
            envoy = Running(server, self.both, self.work / "logs", asked[0], port)
            try:
                rounds: dict[str, list[dict[str, Any]]] = {}
                for turn in range(self.plan.rounds):
                    for connections in (1, self.plan.connections, _BUSY_CONNECTIONS):
                        for name, target in (("direct", bento), ("envoy", envoy)):
                            result = self.generator.closed(
                                target.port,
                                "/predict/iris",
                                asked,
                                connections=connections,
                                seconds=self.plan.seconds,
                                cpus=self.both,
                            )
                            rounds.setdefault(f"{name}_{connections}", []).append(result)
                    self.empty_spool()
                    self.say(f"through Envoy, round {turn + 1}/{self.plan.rounds}")
                memory = pss_mb([*bento.pids(), *envoy.pids()])
                ready = envoy.ready_seconds + statistics.median(self.ready["slipway"])
            finally:
                envoy.stop()
                bento.pin(self.server_cpus)
        found: dict[str, Any] = {name: medians(results) for name, results in rounds.items()}
        return {**found, "pss_mb": memory, "ready_s": ready}

    # -- long runs -------------------------------------------------------------------------------------

    def half_saturation(self, bento: Running, saturation: float) -> dict[str, Any]:
        """Half of what it can do, for long enough that collections and seals of the log take place."""
        self.say(f"half of saturation, {saturation / 2:.0f} requests/s for {self.plan.half_seconds:g} s")
        result = self._paced(bento, 1, self.plan.half_seconds, saturation / 2, 64)
        result.pop("series")
        return result

    def overload(self, bento: Running, saturation: float) -> dict[str, Any]:
        """Normal load, twice of what it can do over far more connections, normal load again.

        With requests of many rows: of single ones a generator on one core cannot send twice of what is answered.
        """
        rows, seconds = _OVERLOAD_ROWS, self.plan.overload_seconds
        self.say(f"overload, {saturation * 2:.0f} requests/s of {rows} rows for {seconds:g} s")
        before = self._paced(bento, rows, 5, saturation / 2, 64)
        memory: list[float] = [pss_mb(bento.pids())]
        over = threading.Event()

        def watch() -> None:
            while not over.wait(1.0):
                memory.append(pss_mb(bento.pids()))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            during = self._paced(bento, rows, seconds, saturation * 2, _OVERLOAD_CONNECTIONS)
        finally:
            over.set()
            watcher.join()
        after = self._paced(bento, rows, 8, saturation / 2, 64)
        for one in (before, during):
            one.pop("series")
        return {
            "rows": rows,
            "before": before,
            "during": during,
            "after": after,
            "pss_before_mb": memory[0],
            "pss_max_mb": max(memory),
            "pss_after_mb": pss_mb(bento.pids()),
            "recovery_s": recovery(before, after),
        }

    def _paced(self, bento: Running, rows: int, seconds: float, rate: float, connections: int) -> dict[str, Any]:
        asked = bodies("flat", rows, _DIFFERENT[rows])
        done = threading.Event()

        def keep() -> None:
            while not done.wait(1.0):
                self.empty_spool()

        keeper = threading.Thread(target=keep)
        keeper.start()
        try:
            with bento.thawed():
                return self.generator.paced(
                    bento.port, "/predict/iris", asked, connections=connections, seconds=seconds, rate=rate
                )
        finally:
            done.set()
            keeper.join()


def recovery(before: dict[str, Any], after: dict[str, Any]) -> float | None:
    """Seconds until the median is at most twice what it was before, or None if it never is."""
    normal = 2 * max(before["p50_ms"], 0.1)
    for one in after["series"]:
        if one["p50_ms"] <= normal:
            return float(one["second"])
    return None
