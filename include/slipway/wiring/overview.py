"""What is live, what was, and why."""

from __future__ import annotations

from typing import Any

from slipway import __version__
from slipway.wiring.adapters import Adapters
from slipway.wiring.facts import facts, parse_time, plain, rollout_facts, slots_facts

__all__ = ["Overview"]


class Overview(Adapters):
    """Reads only."""

    def models_info(self) -> dict[str, Any]:
        """Every model of the fleet with its live version, slots, weights and rollout."""
        known = {status.model: status for status in self.releases.status()}
        models = []
        for name, spec in self.fleet.items():
            status = known.get(name)
            models.append(
                {
                    "model": name,
                    "task": spec.task,
                    "description": spec.description,
                    "live_version": status.live_version if status else None,
                    "live_slot": status.live_slot if status else None,
                    "slots": slots_facts(status) if status else {},
                    "rollout": rollout_facts(status.rollout) if status and status.rollout else None,
                }
            )
        return {"models": models}

    def traffic_config(self) -> dict[str, Any]:
        """The traffic split of every model, by side and by slot."""
        models = {}
        for status in self.releases.status():
            champion = status.weights.get(status.live_slot, 0) if status.live_slot else 0
            challenger = sum(status.weights.values()) - champion
            models[status.model] = {
                "weights": {"champion": champion, "challenger": challenger},
                "slots": dict(status.weights),
                "applied": None if status.applied_weights is None else dict(status.applied_weights),
            }
        return {"models": models}

    def traffic(self, model: str) -> dict[str, Any]:
        """One model's traffic and its running rollout."""
        info = next(entry for entry in self.models_info()["models"] if entry["model"] == self.spec(model).name)
        sides = {role: plain(side) for role, side in self.releases.sides(model).items()}
        # Not in `models_info`, which anybody may read: their evidence names places of this machine.
        running = self.releases.parts.store.active(model)
        if info["rollout"] and running:
            checks = [check.as_dict() for check in running.checks]
            info = {**info, "rollout": {**info["rollout"], "checks": checks, "replay": running.evidence.get("replay")}}
        return {**info, "split": self.traffic_config()["models"].get(model), "sides": sides}

    def ledger(self, model: str | None, limit: int) -> list[dict[str, Any]]:
        """The newest ledger rows first."""
        return [facts(entry) for entry in self.releases.history(model, limit)]

    def served_at(self, model: str, at: str) -> dict[str, Any]:
        """What served a model at a time; see `jobs.provenance`."""
        from slipway.jobs.provenance import served_at

        return facts(served_at(self.releases.parts.ledger, model, parse_time(at)))

    def behind_request(self, request_id: str) -> dict[str, Any]:
        """What stands behind an answered request; see `jobs.provenance`."""
        from slipway.adapters.log_search import LogSearch
        from slipway.jobs.provenance import behind_request

        search = LogSearch(self.settings.lake, self.spool)
        return facts(behind_request(request_id, search, self.releases.parts.ledger, self.store))

    def decisions(self, model: str | None, limit: int) -> list[dict[str, Any]]:
        """Gate, drift, retrain and data decisions, the newest first."""
        models = [model] if model else list(self.fleet)
        found = [decision for name in models for decision in self.decision_log.recent(name, limit=limit)]
        newest = sorted(found, key=lambda decision: decision.at, reverse=True)[:limit]
        return [facts(decision) for decision in newest]

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document of the gateway."""
        from slipway.core.openapi import document

        settings = self.settings
        return document(
            self.fleet.values(),
            settings.max_batch_rows,
            __version__,
            need_key=settings.predictions_need_key,
            limited=bool(settings.rate_limits or settings.key_rate_limits),
        )
