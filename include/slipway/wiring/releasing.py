"""Releases: package, roll out, approve, roll back, split."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from slipway.errors import ConflictError, RolloutError
from slipway.wiring.adapters import Adapters
from slipway.wiring.facts import facts, rollout_facts

if TYPE_CHECKING:
    from slipway.core.rollout_record import Rollout
    from slipway.jobs.release import Progress

__all__ = ["Releasing"]

log = logging.getLogger("slipway")
Say = Callable[[str], None]


class Releasing(Adapters):
    """From a registered version to traffic, and back."""

    def package(self, model: str, version: str | None) -> dict[str, Any]:
        """Build the bento of a version, by default the challenger."""
        from slipway.jobs.package import package

        self.spec(model)
        built = package(model, version, packager=self.packager, registry=self.mlflow)
        return {"model": model, "version": built.version, "bento_tag": built.bento_tag, "digest": built.digest}

    def roll_out(
        self,
        model: str,
        version: str,
        *,
        actor: str,
        reason: str,
        run: str | None = None,
        say: Say | None = None,
        until_asked: bool = False,
        rollout_id: str | None = None,
    ) -> dict[str, Any]:
        """Drive a rollout of a packaged version to its end, or with `until_asked` to where a person has to approve.

        With `rollout_id` it is this very rollout; whatever became of it meanwhile is the outcome.

        Raises:
            RolloutError: it ended without the version live; the message names the failed check.
        """
        from slipway.jobs.package import package
        from slipway.jobs.release import awaits_approval

        if rollout_id is not None:
            rollout = self.releases.parts.store.rollout(rollout_id)
        else:
            built = package(model, version, packager=self.packager, registry=self.mlflow)
            policy = self.spec(model).rollout
            rollout = self.releases.begin(built, policy, actor=actor, reason=reason, dag_run=run)
        report = _Reporter(say or log.info)
        for progress in self.releases.drive(rollout):
            report(progress)
            rollout = progress.rollout
            if until_asked and awaits_approval(rollout):
                return self._asked(rollout)
        if rollout.phase != "live":
            raise RolloutError(f"{model} version {version} is {rollout.phase}: {rollout.failure or 'no reason kept'}")
        return {"model": model, "version": version, "slot": rollout.slot, "rollout": rollout.id, "asked": False}

    @staticmethod
    def _asked(rollout: Rollout) -> dict[str, Any]:
        """What a person has to know to approve."""
        checks = [f"* {check.name}: **{check.verdict}** - {check.reason}" for check in rollout.checks]
        if rollout.replay is not None:
            report = rollout.replay.evidence.get("report", "no report")
            checks.append(f"* replay: **{rollout.replay.verdict}** - {rollout.replay.reason} ({report})")
        return {
            "model": rollout.model,
            "version": rollout.version,
            "rollout": rollout.id,
            "asked": True,
            "asked_at": rollout.approval_asked_at.isoformat() if rollout.approval_asked_at else "",
            "phase": str(rollout.phase),
            "previous_version": rollout.previous_version,
            "checks": "\n".join(checks) or "* nothing was checked yet",
        }

    def answer_approval(
        self, model: str, rollout_id: str, asked_at: str, approved: bool, *, actor: str, reason: str
    ) -> None:
        """Pass a person's answer on, unless the rollout has ended or was answered elsewhere.

        Args:
            asked_at: which question was answered, as `roll_out` returned it: a task that is retried brings an old
                answer along, and the rollout may ask another question by then.
        """
        from slipway.jobs.release import awaits_approval

        rollout = self.releases.parts.store.rollout(rollout_id)
        asked = rollout.approval_asked_at
        if not awaits_approval(rollout) or asked is None:
            log.info("the rollout of %s version %s waits for no answer: %s", model, rollout.version, rollout.phase)
        elif asked_at and asked != datetime.fromisoformat(asked_at):
            log.warning("the rollout of %s version %s asks another question by now", model, rollout.version)
        elif approved:
            self.approve(model, actor=actor, reason=reason)
        else:
            self.reject(model, actor=actor, reason=reason)

    def approve(self, model: str, *, actor: str, reason: str) -> dict[str, Any]:
        """Agree to what the running rollout waits for."""
        return rollout_facts(self.releases.approve(model, actor=actor, reason=reason))

    def reject(self, model: str, *, actor: str, reason: str) -> dict[str, Any]:
        """Refuse what the running rollout waits for, and give all traffic back.

        Raises:
            ConflictError: it went live meanwhile, by an answer from elsewhere.
        """
        return _stopped(self.releases.reject(model, actor=actor, reason=reason), "refusal")

    def roll_back(
        self, model: str, version: str | None, *, actor: str, reason: str, run: str | None = None
    ) -> dict[str, Any]:
        """Bring a former version back, by default the one that was live before."""
        done = self.releases.rollback(model, version, actor=actor, reason=reason, dag_run=run)
        return facts(done)

    def abort(self, model: str, *, actor: str, reason: str) -> dict[str, Any]:
        """End the running rollout and give all traffic back.

        Raises:
            ConflictError: its promotion was under way already, and it went live.
        """
        return _stopped(self.releases.abort(model, actor=actor, reason=reason), "abort")

    def promote(self, model: str, *, actor: str, reason: str) -> dict[str, Any]:
        """Make the running rollout's version live without waiting for its bake."""
        return rollout_facts(self.releases.promote(model, actor=actor, reason=reason))

    def set_split(self, model: str, weights: Mapping[str, int], *, actor: str, reason: str) -> dict[str, Any]:
        """Set a lasting split between champion and challenger."""
        self.spec(model)
        by_slot = self.releases.set_split(model, weights, actor=actor, reason=reason)
        return {"model": model, "weights": dict(weights), "slots": by_slot}


def _stopped(ended: Rollout, asked: str) -> dict[str, Any]:
    if ended.phase == "live":
        raise ConflictError(
            f"{ended.model} version {ended.version} went live before the {asked} came; "
            f"`slipway rollback {ended.model}` brings the former one back"
        )
    return rollout_facts(ended)


class _Reporter:
    """Says where a rollout is whenever that changes."""

    def __init__(self, say: Say) -> None:
        self._say, self._last, self._began = say, "", time.monotonic()

    def __call__(self, progress: Progress) -> None:
        rollout = progress.rollout
        line = f"{rollout.phase}{f' step {rollout.step + 1}' if rollout.phase == 'shifting' else ''}"
        if progress.waiting:
            line = f"{line}: {progress.waiting}"
        if line != self._last:
            self._last = line
            self._say(f"  {time.monotonic() - self._began:5.1f} s  {rollout.model} v{rollout.version} {line}")
