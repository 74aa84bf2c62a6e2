"""Ledger rows and decisions as one story, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["EVENT_WORDS", "of_decision", "of_event", "story"]

EVENT_WORDS = {
    "started": "rollout started",
    "traffic": "traffic moved",
    "live": "went live",
    "rolled_back": "rolled back",
    "aborted": "aborted",
    "approval_asked": "approval asked for",
    "approved": "approved",
    "abort_asked": "abort asked for",
    "promote_asked": "promotion asked for",
    "reject_asked": "rejected",
}
_EVENT_LEVELS = {"live": "ok", "rolled_back": "bad", "aborted": "warn", "approval_asked": "ask", "reject_asked": "warn"}
_VERDICTS = {
    ("drift", "no_drift"): ("ok", "No drift"),
    ("drift", "drift"): ("warn", "Drift seen"),
    ("drift", "inconclusive"): ("none", "Drift inconclusive"),
    ("drift", "quarantined"): ("warn", "Traffic window quarantined"),
    ("retrain", "retrain"): ("ask", "Retrain decided"),
    ("retrain", "not_needed"): ("ok", "No retrain needed"),
    ("retrain", "held"): ("warn", "Retrain held back"),
    ("retrain", "alert"): ("bad", "Automatic retraining stopped"),
    ("gate", "pass"): ("ok", "Gate passed the challenger"),
    ("gate", "fail"): ("warn", "Gate refused the challenger"),
    ("data", "passed"): ("ok", "Data passed its checks"),
    ("data", "quarantined"): ("warn", "Data quarantined"),
}


def of_event(row: Mapping[str, Any]) -> dict[str, Any]:
    """A ledger row as one entry of the story."""
    event, detail = row["event"], row["detail"] or {}
    kind = detail.get("kind")
    version = f"v{row['version']}" if row["version"] else ""
    words = EVENT_WORDS.get(event, event.replace("_", " "))
    title = f"{version} {words}".strip()
    if event == "live" and kind == "rollback":
        title = f"{version} is live again"
    elif event == "started":
        title = f"{'Rollback to' if kind == 'rollback' else 'Release of'} {version} started"
    elif event == "traffic":
        shares = ", ".join(f"{slot} {share} %" for slot, share in sorted((detail.get("weights") or {}).items()))
        title = f"Traffic: {shares or 'none'}"
    reasons = [text for text in (detail.get("failure"), row["reason"]) if text]
    return {
        "at": row["at"],
        "kind": "traffic" if event == "traffic" else "release",
        "level": _EVENT_LEVELS.get(event, "none"),
        "title": title,
        "reasons": [*dict.fromkeys(reasons)],
        "actor": row["actor"],
        "seq": row["seq"],
        "rollout_id": row["rollout_id"],
        "dag_run": (detail.get("kind") or "release", detail["dag_run"]) if detail.get("dag_run") else None,
        "reports": {},
        "quiet": False,
        "key": f"event-{row['seq']}",
    }


def of_decision(row: Mapping[str, Any]) -> dict[str, Any]:
    """A decision as one entry of the story."""
    level, title = _VERDICTS.get((row["kind"], row["verdict"]), ("none", f"{row['kind']}: {row['verdict']}"))
    evidence = row.get("evidence") or {}
    if row["kind"] == "drift" and row["verdict"] == "drift" and evidence.get("confirmed"):
        level, title = "bad", "Drift confirmed"
    reports = dict(evidence.get("reports") or {})
    if row["kind"] == "retrain":
        reports = {}  # they are those of the drift decision beside it
    if evidence.get("report"):
        reports[f"{row['kind']}_report"] = evidence["report"]
    return {
        "at": row["at"],
        "kind": row["kind"],
        "level": level,
        "title": title,
        "reasons": list(row["reasons"] or []),
        "actor": None,
        "seq": None,
        "rollout_id": None,
        "dag_run": None,
        "reports": reports,
        "window": (evidence.get("start"), evidence.get("end")) if evidence.get("start") else None,
        "rows": evidence.get("rows"),
        "quiet": (row["kind"], row["verdict"]) == ("drift", "no_drift"),
        "key": f"decision-{row['key']}",
    }


def story(events: Sequence[Mapping[str, Any]], decisions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Both as one, the newest first; what says nothing of its own is left out or put together."""
    told = [one for one in decisions if (one["kind"], one["verdict"]) != ("retrain", "not_needed")]
    entries = [*map(of_event, events), *map(of_decision, told)]
    entries.sort(key=lambda entry: (entry["at"], entry["seq"] or 0), reverse=True)
    return _quiet_nights_as_one(_moves_as_one(entries))


def _moves_as_one(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The traffic moves of one rollout that follow each other, as one entry with all of them."""
    told: list[dict[str, Any]] = []
    for entry in entries:
        last = told[-1] if told else None
        same = last is not None and last["kind"] == "traffic" == entry["kind"] and entry["rollout_id"]
        if last is not None and same and last["rollout_id"] == entry["rollout_id"]:
            last["title"] = f"{entry['title']} → {last['title'].removeprefix('Traffic: ')}"
        else:
            told.append(entry)
    return told


def _quiet_nights_as_one(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Windows without drift that follow each other, as the newest of them and how many more there were."""
    told: list[dict[str, Any]] = []
    more = 0
    for entry in entries:
        last = told[-1] if told else None
        if last is not None and last["quiet"] and entry["quiet"]:
            more += 1
            last["title"] = f"No drift, nor in the {more} window{'' if more == 1 else 's'} before"
        else:
            told.append(entry)
            more = 0
    return told
