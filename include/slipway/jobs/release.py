"""A release, driven one step at a time: `begin` it, then `advance` until it has ended.

`advance` observes, decides with the pure function of `core.rollout`, acts once, reads the effect back and
saves. What it is about to do is saved before it does it, and whatever it does can be done twice, so it may
be killed anywhere and called again by anybody.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from slipway.core.faults import fault_point
from slipway.core.rollout import decide
from slipway.core.rollout_record import (
    PREPARING,
    Action,
    Ask,
    Finish,
    Go,
    Phase,
    Promote,
    Replay,
    Rollout,
    Shift,
    Start,
    Stop,
    Wait,
)
from slipway.core.routes import other_slot
from slipway.core.verdict import Check, Verdict
from slipway.errors import (
    ArtefactError,
    ConflictError,
    GatewayError,
    NotFoundError,
    RegistryError,
    RuntimeSlotError,
    StoreError,
)
from slipway.jobs.compare_slots import baseline_of
from slipway.jobs.observe import observe, slot_record
from slipway.jobs.replay import replay
from slipway.jobs.traffic import apply_fleet, model_lock, slot_counters
from slipway.ports import Slot

if TYPE_CHECKING:
    from slipway.core.routes import SlotName
    from slipway.jobs.parts import Parts
    from slipway.ports import Package
    from slipway.spec import RolloutPolicy

__all__ = ["Progress", "advance", "awaits_approval", "begin", "drive", "sync_alias"]

log = logging.getLogger("slipway")
CHAMPION = "champion"
_GRACE_SECONDS = 120.0


@dataclass(frozen=True)
class Progress:
    """Where a rollout is after one step, and what it waits for (None when it went on)."""

    rollout: Rollout
    waiting: str | None = None


def begin(
    parts: Parts,
    package: Package,
    policy: RolloutPolicy,
    *,
    actor: str,
    reason: str,
    kind: Literal["release", "rollback"] = "release",
    dag_run: str | None = None,
) -> Rollout:
    """Start a rollout, or return the one that is already about this version.

    With `dag_run`, that run's one release: when it has ended, its task was killed and is tried again, and the ended
    rollout is returned. Beginning another would bring back what was rolled back meanwhile.

    A release that runs and has no traffic yet is superseded: it is aborted, and this one begins. One that is being
    rolled back is waited for. One that has traffic is never cut short by another.

    Raises:
        ConflictError: a rollout of another version has traffic, or a lasting A/B split uses both slots (a rollback
            may end such a split: its target is then the other side).
    """
    while True:
        with parts.store.lock(model_lock(package.model)):
            active = parts.store.active(package.model)
            if active is None:
                if kind == "release" and (done := _of_run(parts, package, dag_run)):
                    return done
                return _begin(parts, package, policy, actor=actor, reason=reason, kind=kind, dag_run=dag_run)
            if active.version == package.version:
                return _taken_on(parts, active, dag_run)
            if kind == "release" and (done := _of_run(parts, package, dag_run)):
                return done
            if _may_be_superseded(active):
                why = f"superseded by version {package.version}"
                parts.store.command(active, "abort", actor=actor, reason=why, now=parts.clock.now())
            elif active.phase is not Phase.ROLLING_BACK:
                raise ConflictError(
                    f"a rollout of {active.model} version {active.version} is {active.phase}; "
                    f"wait for it, or `slipway abort {active.model}`"
                )
        for _ in drive(parts, active, poll_seconds=0.05):
            pass  # what it says is its own driver's business


def _of_run(parts: Parts, package: Package, dag_run: str | None) -> Rollout | None:
    """The rollout of this version that the run began or took on before."""
    if dag_run is None:
        return None
    found = parts.store.latest(package.model, dag_run=dag_run)
    return found if found is not None and found.version == package.version else None


def _taken_on(parts: Parts, active: Rollout, dag_run: str | None) -> Rollout:
    """The running rollout, as this run's own when it has none yet."""
    if dag_run is None or active.dag_run is not None:
        return active
    taken = replace(active, dag_run=dag_run)
    parts.store.save(taken)
    return taken


def _may_be_superseded(active: Rollout) -> bool:
    """It is a release, and no client has got an answer of its version yet."""
    return active.kind == "release" and active.phase in (*PREPARING, Phase.SHADOWING)


