"""One face over everything about releases, for the DAGs, the keeper, the control API and the command line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from slipway.errors import NotFoundError
from slipway.jobs import reconcile as _reconcile
from slipway.jobs import release as _release
from slipway.jobs import rollback as _rollback
from slipway.jobs import sides as _sides
from slipway.jobs import survey as _survey
from slipway.jobs import traffic as _traffic
from slipway.jobs.parts import Parts

if TYPE_CHECKING:
    from slipway.core.fleet import ModelStatus
    from slipway.core.rollout_record import Rollout
    from slipway.core.routes import GatewayState, SlotName
    from slipway.jobs.reconcile import Finding
    from slipway.jobs.release import Progress
    from slipway.jobs.rollback import RolledBack
    from slipway.jobs.sides import Side
    from slipway.ports import LedgerEntry, Package
    from slipway.spec import RolloutPolicy

__all__ = ["Releases"]


@dataclass(frozen=True)
class Releases:
    """Releases of all models, through one set of adapters."""

    parts: Parts

    # --- rollouts ---------------------------------------------------------------------------------------

    def begin(
        self, package: Package, policy: RolloutPolicy, *, actor: str, reason: str, dag_run: str | None = None
    ) -> Rollout:
        """Start a rollout of the package; see `jobs.release.begin`."""
        return _release.begin(self.parts, package, policy, actor=actor, reason=reason, dag_run=dag_run)

    def advance(self, model: str) -> Progress | None:
        """Take the model's active rollout one step further; None when it has none."""
        return _release.advance(self.parts, model)

    def drive(self, rollout: Rollout, *, poll_seconds: float = 0.2) -> Iterator[Progress]:
        """Advance until the rollout has ended, yielding whatever an operator would want to read."""
        return _release.drive(self.parts, rollout, poll_seconds=poll_seconds)

    def rollback(
        self,
        model: str,
        to_version: str | None = None,
        *,
        actor: str,
        reason: str,
        dag_run: str | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> RolledBack:
        """Bring a former version back; see `jobs.rollback.rollback`."""
        run = _rollback.rollback
        return run(self.parts, model, to_version, actor=actor, reason=reason, dag_run=dag_run, progress=progress)

    def abort(
        self, model: str, *, actor: str, reason: str, progress: Callable[[Progress], None] | None = None
    ) -> Rollout:
        """End the running rollout and give all traffic back."""
        return _rollback.abort(self.parts, model, actor=actor, reason=reason, progress=progress)

    def promote(
        self, model: str, *, actor: str, reason: str, progress: Callable[[Progress], None] | None = None
    ) -> Rollout:
        """Make the running rollout's version live without waiting for its bake."""
        return _rollback.promote(self.parts, model, actor=actor, reason=reason, progress=progress)

    def approve(self, model: str, *, actor: str, reason: str) -> Rollout:
        """Agree to what the running rollout waits for."""
        return _rollback.approve(self.parts, model, actor=actor, reason=reason)

    def reject(
        self, model: str, *, actor: str, reason: str, progress: Callable[[Progress], None] | None = None
    ) -> Rollout:
        """Refuse what the running rollout waits for, and give all traffic back."""
        return _rollback.reject(self.parts, model, actor=actor, reason=reason, progress=progress)

    # --- traffic ----------------------------------------------------------------------------------------

    def set_split(self, model: str, split: Mapping[str, int], *, actor: str, reason: str) -> dict[SlotName, int]:
        """Set a lasting A/B split; see `jobs.traffic.set_split`."""
        return _traffic.set_split(self.parts, model, split, actor=actor, reason=reason)

    def sides(self, model: str) -> dict[str, Side]:
        """What champion and challenger did with their parts of the traffic; see `jobs.sides`."""
        return _sides.sides(self.parts, model)

    def know(self, models: Collection[str]) -> None:
        """Let the gateway route models that were never released: they answer that no version is live."""
        missing = set(models) - {row.model for row in self.parts.store.traffic()}
        if missing:
            self.parts.store.know(missing, self.parts.clock.now())
            _traffic.apply_fleet(self.parts)

    def apply(self) -> GatewayState:
        """Publish the fleet from the tables and wait until the gateway applies it."""
        return _traffic.apply_fleet(self.parts)

    # --- keeping it true ----------------------------------------------------------------------------------

    def reconcile(self, *, registry: bool = True) -> list[Finding]:
        """Compare gateway, slots, ledger and, with `registry`, the alias with the tables; repair or report."""
        return _reconcile.reconcile(self.parts, registry=registry)

    def reconcile_registry(self) -> list[Finding]:
        """Move the registry's champion aliases after the live versions."""
        return _reconcile.reconcile_registry(self.parts)

    def survey(self, *, registry: bool = True) -> list[Finding]:
        """The same comparison, which changes nothing; see `jobs.survey`."""
        return _survey.survey(self.parts, registry=registry)

    def take_over(self, silence_seconds: float, taken: set[str] | None = None) -> list[Finding]:
        """Advance rollouts whose driver has gone silent; see `jobs.reconcile`."""
        return _reconcile.take_over(self.parts, silence_seconds, taken)

    # --- reading ------------------------------------------------------------------------------------------

    def status(self, model: str | None = None) -> list[ModelStatus]:
        """Every model's live version, slots, weights and running rollout."""
        return _traffic.status(self.parts, model)

    def live(self, model: str) -> Package:
        """The package that is live now.

        Raises:
            NotFoundError: nothing is live.
        """
        version = self.parts.store.traffic_of(model).live_version
        if version is None:
            raise NotFoundError(f"no version of {model} is live; release one first")
        return self.parts.store.package(model, version)

    def kept_versions(self, model: str, keep: int = 3) -> list[str]:
        """Versions that a rollback can reach, the most recently live first."""
        return _rollback.kept_versions(self.parts, model, keep)

    def live_at(self, model: str, at: datetime) -> LedgerEntry | None:
        """The ledger row that made the version live that was live at that time."""
        return self.parts.ledger.live_at(model, at)

    def history(self, model: str | None = None, limit: int = 100) -> Sequence[LedgerEntry]:
        """The newest ledger rows first."""
        return self.parts.ledger.history(model, limit)
