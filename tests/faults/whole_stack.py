"""A whole embedded stack for fault runs: its own home and ports, a quick policy, and hooks in its processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from faults.judging import MODEL, Killed
from loop.conftest import PORTS, SLOTS, Stack, free_ports
from slipway.errors import SlipwayError
from slipway.ports import Packager
from slipway.settings import PROJECT_DIR, Settings
from slipway.stack.processes import ancestors
from slipway.stack.supervisor import Supervisor
from slipway.wiring import Wiring

__all__ = ["HOME", "ROW", "FaultStack", "until"]

HOME = PROJECT_DIR / "var" / "faults"
FLEET = Path(__file__).parent / "fleet"
_LONGEST_DEATH_SECONDS = 10.0
ROW = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true value of `condition`; errors of a stack that is being shaken count as false."""
    deadline = time.monotonic() + seconds
    while True:
        value, why = None, ""
        try:
            value = condition()
        except (SlipwayError, httpx.HTTPError, OSError, KeyError) as error:
            why = f" ({error})"
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s{why}")
        time.sleep(0.05)


class FaultStack:
    """The stack as the harness handles it; with a home of its own, beside others."""

    def __init__(self, fleet: Path = FLEET, home: Path = HOME) -> None:
        self._fleet, self.home = fleet, home
        env = {name: value for name, value in os.environ.items() if not name.startswith(("SLIPWAY_", "AIRFLOW"))}
        ports = free_ports(len(PORTS) + SLOTS)
        env |= {f"SLIPWAY_{name.upper()}_PORT": str(port) for name, port in zip(PORTS, ports, strict=False)}
        env |= {
            "SLIPWAY_HOME": str(home),
            "SLIPWAY_SLOT_PORT_BASE": str(ports[len(PORTS)]),
            "SLIPWAY_FLEET_DIR": str(fleet),
            "SLIPWAY_FAULT_HOOK": str(Path(__file__).parent / "hook.py"),
            "SLIPWAY_DRIVER_SILENCE_SECONDS": "2",
            "SLIPWAY_KEEPER_INTERVAL_SECONDS": "0.5",
            "SLIPWAY_SPOOL_SEGMENT_MAX_AGE_SECONDS": "1",
            "PYTHONPATH": str(PROJECT_DIR / "include"),
        }
        self.stack = Stack(home, env)
        self.folder = home / "faults"

    @contextlib.contextmanager
    def running(self, versions: int) -> Iterator[FaultStack]:
        """Up, with that many versions of iris registered and packaged and the first one live; down at the end."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that a harness that is stopped stops its stack
        if self.home.exists():
            self.cli("down", check=False)
            shutil.rmtree(self.home)
        try:
            self._say("starting the stack")
            self.cli("up")
            for name in ("orders", "hits"):
                (self.folder / name).mkdir(parents=True)
            self.stack.processes()  # remembers the session
            for _ in range(versions):
                self._say(f"version {self.make_version()} is registered and packaged")
            if versions:
                self.cli("release", "iris", "--version", "1")
            yield self
        finally:
            self.cli("down", check=False)
        left = self.stack.processes()
        if left:
            raise RuntimeError(f"`slipway down` left {[process.command[:80] for process in left]}")

    @staticmethod
    def _say(text: str) -> None:
        print(f"{datetime.now(UTC):%H:%M:%S} {text}", file=sys.stderr, flush=True)

    say = _say

    def cli(self, *arguments: str, check: bool = True) -> None:
        """One command, to its end.

        Raises:
            RuntimeError: it failed.
        """
        command = [sys.executable, "-m", "slipway.cli", *arguments]
        done = subprocess.run(command, env=self.stack.env, capture_output=True, text=True, timeout=600, check=False)
        if check and done.returncode:
            raise RuntimeError(f"slipway {' '.join(arguments)}: {done.stdout[-2000:]}\n{done.stderr[-2000:]}")

    @property
    def settings(self) -> Settings:
        return self.stack.settings().model_copy(update={"fleet_dir": self._fleet})

    _wiring: Wiring | None = None

    @property
    def slipway(self) -> Wiring:
        if self._wiring is None:
            self._wiring = Wiring(self.settings)
        return self._wiring

    def make_version(self, model: str = "iris", packager: Packager | None = None) -> str:
        """Train and register one more version of the same data, and build its bento."""
        from slipway.adapters.onnx import OnnxModelFiles
        from slipway.jobs.gate import register
        from slipway.jobs.package import package
        from slipway.jobs.snapshot import snapshot
        from slipway.jobs.train import train

        slipway = self.slipway
        spec, mlflow = slipway.spec(model), slipway.mlflow
        number = 1 + max((int(one.version) for one in mlflow.versions(model)), default=0)
        trained = train(
            spec, snapshot(spec, slipway.lake), lake=slipway.lake, tracker=mlflow, registry=mlflow,
            files=OnnxModelFiles(), decisions=None, reason="manual", code_commit="faults", key=f"faults-{number}",
        )  # fmt: skip
        evidence = {
            "run_id": trained["run_id"], "verdict": "pass", "reason": "manual", "metric": "accuracy", "challenger": 1.0
        }  # fmt: skip
        version = register(spec, trained["run_id"], evidence, tracker=mlflow, registry=mlflow).version
        package(model, version, packager=packager or slipway.packager, registry=mlflow)
        return version

    # --- orders to the hooks --------------------------------------------------------------------------------

    def order(self, name: str, what: str) -> None:
        """Let the next process of a role that comes to a point be killed, or hold: `driver@wanted`."""
        for old in (name, f"{name}.go"):
            (self.folder / "hits" / old).unlink(missing_ok=True)
        aside = self.folder / f"order-{os.getpid()}"
        aside.write_text(what)
        aside.rename(self.folder / "orders" / name)

    def hit(self, name: str) -> bool:
        return (self.folder / "hits" / name).exists()

    def go(self, name: str) -> None:
        """Let whoever holds at this order go on."""
        (self.folder / "hits" / f"{name}.go").touch()

    def clear_orders(self) -> None:
        """Nobody is killed any more, and whoever holds goes on."""
        for path in (self.folder / "orders").iterdir():
            path.unlink(missing_ok=True)
            self.go(path.name)
        for path in (self.folder / "hits").iterdir():
            if path.suffix != ".go":
                self.go(path.name)

    # --- what is killed -------------------------------------------------------------------------------------

    def pid(self, part: str) -> int:
        """The process that Supervisor runs for a part."""
        states = Supervisor(self.settings).states()
        return next((state.pid for state in states if part in (state.name, state.group) and state.up), 0)

    def stopped(self, *parts: str) -> bool:
        """Whether nothing of these parts is left; what is being stopped may still take a whole core for seconds."""
        states = Supervisor(self.settings).states()
        return not any(state.pid for state in states if {state.name, state.group} & set(parts))

    def kill(self, part: str, *, whole: bool = True) -> Killed:
        """Kill what Supervisor runs for a part, and wait until nothing of it is left.

        Args:
            whole: with the workers that a bento's process has started; else they are left to notice it.
        """
        pid = until(lambda: self.pid(part), 30, f"{part} to run")
        slot = part.removeprefix(f"slot-{MODEL}-")
        carried = part == "envoy" or slot in self.slipway.store.traffic_of(MODEL).weights
        is_slot = slot != part
        family = [one for one in self.stack.processes() if pid in ancestors(one.pid)] if is_slot else []
        at = time.time()
        for victim in [pid, *(one.pid for one in family if whole and one.pid != pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        if is_slot:
            gone = f"the workers of {part} to end"
            until(lambda: not any(one.exists() for one in family), _LONGEST_DEATH_SECONDS, gone)
        return Killed(part, at, time.time(), carried)

    # --- what must hold -------------------------------------------------------------------------------------

    def settle(self, seconds: float = 90.0) -> None:
        """Wait until every part runs, no rollout is active and everything agrees.

        Raises:
            TimeoutError: it does not come to that; the message says what differs.
        """
        differences: list[str] = []

        def agree() -> bool:
            differences[:] = [
                f"{state.name} is {state.state}"
                for state in Supervisor(self.settings).states()
                if state.state != "RUNNING"
            ]
            differences.extend(f"{one.kind}: {one.detail}" for one in self.slipway.releases.survey())
            differences.extend(f"active: {one.phase}" for one in self.slipway.store.all_active())
            return not differences

        try:
            until(agree, seconds, "the stack to agree with itself")
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {'; '.join(differences)}") from None

    def orphans(self, seconds: float = 20.0) -> list[str]:
        """Processes of the stack that supervisord did not start, directly or not; those that end in time may."""
        supervisor = Supervisor(self.settings).session()

        def left() -> list[str]:
            return [
                f"{process.pid} {process.command[:100]}"
                for process in self.stack.processes()
                if process.exists() and supervisor not in ancestors(process.pid)
            ]

        with contextlib.suppress(TimeoutError):
            until(lambda: not left(), seconds, "orphans to end")
        return left()
