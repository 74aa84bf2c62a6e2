"""The statsd bridge: takes Airflow's statsd lines over UDP and shows them to Prometheus.

Run as `python -m slipway.stack.statsd`. It stands in for statsd_exporter where no such program can be
installed, and reads the same mapping file.
"""

from __future__ import annotations

import bisect
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import Metric

from slipway.errors import SlipwayError
from slipway.settings import load_settings
from slipway.stack.statsd_mapping import Mapped, MappingRules, load_mapping

__all__ = ["Store", "main"]

MAX_SERIES = 10_000  # a runaway name in a DAG must not fill the memory
_LINE = re.compile(
    r"(?P<name>[^:|]+):(?P<value>[+-]?[0-9.eE+-]+)\|(?P<kind>c|g|ms|h|d)(?:\|@(?P<rate>[0-9.]+))?(?:\|#.*)?"
)

Labels = tuple[tuple[str, str], ...]


@dataclass
class _Observations:
    buckets: tuple[float, ...]
    counts: list[int]
    sum: float = 0.0
    count: int = 0


@dataclass
class _Family:
    kind: str  # counter, gauge, histogram or summary
    help: str
    values: dict[Labels, float] = field(default_factory=dict)
    observations: dict[Labels, _Observations] = field(default_factory=dict)


class Store:
    """The current value of every series; a collector of prometheus_client. Safe for use from two threads."""

    def __init__(self, rules: MappingRules) -> None:
        self._rules = rules
        self._lock = threading.Lock()
        self._families: dict[str, _Family] = {}
        self._series = 0
        self._totals = {"lines": 0, "malformed": 0, "refused": 0}

    def take(self, packet: bytes) -> None:
        """Takes one datagram, which holds one statsd line or several; what is malformed is counted."""
        with self._lock:
            for line in packet.decode(errors="replace").splitlines():
                if line.strip():
                    self._totals["lines"] += 1
                    self._take_line(line.strip())

    def _take_line(self, line: str) -> None:
        match = _LINE.fullmatch(line)
        try:
            value, rate = (float(match["value"]), float(match["rate"] or 1)) if match else (0.0, 0.0)
        except ValueError:
            rate = 0.0
        if match is None or rate <= 0:
            self._totals["malformed"] += 1
            return
        mapped = self._rules.apply(match["name"])
        if mapped is None:
            return
        match match["kind"]:
            case "c":
                self._add(mapped, "counter", value / rate)
            case "g":
                self._set(mapped, value, relative=match["value"][0] in "+-")
            case kind:
                self._observe(mapped, value / 1000 if kind == "ms" else value, round(1 / rate))

    def _family(self, mapped: Mapped, kind: str) -> _Family | None:
        family = self._families.setdefault(mapped.name, _Family(kind, mapped.help))
        known = mapped.labels in family.values or mapped.labels in family.observations
        if family.kind != kind or (not known and self._series >= MAX_SERIES):
            self._totals["refused"] += 1
            return None
        self._series += not known
        return family

    def _add(self, mapped: Mapped, kind: str, value: float) -> None:
        if (family := self._family(mapped, kind)) is not None:
            family.values[mapped.labels] = family.values.get(mapped.labels, 0.0) + value

    def _set(self, mapped: Mapped, value: float, *, relative: bool) -> None:
        if (family := self._family(mapped, "gauge")) is not None:
            family.values[mapped.labels] = value + (family.values.get(mapped.labels, 0.0) if relative else 0.0)

    def _observe(self, mapped: Mapped, value: float, times: int) -> None:
        if (family := self._family(mapped, mapped.observer)) is None:
            return
        seen = family.observations.get(mapped.labels)
        if seen is None:
            seen = _Observations(mapped.buckets, [0] * (len(mapped.buckets) + 1))
            family.observations[mapped.labels] = seen
        seen.counts[bisect.bisect_left(seen.buckets, value)] += times
        seen.sum += value * times
        seen.count += times

    def collect(self) -> Iterator[Metric]:
        """All series, as prometheus_client wants them."""
        with self._lock:
            found = [_render(name, family) for name, family in sorted(self._families.items())]
            own = Metric("statsd_bridge_lines", "Statsd lines by what became of them.", "counter")
            for outcome, count in self._totals.items():
                own.add_sample("statsd_bridge_lines_total", {"outcome": outcome}, count)
        yield from [*found, own]


def _render(name: str, family: _Family) -> Metric:
    # The text format gets `_total` from the family's kind, so a name that has it already is shortened first.
    base = name.removesuffix("_total") if family.kind == "counter" else name
    metric = Metric(base, family.help, family.kind)
    for labels, value in family.values.items():
        metric.add_sample(f"{base}_total" if family.kind == "counter" else name, dict(labels), value)
    for labels, seen in family.observations.items():
        if family.kind == "histogram":
            running = 0
            for bound, count in zip((*map(str, seen.buckets), "+Inf"), seen.counts, strict=True):
                running += count
                metric.add_sample(f"{name}_bucket", {**dict(labels), "le": bound}, running)
        metric.add_sample(f"{name}_sum", dict(labels), seen.sum)
        metric.add_sample(f"{name}_count", dict(labels), seen.count)
    return metric


def main() -> None:
    """Serves until it is told to stop."""
    settings = load_settings()
    store = Store(load_mapping(settings.project_dir / "monitoring" / "statsd" / "mapping.yml"))
    registry = CollectorRegistry()
    registry.register(store)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind((settings.host, settings.statsd_port))
        start_http_server(settings.statsd_metrics_port, settings.host, registry)
        while True:
            store.take(receiver.recv(65536))


if __name__ == "__main__":
    try:
        main()
    except SlipwayError as error:
        sys.exit(f"statsd bridge: {error}")
