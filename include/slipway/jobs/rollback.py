"""What an operator does to traffic by hand: roll back, abort a rollout, promote one without waiting.

None of it needs Airflow or MLflow: Postgres, the gateway and the slot runtime are enough.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from slipway.core.fleet import fallback_version
from slipway.core.rollout_record import Phase, Rollout
from slipway.core.routes import other_slot
from slipway.errors import ArtefactError, ConflictError, NotFoundError, RolloutError
from slipway.jobs.release import Progress, awaits_approval, begin, drive, sync_alias
from slipway.jobs.traffic import set_split
from slipway.policy import RolloutPolicy

if TYPE_CHECKING:
    from slipway.jobs.parts import Parts

__all__ = ["RolledBack", "abort", "approve", "kept_versions", "promote", "reject", "rollback"]

_POLL_SECONDS = 0.05
_RECENT_ROWS = 1000


@dataclass(frozen=True)
class RolledBack:
    """What a rollback did.

    Attributes:
        what: `rolled_back`; `aborted` when it was enough to end the running rollout; `nothing` when the version
            was live already.
        warm: the version was still running, so only weights moved.
        seconds: until the traffic was back; 0 when nothing had to move.
    """

    what: Literal["rolled_back", "aborted", "nothing"]
    model: str
    from_version: str | None
    to_version: str | None
    warm: bool
    seconds: float
    alias_pending: bool
    rollout_id: str | None = None


def kept_versions(parts: Parts, model: str, keep: int = 3) -> list[str]:
    """The versions that a rollback can reach, the most recently live first; the live one is not among them."""
    live = parts.store.traffic_of(model).live_version
    recent: list[str] = []
    for row in reversed(parts.ledger.went_live(model)):
        if row.version and row.version != live and row.version not in recent:
            recent.append(row.version)
    return recent[:keep]


def rollback(
    parts: Parts,
    model: str,
    to_version: str | None = None,
    *,
    actor: str,
    reason: str,
    dag_run: str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> RolledBack:
    """Bring a former version back; by default the one before the live one.

    A rollout that is running is ended first; without `to_version` that is all. Repeated with the same `dag_run`
    it changes nothing.

    Raises:
        NotFoundError: there is no such version to go back to; the message lists those that are kept.
        ArtefactError: its artefacts were damaged; nothing was changed.
        RolloutError: the version could not be brought back; the live one stayed.
    """
    started = parts.clock.now()

    def result(what: Literal["rolled_back", "aborted", "nothing"], left: str | None, to: str | None) -> RolledBack:
        behind = parts.store.traffic_of(model)
        pending = behind.alias_version != behind.live_version
        return RolledBack(what, model, left, to, warm, seconds, pending, rollout_id)

    warm, rollout_id, seconds = False, None, 0.0
    before = dag_run and parts.store.latest(model, phase=Phase.LIVE, dag_run=dag_run)
    if before and before.kind == "rollback":
        rollout_id = before.id
        return result("rolled_back", before.previous_version, before.version)
    asked_before = _asked_to_end(parts, model, dag_run)
    running = asked_before or parts.store.active(model)
    if running is None or to_version is not None:
        _refuse_damaged(parts, model, _target(parts, model, to_version))
    if running and not (running.kind == "rollback" and to_version in (None, running.version)):
        if asked_before is None:
            now = parts.clock.now()
            parts.store.command(running, "abort", actor=actor, reason=reason, now=now, dag_run=dag_run)
        ended = _finish(parts, running, progress)
        live = parts.store.traffic_of(model).live_version
        if ended.phase is not Phase.LIVE and to_version in (None, live):
            seconds = (parts.clock.now() - started).total_seconds()
            return result("aborted", ended.version, live)
        running = None
    if running is None:
        traffic = parts.store.traffic_of(model)
        target = _target(parts, model, to_version)
        if target == traffic.live_version:
            return result("nothing", target, target)
        idle = other_slot(traffic.live_slot)
        held = next((slot.version for slot in parts.store.slots(model) if slot.slot == idle), None)
        warm = held == target
        if traffic.weights.get(idle) and not warm:
            set_split(parts, model, {"champion": 100}, actor=actor, reason=reason)
        running = _begin(parts, model, target, actor=actor, reason=reason, dag_run=dag_run)
    rollout_id = running.id
    ended = _finish(parts, running, progress)
    if ended.phase is not Phase.LIVE:
        raise RolloutError(f"{model} version {ended.version} could not be brought back: {ended.failure}")
    seconds = (parts.clock.now() - started).total_seconds()
    sync_alias(parts, model)
    return result("rolled_back", ended.previous_version, ended.version)


def _asked_to_end(parts: Parts, model: str, dag_run: str | None) -> Rollout | None:
    """The rollout that this DAG run asked to end when it was tried before; another target would be one too far."""
    if dag_run is None:
        return None
    for row in parts.ledger.history(model, _RECENT_ROWS):
        if row.event == "abort_asked" and row.rollout_id and row.detail.get("dag_run") == dag_run:
            return parts.store.rollout(row.rollout_id)
    return None


def _target(parts: Parts, model: str, to_version: str | None) -> str:
    traffic = parts.store.traffic_of(model)
    latest = parts.store.latest(model, phase=Phase.LIVE)
    kept = kept_versions(parts, model, latest.policy.keep_versions if latest else 3)
    known = ", ".join(kept) or "none"
    if to_version is None:
        rows = parts.ledger.went_live(model)
        to_version = fallback_version([(row.version or "", str(row.detail.get("kind"))) for row in rows])
        if to_version is None:
            raise NotFoundError(f"{model} has no version before the live one; kept versions: {known}")
    elif to_version != traffic.live_version and to_version not in kept:
        raise NotFoundError(f"{model} version {to_version} is not kept for a rollback; kept versions: {known}")
    return to_version


def _refuse_damaged(parts: Parts, model: str, version: str) -> None:
    """Also while it is warm: what cannot be started again must not become the only version."""
    if version == parts.store.traffic_of(model).live_version:
        return
    try:
        parts.packages.verify(parts.store.package(model, version))
    except ArtefactError as error:
        others = ", ".join(other for other in kept_versions(parts, model) if other != version) or "none"
        raise ArtefactError(f"{error}; other versions to roll back to: {others}") from error


def _begin(parts: Parts, model: str, version: str, *, actor: str, reason: str, dag_run: str | None) -> Rollout:
    latest = parts.store.latest(model, phase=Phase.LIVE)
    kept = latest.policy if latest else RolloutPolicy()
    package = parts.store.package(model, version)
    policy = kept.without_evidence()
    return begin(parts, package, policy, actor=actor, reason=reason, kind="rollback", dag_run=dag_run)


def _finish(parts: Parts, rollout: Rollout, progress: Callable[[Progress], None] | None) -> Rollout:
    for step in drive(parts, rollout, poll_seconds=_POLL_SECONDS):
        rollout = step.rollout
        if progress:
            progress(step)
    return rollout


def abort(
    parts: Parts, model: str, *, actor: str, reason: str, progress: Callable[[Progress], None] | None = None
) -> Rollout:
    """End the running rollout, give all traffic back, and return the rollout as it ended.

    It may end `live` when the promotion was already under way; then roll back instead.

    Raises:
        NotFoundError: no rollout runs.
    """
    rollout = parts.store.active(model)
    if rollout is None:
        raise NotFoundError(f"no rollout of {model} runs; `slipway rollback {model}` brings a former version back")
    parts.store.command(rollout, "abort", actor=actor, reason=reason, now=parts.clock.now())
    return _finish(parts, rollout, progress)


def promote(
    parts: Parts, model: str, *, actor: str, reason: str, progress: Callable[[Progress], None] | None = None
) -> Rollout:
    """Make the running rollout's version live without waiting for its bake; a failed check still rolls it back.

    Raises:
        NotFoundError: no rollout runs.
        ConflictError: it is being rolled back already.
        RolloutError: it ended without the version live.
    """
    rollout = parts.store.active(model)
    if rollout is None:
        raise NotFoundError(f"no rollout of {model} runs; start one with `slipway release {model}`")
    if rollout.phase is Phase.ROLLING_BACK:
        raise ConflictError(f"{model} version {rollout.version} is being rolled back: {rollout.failure}")
    parts.store.command(rollout, "promote", actor=actor, reason=reason, now=parts.clock.now())
    ended = _finish(parts, rollout, progress)
    if ended.phase is not Phase.LIVE:
        raise RolloutError(f"{model} version {ended.version} did not go live: {ended.failure}")
    return ended


def approve(parts: Parts, model: str, *, actor: str, reason: str) -> Rollout:
    """Agree to what the running rollout waits for; whoever drives it goes on.

    Raises:
        NotFoundError: no rollout runs.
        ConflictError: nobody was asked.
    """
    rollout = _asked(parts, model)
    if not parts.store.approve(rollout, actor=actor, reason=reason, now=parts.clock.now()):
        raise ConflictError(f"the rollout of {model} version {rollout.version} went on meanwhile and asks nobody")
    return parts.store.rollout(rollout.id)


def reject(
    parts: Parts, model: str, *, actor: str, reason: str, progress: Callable[[Progress], None] | None = None
) -> Rollout:
    """Refuse what the running rollout waits for, give all traffic back, and return it as it ended.

    Raises:
        NotFoundError: no rollout runs.
        ConflictError: nobody was asked.
    """
    rollout = _asked(parts, model)
    parts.store.command(rollout, "reject", actor=actor, reason=reason, now=parts.clock.now())
    return _finish(parts, rollout, progress)


def _asked(parts: Parts, model: str) -> Rollout:
    rollout = parts.store.active(model)
    if rollout is None:
        raise NotFoundError(f"no rollout of {model} runs")
    if not awaits_approval(rollout):
        raise ConflictError(f"the rollout of {model} version {rollout.version} is {rollout.phase} and asks nobody")
    return rollout