def _begin(
    parts: Parts,
    package: Package,
    policy: RolloutPolicy,
    *,
    actor: str,
    reason: str,
    kind: Literal["release", "rollback"],
    dag_run: str | None,
) -> Rollout:
    """Write the new rollout down; the caller holds the model's lock, and none is active."""
    model, version = package.model, package.version
    traffic = parts.store.traffic_of(model)
    if traffic.live_version == version and (live := _made_live(parts, model)):
        return live
    candidate = other_slot(traffic.live_slot)
    if traffic.weights.get(candidate) and kind == "release":
        raise ConflictError(f"{model} has an A/B split over both slots; give champion 100 per cent first")
    now = parts.clock.now()
    rollout = Rollout(
        id=uuid.uuid4().hex,
        model=model,
        version=version,
        kind=kind,
        phase=Phase.PACKAGED,
        slot=candidate,
        policy=policy,
        actor=actor,
        reason=reason,
        started_at=now,
        phase_since=now,
        driven_at=now,
        previous_slot=traffic.live_slot,
        previous_version=traffic.live_version,
        dag_run=dag_run,
    )
    parts.store.begin(rollout, package, parts.probe.port_is_free)
    fault_point("begun")
    return rollout


def _made_live(parts: Parts, model: str) -> Rollout | None:
    rows = parts.ledger.went_live(model)
    return parts.store.rollout(rows[-1].rollout_id) if rows and rows[-1].rollout_id else None


def advance(parts: Parts, model: str, *, lock_seconds: float = 10.0) -> Progress | None:
    """Take the model's active rollout one step further; None when it has none.

    Raises:
        ConflictError: another driver holds the model's lock.
        GatewayError, StoreError, RuntimeSlotError: the outside did not do its part; call again.
    """
    with parts.store.lock(model_lock(model), lock_seconds):
        rollout = parts.store.active(model)
        if rollout is None:
            return None
        rollout = rollout.resumed(parts.clock.now())
        seen, rollout = observe(parts, rollout)
        action = decide(rollout, seen, rollout.driven_at)
        fault_point(f"decided:{rollout.phase}")
        done = _act(parts, rollout, action)
        fault_point(f"saved:{rollout.phase}")
        return Progress(done, action.why if isinstance(action, Wait) else _pause(action, done))


def _pause(action: Action, done: Rollout) -> str | None:
    if isinstance(action, Replay) and done.replay and done.replay.verdict is Verdict.ERROR:
        return f"replay: {done.replay.reason}"
    return "the slot is starting" if isinstance(action, Start) else None


def awaits_approval(rollout: Rollout) -> bool:
    """Whether a person was asked and has not answered yet."""
    return not rollout.ended and rollout.asked and not rollout.approved and rollout.command is None


# --- act --------------------------------------------------------------------------------------------------


def _act(parts: Parts, rollout: Rollout, action: Action) -> Rollout:
    now = rollout.driven_at
    match action:
        case Wait():
            parts.store.save(rollout)
            return rollout
        case Go(phase, step, failure):
            moved = rollout.moved(phase, now, step=step, failure=failure)
            parts.store.save(moved)
            return moved
        case Start():
            return _start(parts, rollout)
        case Stop():
            parts.runtime.stop(_slot(parts, rollout), rollout.policy.drain_seconds)
            fault_point("stopped")
            parts.store.save(rollout)
            return rollout
        case Replay():
            return _replay(parts, rollout)
        case Shift(weights, shadow):
            return _shift(parts, rollout, weights, shadow)
        case Ask(why):
            return parts.store.ask(rollout, why, now)
        case Promote():
            return _promote(parts, rollout)
        case Finish(phase):
            return parts.store.end(rollout, phase, now)


def _slot(parts: Parts, rollout: Rollout) -> Slot:
    record = slot_record(parts, rollout)
    host, port = record.host, record.port
    return Slot(rollout.model, rollout.slot, port, rollout.version, host=host, rollout_id=rollout.id)


