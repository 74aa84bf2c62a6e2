"""In-memory twins of the runtime, the gateway, the probe and the rest, with faults a test can switch on.

Given a folder, runtime, gateway and registry keep their state in files there, so that a driver in another
process can be killed and the next one meets the same world.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

from slipway.core.checks import Pair, SideLog
from slipway.core.routes import Address, BackendStats, GatewayState, Route, cluster_name
from slipway.core.slot_metrics import SlotMetrics
from slipway.errors import ArtefactError, GatewayError, RegistryError, RuntimeSlotError
from slipway.jobs.parts import LoggedLatency, LoggedRequest
from slipway.ports import ModelVersion, Package, Readiness, Slot, SlotAnswer


class TwinClock:
    """A clock that moves only when somebody sleeps, or a test says so."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)

    def now(self) -> datetime:
        self.time += timedelta(milliseconds=1)
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


class _State:
    """A JSON value in memory, or in a file that is replaced whole."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._value = path, "{}"

    def read(self) -> dict[str, dict[str, object]]:
        if self._path is not None:
            self._value = self._path.read_text() if self._path.exists() else "{}"
        return dict(json.loads(self._value))

    def write(self, value: Mapping[str, object]) -> None:
        self._value = json.dumps(value)
        if self._path is not None:
            aside = self._path.with_suffix(".aside")
            aside.write_text(self._value)
            aside.rename(self._path)


class TwinRuntime:
    """Slots that are rows; `crashing` names versions whose process never stays up."""

    def __init__(self, folder: Path | None = None) -> None:
        self._state = _State(folder / "runtime.json" if folder else None)
        self.down = False
        self.crashing: set[str] = set()
        self.starts: list[tuple[str, str, str]] = []
        self.stops: list[tuple[str, str]] = []

    def start(self, slot: Slot, package: Package) -> None:
        self._check()
        state = self._state.read()
        running = package.version not in self.crashing
        row = {**asdict(slot), "version": package.version, "bento_tag": package.bento_tag, "running": running}
        key = cluster_name(slot.model, slot.slot)
        if state.get(key) != row:
            self.starts.append((slot.model, slot.slot, package.version))
        state[key] = row
        self._state.write(state)

    def stop(self, slot: Slot, drain_seconds: float) -> None:
        self._check()
        state = self._state.read()
        if state.pop(cluster_name(slot.model, slot.slot), None) is not None:
            self.stops.append((slot.model, slot.slot))
        self._state.write(state)

    def list(self) -> Sequence[Slot]:
        self._check()
        return self.rows()

    def rows(self) -> list[Slot]:
        """What runs, also while the runtime itself does not answer."""
        return [Slot(**row) for row in self._state.read().values()]  # type: ignore[arg-type]

    def kill(self, model: str, slot: str) -> None:
        state = self._state.read()
        state[cluster_name(model, slot)]["running"] = False
        self._state.write(state)

    def _check(self) -> None:
        if self.down:
            raise RuntimeSlotError("the runtime does not answer")


class TwinGateway:
    """Applies what is published at once, unless it is `down`; counters are set by the test."""

    def __init__(self, folder: Path | None = None) -> None:
        self._state = _State(folder / "gateway.json" if folder else None)
        self.down = False
        self.uptime_seconds: float | None = None
        self.deaf = False  # answers, but does not take new routes
        self.stats: dict[str, BackendStats] = {}
        self.published: list[dict[str, dict[str, int]]] = []

    def version(self, fleet: Sequence[Route]) -> str:
        return hashlib.sha256(json.dumps([asdict(route) for route in fleet]).encode()).hexdigest()[:12]

    def publish(self, fleet: Sequence[Route]) -> None:
        if self.deaf:
            return
        weights = {route.model: dict(route.weights) for route in fleet}
        shadows = {route.model: {route.shadow_slot: route.shadow_percent} for route in fleet if route.shadow_slot}
        self.published.append({model: dict(slots) for model, slots in weights.items()})
        self._state.write({"version": {"is": self.version(fleet)}, "weights": weights, "shadows": shadows})

    def confirm(self, fleet: Sequence[Route], wait_seconds: float = 5.0) -> GatewayState:
        state = self.observe()
        if state.version != self.version(fleet):
            raise GatewayError("the gateway applies other routes")
        return state

    def observe(self) -> GatewayState:
        if self.down:
            raise GatewayError("the gateway does not answer")
        state = self._state.read()
        weights = state.get("weights", {})
        version, shadows = str(state.get("version", {}).get("is", "")), state.get("shadows", {})
        return GatewayState(version, weights, dict(self.stats), shadows, self.uptime_seconds)  # type: ignore[arg-type]

    def weights(self, model: str) -> dict[str, int]:
        return dict(self._state.read().get("weights", {}).get(model, {}))  # type: ignore[call-overload]


class TwinProbe:
    """Every running slot is ready, unless its version is in `wrong` or the answer is set."""

    def __init__(self, runtime: TwinRuntime) -> None:
        self._runtime = runtime
        self.wrong: set[str] = set()
        self.silent = False
        self.taken_ports: set[int] = set()
        self.asked = 0
        self.counts: dict[str, SlotMetrics] = {}  # by version
        self.blind: set[str] = set()  # versions whose metrics cannot be read
        self.model: Callable[[str, Mapping[str, object]], str | float] = lambda version, row: "setosa"
        self.predicted: list[tuple[str, str]] = []

    def metrics(self, address: Address) -> SlotMetrics:
        version = self._version(address)
        if version in self.blind:
            raise RuntimeSlotError("the slot's metrics cannot be read")
        return self.counts.get(version, SlotMetrics())

    def predict(self, model: str, address: Address, body: Mapping[str, object], request_id: str) -> SlotAnswer:
        version = self._version(address)
        self.predicted.append((version, request_id))
        rows: list[Mapping[str, object]] = body["rows"]  # type: ignore[assignment]
        return SlotAnswer(200, tuple(self.model(version, row) for row in rows), 1.0)

    def _version(self, address: Address) -> str:
        here = [slot for slot in self._runtime.rows() if slot.address == address and slot.running]
        if not here:
            raise RuntimeSlotError("the slot does not answer")
        return here[0].version or ""

    def ready(self, model: str, address: Address) -> Readiness:
        self.asked += 1
        if self.silent:
            return Readiness(None, "no answer in time")
        here = [slot for slot in self._runtime.rows() if slot.address == address and slot.running]
        if not here:
            return Readiness(False, "nothing listens", dead=True)
        if here[0].version in self.wrong:
            return Readiness(False, "golden row 0 came out wrong")
        return Readiness(True, "ready", {"version": here[0].version})

    def port_is_free(self, port: int) -> bool:
        return port not in self.taken_ports


class TwinRegistry:
    """Aliases in a dict."""

    def __init__(self, folder: Path | None = None) -> None:
        self._state = _State(folder / "registry.json" if folder else None)
        kept = self._state.read().items()
        self.aliases = {(model, alias): str(to) for model, own in kept for alias, to in own.items()}
        self.down = False
        self.moves = 0

    def set_alias(self, model: str, alias: str, version: str) -> None:
        if self.down:
            raise RegistryError("MLflow does not answer")
        self.moves += 1
        self.aliases[(model, alias)] = version
        models = {model for model, _ in self.aliases}
        self._state.write({one: {a: to for (m, a), to in self.aliases.items() if m == one} for one in models})

    def versions(self, model: str) -> Sequence[ModelVersion]:
        return []

    def version(self, model: str, version: str) -> ModelVersion:
        raise NotImplementedError

    def by_alias(self, model: str, alias: str) -> ModelVersion | None:
        if self.down:
            raise RegistryError("MLflow does not answer")
        version = self.aliases.get((model, alias))
        return None if version is None else ModelVersion(model, version, f"run-{version}", datetime.now(UTC))

    def tag(self, model: str, version: str, tags: Mapping[str, str]) -> None:
        raise NotImplementedError


class TwinAnswers:
    """A prediction log that a test fills; `broken` makes every look at it fail."""

    def __init__(self) -> None:
        self.by_version: dict[str, SideLog] = {}
        self.mirrored: list[Pair] = []
        self.requests: list[LoggedRequest] = []
        self.reports: dict[str, str] = {}
        self.broken = False

    def sides(self, model: str, since: datetime, until: datetime, versions: Sequence[str]) -> Mapping[str, SideLog]:
        if self.broken:
            raise OSError("the lake is away")
        known = self.by_version if since < until else {}
        return {version: known.get(version, SideLog()) for version in versions}

    def pairs(self, model: str, since: datetime, until: datetime, old: str, new: str) -> Sequence[Pair]:
        if self.broken:
            raise OSError("the lake is away")
        return self.mirrored

    def last_requests(self, model: str, until: datetime, limit: int) -> Sequence[LoggedRequest]:
        if self.broken:
            raise OSError("the lake is away")
        return self.requests[-limit:]

    def latency(self, model: str, since: datetime, until: datetime) -> Mapping[str, LoggedLatency]:
        return {v: LoggedLatency(len(s.predictions), len(s.predictions), 1.0, 2.0) for v, s in self.by_version.items()}

    def write_report(self, model: str, run: str, name: str, content: str) -> str:
        self.reports[name] = content
        return f"memory://{run}/{name}"


class TwinPackager:
    """Packages that are whole, unless their version is in `damaged`."""

    def __init__(self) -> None:
        self.damaged: set[str] = set()

    def build(self, model: str, version: str) -> Package:
        return package(model, version)

    def verify(self, package: Package) -> None:
        if package.version in self.damaged:
            raise ArtefactError(f"{package.bento_tag}: its digest differs")


def package(model: str = "iris", version: str = "1") -> Package:
    """A package of nothing."""
    tag = f"{model}:v{version}"
    return Package(
        model, version, tag, Path("/nowhere") / tag, f"digest-{version}", "d" * 64, "c0ffee", {"gate": "won"}
    )


@contextlib.contextmanager
def fault_hook(hook: object) -> Iterator[None]:
    """Install a fault hook for a while."""
    from slipway.core import faults

    faults.install(hook)  # type: ignore[arg-type]
    try:
        yield
    finally:
        faults.install(None)
