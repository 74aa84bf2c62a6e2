"""Facts of one look, arranged for the templates. Pure: no database, no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from slipway.spec import Feature, ModelSpec
from slipway_control.signals import LEVELS, drift_light, error_share, level_of, signals
from slipway_control.timeline import of_event, story

__all__ = ["EVENT_CHOICES", "behind", "fleet", "ledger", "model", "playground", "rollout", "served"]

PHASES = ("packaged", "starting", "verifying", "replaying", "shadowing", "shifting", "baking", "promoting", "live")
EVENT_CHOICES: dict[str, tuple[str, ...]] = {
    "live": ("live",),
    "ended": ("rolled_back", "aborted"),
    "people": ("approval_asked", "approved", "abort_asked", "promote_asked", "reject_asked"),
    "traffic": ("traffic",),
}
_LEVEL_WORDS = {"bad": "Act now", "ask": "Asks you", "warn": "Look", "ok": "Fine", "none": "Empty"}
_HOUR_MINUTES = 60
_STORY = 40


def _state(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What the fleet's row and the model's head share."""
    found = signals(entry)
    traffic = entry.get("traffic")
    total = sum(traffic["requests"]) if traffic else 0
    slots = [
        {"slot": name, **slot, "live": name == entry["live_slot"]}
        for name, slot in sorted(entry["slots"].items())
        if slot["version"]
    ]
    return {
        "signals": found,
        "level": level_of(found),
        "word": _LEVEL_WORDS[level_of(found)],
        "drift": drift_light(entry["decisions"].get("drift")),
        "drift_at": (entry["decisions"].get("drift") or {}).get("at"),
        "error_share": error_share(traffic, 30),
        "requests": traffic["requests"] if traffic else [],
        "errors": traffic["errors"] if traffic else [],
        "total": total,
        "total_errors": sum(traffic["errors"]) if traffic else 0,
        "per_minute": total / _HOUR_MINUTES,
        "slots": slots,
        "live_at": (entry.get("live") or {}).get("at"),
    }


