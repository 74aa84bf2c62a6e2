"""Simulated traffic over a world of twins: what gateway, slots and log count while a virtual clock passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from contracts.world import World
from slipway.core.checks import SideLog
from slipway.core.rollout_record import Rollout
from slipway.core.routes import BackendStats, SlotName, cluster_name
from slipway.core.slot_metrics import SlotMetrics

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
CLASSES = np.array(["setosa", "versicolor", "virginica"])


@dataclass
class Behaviour:
    """How one version answers: latency in seconds, shares of failures (5xx), of 429 and of rows that it alone refuses
    (422), class shares, share of right answers."""

    latency: float = 0.003
    fails: float = 0.0
    rejects: float = 0.0
    refuses: float = 0.0
    shares: tuple[float, float, float] = (0.4, 0.3, 0.3)
    right: float | None = None
    lives_seconds: float | None = None


@dataclass
class TrafficTwin:
    """Requests at `rate` per second, split by the gateway's weights; `met` are those that a version met.

    Of the requests the share `invalid` is the clients' own mistake.
    """

    world: World
    rate: float = 300.0
    seed: int = 0
    versions: Mapping[str, Behaviour] = field(default_factory=dict)
    invalid: float = 0.0
    sent: int = 0
    met: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)
        self._up: dict[str, float] = {}

    def pass_time(self, seconds: float) -> None:
        """The requests of the next seconds."""
        self.world.clock.sleep(seconds)
        weights = self.world.gateway.weights("iris")
        running = {s.slot: s.version or "" for s in self.world.runtime.list() if s.running}
        for slot, version in running.items():
            self._up[version] = self._up.get(version, 0.0) + seconds
            lives = self.versions.get(version, Behaviour()).lives_seconds
            if lives is not None and self._up[version] >= lives:
                self.world.runtime.kill("iris", slot)
        total = int(self._random.poisson(self.rate * seconds))
        self.sent += total
        if weights:
            names = list(weights)
            counts = self._random.multinomial(total, [weights[name] / 100 for name in names])
            for slot, count in zip(names, counts, strict=True):
                self._answer(slot, running.get(slot, ""), int(count))  # type: ignore[arg-type, call-overload]

    def _answer(self, slot: SlotName, version: str, count: int) -> None:
        how, random = self.versions.get(version, Behaviour()), self._random
        self.met[version] = self.met.get(version, 0) + count
        failed, rejected = int(random.binomial(count, how.fails)), int(random.binomial(count, how.rejects))
        key = cluster_name("iris", slot)
        stats = self.world.gateway.stats.get(key, BackendStats())
        refused = int(random.binomial(count, self.invalid + how.refuses)) if self.invalid + how.refuses else 0
        failed, rejected = min(failed, count - refused), min(rejected, count - refused)
        self.world.gateway.stats[key] = replace(
            stats,
            requests=stats.requests + count,
            errors=stats.errors + failed,
            refused=stats.refused + refused + rejected,
        )
        good = max(0, count - failed - rejected - refused)
        times = random.lognormal(np.log(how.latency), 0.4, good)
        buckets = np.bincount(np.searchsorted(BOUNDS, times), minlength=len(BOUNDS) + 1)
        before = self.world.probe.counts.get(version) or SlotMetrics(bounds=BOUNDS, latency=(0,) * (len(BOUNDS) + 1))
        self.world.probe.counts[version] = replace(
            before,
            requests=before.requests + good,
            rejected=before.rejected + rejected,
            refused=before.refused + refused,
            latency=tuple(int(a + b) for a, b in zip(before.latency, buckets, strict=True)),
        )
        self._log(version, how, good)

    def _log(self, version: str, how: Behaviour, count: int) -> None:
        count = min(count, 500)  # as the log's sample does
        predictions = CLASSES[self._random.choice(3, size=count, p=how.shares)].tolist()
        known = self.world.answers.by_version.get(version, SideLog())
        labelled = list(known.labelled)
        if how.right is not None:
            right = self._random.random(count) < how.right
            labelled += [(p, p if ok else "another") for p, ok in zip(predictions, right, strict=True)]
        self.world.answers.by_version[version] = SideLog([*known.predictions, *predictions][-20_000:], labelled[-5000:])

    def drive(self, rollout: Rollout, *, step: float = 1.0, until: Callable[[Rollout], bool] | None = None) -> Rollout:
        """Advance the rollout under traffic until it has ended."""
        for _ in range(20_000):
            self.world.releases.advance("iris")
            rollout = self.world.parts.store.rollout(rollout.id)
            if rollout.ended or (until is not None and until(rollout)):
                return rollout
            self.pass_time(step)
        raise AssertionError(f"still {rollout.phase}")
