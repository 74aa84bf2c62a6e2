"""What a person has to know about a model at a glance: pure judgements over the facts of one look.

Levels, the worst first: `bad` (users are hurt or safety is off), `ask` (a person is waited for), `warn` (look soon),
`ok`, `none` (nothing was released).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["LEVELS", "Signal", "drift_light", "error_share", "level_of", "signals"]

LEVELS = ("bad", "ask", "warn", "ok", "none")
_ERROR_SHARE_BAD, _ERROR_SHARE_WARN, _FEWEST = 0.01, 0.001, 20
_RECENT_BUCKETS = 5


@dataclass(frozen=True)
class Signal:
    """One thing to know, in a few words; `page` is where to act on it."""

    level: str
    text: str
    page: str = "model"


def error_share(traffic: Mapping[str, Sequence[int]] | None, buckets: int = _RECENT_BUCKETS) -> float | None:
    """Share of failed answers in the newest buckets; None where there were too few to tell."""
    if not traffic:
        return None
    requests, errors = sum(traffic["requests"][-buckets:]), sum(traffic["errors"][-buckets:])
    return errors / requests if requests >= _FEWEST else None


def drift_light(decided: Mapping[str, Any] | None) -> Signal:
    """The newest drift verdict as a light."""
    if decided is None:
        return Signal("none", "not judged yet")
    verdict = decided["verdict"]
    if verdict == "drift":
        return Signal("bad", "confirmed") if decided.get("confirmed") else Signal("warn", "seen once")
    words = {
        "no_drift": Signal("ok", "no drift"),
        "inconclusive": Signal("none", "inconclusive"),
        "quarantined": Signal("warn", "quarantined"),
    }
    return words.get(verdict, Signal("none", str(verdict)))


def signals(model: Mapping[str, Any]) -> list[Signal]:
    """Everything there is to say about a model, the worst first; nothing at all when all is well."""
    if not model["live_version"] and not model["rollout"]:
        return [Signal("none", "no version was released yet")]
    found = [*_serving(model), *_rollout(model), *_decided(model["decisions"])]
    return sorted(found, key=lambda one: LEVELS.index(one.level))


def level_of(found: Sequence[Signal]) -> str:
    """The worst level; fine when there is nothing to say."""
    return min((one.level for one in found), key=LEVELS.index, default="ok")


def _serving(model: Mapping[str, Any]) -> list[Signal]:
    found = []
    for name, slot in sorted(model["slots"].items()):
        if slot["weight"] and not slot["running"]:
            found.append(Signal("bad", f"slot {name} has {slot['weight']} % of the traffic and does not run"))
    if model["applied"] is None:
        found.append(Signal("bad", "the gateway does not answer"))
    elif model["applied"] != model["weights"]:
        found.append(Signal("warn", "the gateway does not apply the wanted weights"))
    share = error_share(model.get("traffic"))
    if share is not None and share > _ERROR_SHARE_BAD:
        found.append(Signal("bad", f"{share:.1%} of the answers fail"))
    elif share is not None and share > _ERROR_SHARE_WARN:
        found.append(Signal("warn", f"{share:.2%} of the answers fail"))
    return found


def _rollout(model: Mapping[str, Any]) -> list[Signal]:
    rollout, last = model["rollout"], model.get("last_rollout")
    if rollout:
        if rollout["awaits_approval"]:
            return [Signal("ask", f"v{rollout['version']} waits for your approval", "rollout")]
        if rollout["phase"] == "rolling_back":
            return [Signal("warn", f"v{rollout['version']} is being rolled back", "rollout")]
        return []
    if last and last["phase"] == "rolled_back":
        return [Signal("warn", f"v{last['version']} was rolled back: {last['failure'] or 'no reason kept'}", "rollout")]
    return []


def _decided(decisions: Mapping[str, Any]) -> list[Signal]:
    found = []
    drift, retrain = decisions.get("drift"), decisions.get("retrain")
    light = drift_light(drift)
    if light.level in ("bad", "warn"):
        words = {"confirmed": "drift is confirmed", "seen once": "drift was seen once"}
        found.append(Signal(light.level, words.get(light.text, f"the last window is {light.text}")))
    if retrain and retrain["verdict"] == "alert":
        found.append(Signal("bad", "automatic retraining has stopped until somebody looks"))
    data = decisions.get("data")
    if data and data["verdict"] != "passed" and light.text != "quarantined":
        found.append(Signal("warn", "the last data set failed its checks"))
    return found