def fleet(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Every model as a row, the worst first, and the counts above them."""
    rows = [{**entry, **_state(entry)} for entry in facts["models"]]
    rows.sort(key=lambda row: (LEVELS.index(row["level"]), row["rollout"] is None, row["model"]))
    counts = {level: sum(row["level"] == level for row in rows) for level in LEVELS}
    running = sum(row["rollout"] is not None for row in rows)
    return {"rows": rows, "counts": counts, "running": running, **{k: facts[k] for k in ("broken", "gateway_up")}}


def model(facts: Mapping[str, Any], spec: ModelSpec | None) -> dict[str, Any]:
    """One model with its story and the series of its charts."""
    drift = facts["drift"]
    newest = next((row for row in reversed(drift) if row["columns"]), None)
    return {
        **facts,
        **_state(facts),
        "description": spec.description if spec else "",
        "task": spec.task if spec else "",
        "label_delay_hours": spec.retrain.label_delay_hours if spec else None,
        "loss_band": spec.retrain.loss_band if spec else None,
        "story": story(facts["events"], facts["timeline"])[:_STORY],
        "newest_drift": newest,
        "columns": _columns(newest),
        "quality_chart": _quality(drift),
        "drift_chart": _drift(drift),
        "beside": _beside(facts["gate"]),
        "fallback": facts["kept_versions"][0] if facts["kept_versions"] else None,
        "reachable": set(facts["kept_versions"]),
    }


def _columns(newest: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The newest window's statistics, the one furthest above its threshold first."""
    if newest is None:
        return []
    columns = [*newest["columns"], *([newest["joint"]] if newest["joint"] else [])]
    shown = [{**one, "ratio": one["statistic"] / max(one["threshold"], 1e-12)} for one in columns]
    return sorted(shown, key=lambda one: -one["ratio"])


def _seconds(text: str | None) -> float | None:
    return datetime.fromisoformat(text).timestamp() if text else None


def _quality(drift: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The champion's metric on labels at each judged window, with what it may be at worst, beside its baseline."""
    points = [row for row in drift if row["quality"] and row["quality"].get("value") is not None]
    if not points:
        return None
    worst = [_worst(row["quality"]) for row in points]
    return {
        "metric": points[-1]["quality"]["metric"],
        "x": [_seconds(row["end"]) for row in points],
        "value": [row["quality"]["value"] for row in points],
        "best": worst,
        "baseline": [row["quality"]["baseline"] for row in points],
        "champion": [row["champion"] for row in points],
        "rows": [row["quality"]["rows"] for row in points],
        "newest": points[-1],
    }


def _worst(quality: Mapping[str, Any]) -> float | None:
    """The metric at the loss's lower bound: with 95 % confidence it is no better than this."""
    bound, baseline, loss = quality.get("loss_bound"), quality["baseline"], quality["relative_loss"]
    if bound is None or loss in (None, 0) or not baseline:
        return None
    sign = 1 if (quality["value"] < baseline) == (loss > 0) else -1
    return float(baseline - sign * bound * abs(baseline))


def _drift(drift: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Each feature's statistic as a share of its threshold, window by window: above 1 is drift."""
    windows = [row for row in drift if row["columns"]]
    if not windows:
        return None
    names = [*dict.fromkeys(one["name"] for row in windows for one in row["columns"])]
    series = []
    for name in names:
        found = [next((one for one in row["columns"] if one["name"] == name), None) for row in windows]
        shares = [one and round(one["statistic"] / max(one["threshold"], 1e-12), 4) for one in found]
        series.append({"name": name, "values": shares})
    return {"x": [_seconds(row["end"]) for row in windows], "series": series}


def _beside(gate: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Champion and challenger as the gate saw them."""
    if gate is None:
        return None
    evidence = gate["evidence"]
    names = ("metric", "rows", "champion", "challenger")
    kept = {name: evidence.get(name) for name in names}
    kept |= {"slices": evidence.get("slices") or [], "champion_version": evidence.get("champion_version")}
    kept |= {"older": evidence.get("older_rows"), "report": evidence.get("report"), "run_id": evidence.get("run_id")}
    return kept | {"verdict": gate["verdict"], "reasons": gate["reasons"], "at": gate["at"]}


def rollout(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The rollout with the stations of its way, and what each possible action would do."""
    shown = facts["shown"]
    view = {**facts, "running": bool(shown and not shown["ended"]), "stations": [], "story": []}
    if shown is None:
        return view
    policy = shown["policy"]
    view["story"] = [of_event(row) for row in reversed(facts["events"])]
    view["stations"] = _stations(shown)
    view["checks"] = [*([shown["replay"]] if shown["replay"] else []), *shown["checks"]]
    view["wait_seconds"] = _wait_seconds(shown)
    view["steps"] = policy["steps"] if shown["from_version"] else policy["steps"][-1:]
    return view


def _stations(shown: Mapping[str, Any]) -> list[dict[str, str]]:
    """Every phase of a good rollout: done, now, ahead, or where it failed."""
    phase = shown["phase"]
    policy = shown["policy"]
    skipped = set()
    if not policy["shadow_percent"] and policy["approval"] != "before_shifting":
        skipped.add("shadowing")
    if not policy["replay_requests"] or not shown["from_version"]:
        skipped.add("replaying")
    good = phase in PHASES
    at = PHASES.index(phase) if good else len(PHASES)
    stations = []
    for index, name in enumerate(PHASES):
        if name in skipped:
            continue
        state = "done" if good and (index < at or phase == "live") else "now" if index == at else "ahead"
        stations.append({"name": name, "state": state})
    if not good:
        for station in stations:
            station["state"] = "ahead"
        stations = [
            *stations[:-1],
            {"name": phase.replace("_", " "), "state": "now" if not shown["ended"] else "failed"},
        ]
    return stations


def _wait_seconds(shown: Mapping[str, Any]) -> float | None:
    """How long the present phase is watched once the gateway applies its weights."""
    policy = shown["policy"]
    if shown["phase"] == "shifting":
        return float(policy["steps"][min(shown["step"], len(policy["steps"]) - 1)]["bake_seconds"])
    return {"baking": policy["bake_seconds"], "shadowing": policy["shadow_seconds"]}.get(shown["phase"])


def playground(spec: ModelSpec, live: Mapping[str, Any] | None) -> dict[str, Any]:
    """Fields with a range to slide in, started at the first golden row."""
    golden = spec.golden_rows[0]
    fields = [_field(feature, [row[feature.name] for row in spec.golden_rows], golden) for feature in spec.features]
    return {
        "description": spec.description,
        "fields": fields,
        "target": spec.target.model_dump(mode="json"),
        "task": spec.task,
        "live": live,
        "examples": [dict(row) for row in spec.golden_rows],
    }


def _field(feature: Feature, seen: Sequence[Any], golden: Mapping[str, Any]) -> dict[str, Any]:
    field = feature.model_dump(mode="json") | {"value": golden[feature.name]}
    if feature.kind in ("number", "integer"):
        numbers = [float(one) for one in seen if one is not None]
        spread = max([abs(number) for number in numbers] + [1.0])
        low = feature.minimum if feature.minimum is not None else min([0.0, *(2 * number for number in numbers)])
        high = feature.maximum if feature.maximum is not None else 2 * spread
        # Hard bounds are what is possible; a slider over all of it would be too coarse for what is usual.
        if feature.minimum is not None and feature.maximum is not None and high - low > 6 * spread:
            low, high = max(low, -3 * spread), min(high, 3 * spread)
        step = 1.0 if feature.kind == "integer" else 10 ** _exponent(high - low)
        field |= {"low": low, "high": high, "step": step}
    return field


def _exponent(width: float) -> int:
    """So that a slider has from two hundred to two thousand positions."""
    exponent = 0
    while 10.0**exponent * 200 > width and exponent > -9:
        exponent -= 1
    while 10.0 ** (exponent + 1) * 200 <= width:
        exponent += 1
    return exponent


def ledger(
    rows: Sequence[Mapping[str, Any]],
    limit: int,
    asked: Mapping[str, str],
    models: Sequence[str],
    summary: Mapping[str, Any],
) -> dict[str, Any]:
    """A page of rows; `older` is where the next one begins."""
    shown = rows[:limit]
    return {
        "rows": [{**of_event(row), "model": row["model"], "event": row["event"]} for row in shown],
        "older": shown[-1]["seq"] if len(rows) > limit else None,
        "asked": asked,
        "models": models,
        "summary": summary,
        "choices": [*EVENT_CHOICES],
    }


def served(found: Mapping[str, Any]) -> dict[str, Any]:
    """What served a model at a time."""
    return {"kind": "served", **found, "weights": found["slots"]}


def behind(found: Mapping[str, Any]) -> dict[str, Any]:
    """What stands behind a request."""
    return {"kind": "behind", **found}