def _start(parts: Parts, rollout: Rollout) -> Rollout:
    package = parts.store.package(rollout.model, rollout.version)
    try:
        parts.packages.verify(package)
    except ArtefactError as error:
        failed = rollout.moved(Phase.ROLLING_BACK, rollout.driven_at, failure=f"artefacts: {error}")
        parts.store.save(failed)
        return failed
    parts.store.assign(rollout.model, rollout.slot, rollout.version, package.bento_tag, rollout.driven_at)
    fault_point("assigned")
    parts.runtime.start(replace(_slot(parts, rollout), bento_tag=package.bento_tag), package)
    fault_point("started")
    parts.store.save(rollout)
    return rollout


def _replay(parts: Parts, rollout: Rollout) -> Rollout:
    try:
        found = replay(parts, rollout)
    except Exception as error:  # whatever reading the lake raises: nobody could look, which must never promote
        log.warning("the replay for %s version %s: %s", rollout.model, rollout.version, error)
        found = Check("replay", Verdict.ERROR, f"it could not be made ({type(error).__name__})")
    fault_point("replayed")
    done = replace(rollout, evidence={**rollout.evidence, "replay": found.as_dict()}, checks=(found,))
    parts.store.save(done)
    return done


def _shift(parts: Parts, rollout: Rollout, weights: Mapping[SlotName, int], shadow: int) -> Rollout:
    counters = slot_counters(parts, rollout.model)
    # Not when this step began: looking at the slots may take seconds, in which the former weights still hold.
    now = parts.clock.now()
    parts.store.shift(rollout, weights, now, shadow_percent=shadow, counters=counters)
    fault_point("wanted")
    state = apply_fleet(parts)
    fault_point("applied")
    baseline = baseline_of(parts, rollout, state)
    now = parts.clock.now()
    evidence = dict(rollout.evidence)
    if rollout.phase in (Phase.SHIFTING, Phase.BAKING):
        evidence.setdefault("traffic_since", now.isoformat())
        if len(weights) == 1:  # from here on there is nothing to compare with
            evidence.setdefault("traffic_until", now.isoformat())
    confirmed = replace(rollout, confirmed_at=now, baseline=baseline, evidence=evidence, checks=())
    parts.store.save(confirmed)
    return confirmed


def _promote(parts: Parts, rollout: Rollout) -> Rollout:
    # A rollback must not wait for a registry that may be down: its alias follows when the traffic has moved.
    moved = rollout.kind == "release" and _move_alias(parts, rollout.model, rollout.version)
    fault_point("aliased")
    return parts.store.go_live(rollout, alias_moved=moved, now=parts.clock.now())


def _move_alias(parts: Parts, model: str, version: str) -> bool:
    if parts.registry is None:
        return False
    try:
        parts.registry.set_alias(model, CHAMPION, version)
    except (RegistryError, NotFoundError):
        return False
    return True


def sync_alias(parts: Parts, model: str) -> bool:
    """Move the registry's champion alias after the live version; False when it still has to be done."""
    traffic = parts.store.traffic_of(model)
    if traffic.live_version is None or traffic.alias_version == traffic.live_version:
        return True
    if not _move_alias(parts, model, traffic.live_version):
        return False
    parts.store.alias_moved(model, traffic.live_version)
    return True


def drive(parts: Parts, rollout: Rollout, *, poll_seconds: float = 0.2) -> Iterator[Progress]:
    """Advance a rollout until it has ended, yielding whenever its phase, step or reason to wait changes.

    Passing failures of the outside are waited out until the rollout's deadline and a little longer.

    Raises:
        SlipwayError: the last failure, when the outside stays away for that long.
    """
    shown: tuple[object, ...] | None = None
    while True:
        waiting: str | None = None
        try:
            progress = None if rollout.ended else advance(parts, rollout.model)
            waiting = progress.waiting if progress else None
            rollout = parts.store.rollout(rollout.id)
        except (ConflictError, GatewayError, StoreError, RuntimeSlotError, OSError) as error:  # a full disk, too
            if parts.clock.now() > rollout.deadline + timedelta(seconds=_GRACE_SECONDS):
                raise
            waiting = str(error)
        if shown != (rollout.phase, rollout.step, waiting):
            shown = (rollout.phase, rollout.step, waiting)
            yield Progress(rollout, waiting)
        if rollout.ended:
            return
        if waiting:
            parts.clock.sleep(poll_seconds)
