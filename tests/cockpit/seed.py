"""A fleet with a past, for pages: the real models and as many made-up ones as wanted, in a migrated database.

What the pages read is written straight into the tables; nothing runs. Every number follows from a seed and from `now`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from slipway.policy import RolloutPolicy, canary

__all__ = ["REAL", "made_up", "seed", "write_fleet"]

REAL = ("code_language", "housing", "iris", "solar")
_METRIC = {"iris": "accuracy", "housing": "rmse", "solar": "mae", "code_language": "f1_macro"}
_FEATURES = {
    "iris": ("sepal_length", "sepal_width", "petal_length", "petal_width"),
    "housing": ("MedInc", "HouseAge", "AveRooms", "AveBedrms", "Population", "Latitude", "Longitude"),
    "solar": ("ghi", "dni", "temperature", "wind_speed", "zenith"),
    "code_language": ("code_length", "code_letters", "code_digits"),
}
POLICY = RolloutPolicy(steps=canary(5, 25, 50, bake_seconds=120), bake_seconds=300, approval="before_promotion")


def made_up(count: int) -> list[str]:
    """Names of models that exist on these pages only."""
    return [f"demand_{number:02d}" for number in range(1, count + 1)]


def write_fleet(folder: Path, fleet: Path, names: Iterable[str]) -> None:
    """The real fleet files, and one for each made-up model that says the same as iris'."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in fleet.glob("*.py"):
        (folder / path.name).write_text(path.read_text())
    source = (fleet / "iris.py").read_text()
    for name in names:
        described = source.replace('name="iris"', f'name="{name}"')
        described = described.replace(
            "Species of an iris flower from its sepal and petal lengths.",
            f"Daily demand of region {name[-2:]}, one day ahead.",
        )
        (folder / f"{name}.py").write_text(described)


class _Writer:
    """Rows by table, written at once."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.rows: dict[str, list[dict[str, Any]]] = {}

    def add(self, table: str, **row: Any) -> None:
        self.rows.setdefault(table, []).append(row)

    def ledger(self, at: datetime, model: str, event: str, reason: str, **row: Any) -> None:
        kept = {"version": None, "slot": None, "rollout_id": None, "actor": "airflow", "detail": {}} | row
        self.add("ledger", at=at, model=model, event=event, reason=reason, **kept)

    def decision(self, at: datetime, model: str, kind: str, verdict: str, reasons: list[str], **evidence: Any) -> None:
        key = f"{kind}:{model}:{at.isoformat()}"
        self.add(
            "decisions", key=key, model=model, kind=kind, verdict=verdict, reasons=reasons, evidence=evidence, at=at
        )

    def write(self, url: str) -> None:
        for number, row in enumerate(sorted(self.rows.get("ledger", []), key=lambda one: one["at"]), 1):
            row["seq"] = number
        order = ("packages", "slots", "traffic", "rollouts", "ledger", "decisions", "traffic_samples", "actions")
        engine = create_engine(url)
        with engine.begin() as connection:
            for table in order:
                rows = self.rows.get(table, [])
                if rows:
                    plain = [
                        {k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in row.items()} for row in rows
                    ]
                    names = ", ".join(plain[0])
                    values = ", ".join(f":{name}" for name in plain[0])
                    connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({values})"), plain)
            connection.execute(text("ANALYZE"))
        engine.dispose()


def seed(url: str, now: datetime, names: Iterable[str] = (), ledger_rows: int = 0) -> None:
    """Fill a database; with `ledger_rows` the made-up models share about so many rows of traffic moves."""
    writer = _Writer(now)
    names = list(names)
    port = 31000
    for model in (*REAL, *names):
        if model == "code_language":  # nothing was released yet
            writer.add(
                "traffic",
                model=model,
                blue=0,
                green=0,
                live_slot=None,
                live_version=None,
                alias_version=None,
                updated_at=now,
            )
            continue
        _model(writer, model, port)
        _asked(writer, model)
        port += 2
    have = len(writer.rows["ledger"])
    if names:
        _filler(writer, names, max(0, ledger_rows - have))
    writer.write(url)


def _asked(writer: _Writer, model: str) -> None:
    """What somebody asked for lately, with every way in which it can have ended."""
    asked: list[tuple[int, str, str, str, dict[str, Any], str, str]] = [
        (3, "operator", "session", "retrain", {"reason": "manual", "dataset": None}, "asked", ""),
        (
            50,
            "nightly",
            "key",
            "split",
            {"weights": {"champion": 90}},
            "refused",
            "a rollout is running; try later",
        ),
        (7000, "operator", "session", "rollback", {"version": "2", "reason": "complaints"}, "done", ""),
        (9000, "operator", "session", "abort", {"reason": "too slow"}, "failed", "the gateway does not answer"),
    ]
    for number, (minutes, actor, via, action, detail, outcome, message) in enumerate(asked):
        at = writer.now - timedelta(minutes=minutes)
        writer.add(
            "actions",
            id=f"{model}-{number}",
            at=at,
            actor=actor,
            via=via,
            action=action,
            model=model,
            detail=detail,
            outcome=outcome,
            message=message,
            finished_at=None if outcome == "asked" else at + timedelta(seconds=1),
        )


def _filler(writer: _Writer, names: list[str], count: int) -> None:
    chance = random.Random(5)
    for number in range(count):
        model = names[number % len(names)]
        weight = chance.choice((5, 25, 50, 100))
        detail = {"weights": {"blue": weight, "green": 100 - weight}, "phase": "shifting", "counters": {}}
        at = writer.now - timedelta(days=30, minutes=number * 4)
        writer.ledger(at, model, "traffic", "nightly release", version="2", slot="blue", detail=detail)


def _model(writer: _Writer, model: str, port: int) -> None:
    chance = random.Random(model)
    now = writer.now
    days = (26, 12, 4)
    running = model == "housing"
    for version, age in enumerate(days, 1):
        _release(writer, model, version, now - timedelta(days=age, hours=chance.random() * 5))
    if model == "solar":
        _failed(writer, model, "4", now - timedelta(hours=9))
    slots = ("blue", "green")
    live, idle = slots[(3 - 1) % 2], slots[3 % 2]
    if running:
        _running(writer, model, idle, live)
    base = {"keep_warm_until": None, "drain_until": None, "updated_at": now}
    writer.add("slots", model=model, slot=live, port=port, version="3", bento_tag=f"{model}:v3", **base)
    other = "4" if running else "2" if model == "iris" else None
    warm = base | {"keep_warm_until": now + timedelta(minutes=40) if model == "iris" else None}
    writer.add("slots", model=model, slot=idle, port=port + 1, version=other, bento_tag=None, **warm)
    weights = {live: 75, idle: 25} if running else {live: 100, idle: 0}
    writer.add("traffic", model=model, **weights, live_slot=live, live_version="3", alias_version="3", updated_at=now)
    _samples(writer, model, live, idle, running, chance)
    _judgements(writer, model, chance)


def _release(writer: _Writer, model: str, version: int, at: datetime) -> None:
    slots = ("blue", "green")
    slot, rollout = slots[(version - 1) % 2], f"{model}{version}".encode().hex()[:32].ljust(32, "0")
    previous = str(version - 1) if version > 1 else None
    data = f"{hash((model, version)) & 0xFFFFFFFFFFFFFFFF:016x}" * 4
    proof = {"kind": "release", "dataset_sha256": data, "bento_tag": f"{model}:v{version}", "code_commit": "3f2c1d0a9b"}
    proof |= {"dag_run": f"asset__{at:%Y-%m-%dT%H:%M}", "evidence": {"run_id": f"{version:032x}"}}
    writer.add(
        "packages",
        model=model,
        version=str(version),
        bento_tag=f"{model}:v{version}",
        path="/nowhere",
        digest="d" * 64,
        dataset_sha256=data,
        code_commit="3f2c1d0a9b",
        evidence={"run_id": f"{version:032x}"},
        created_at=at,
    )
    writer.add(
        "rollouts",
        **_rollout(model, str(version), "live", slot, rollout, at, previous, finished_at=at + timedelta(minutes=14)),
    )
    own = {"version": str(version), "slot": slot, "rollout_id": rollout}
    writer.ledger(at, model, "started", "nightly release", detail={"kind": "release"}, **own)
    minutes = 1
    for weight in (5, 25, 50, 100) if previous else (100,):
        weights = {slot: weight} | ({slots[version % 2]: 100 - weight} if weight < 100 else {})
        detail = {"weights": weights, "phase": "shifting", "counters": {}}
        writer.ledger(at + timedelta(minutes=minutes), model, "traffic", "nightly release", detail=detail, **own)
        minutes += 3
    writer.ledger(at + timedelta(minutes=14), model, "live", "nightly release", detail=proof, **own)
    champion = None if previous is None else 0.91 + 0.01 * version
    writer.decision(
        at - timedelta(minutes=3),
        model,
        "gate",
        "pass",
        ["better by 0.0182, at least 0.0041 with 95 % confidence"] if previous else ["reaches the floor"],
        metric=_METRIC.get(model, "mae"),
        rows=1240,
        champion=champion,
        challenger=0.925 + 0.01 * version,
        improvement=None if champion is None else 0.0182,
        lower_bound=None if champion is None else 0.0041,
        margin=0.01,
        confidence=0.95,
        slices=[],
        champion_version=previous,
        run_id=f"{version:032x}",
        report=f"/lake/reports/model={model}/gate-{version:012d}-against-none-data/champion_beside_challenger.html",
    )
    writer.decision(
        at - timedelta(minutes=9),
        model,
        "data",
        "passed",
        ["14 expectations met"],
        rows=4960,
        report=f"/lake/reports/model={model}/data-{data[:12]}/data_checks.html",
    )


def _rollout(
    model: str, version: str, phase: str, slot: str, key: str, at: datetime, previous: str | None, **more: Any
) -> dict[str, Any]:
    other = "green" if slot == "blue" else "blue"
    row: dict[str, Any] = {
        "id": key, "model": model, "version": version, "kind": "release", "phase": phase, "step": 0, "slot": slot,
        "previous_slot": other if previous else None, "previous_version": previous,
        "policy": POLICY.model_dump(mode="json"), "actor": "airflow", "reason": "nightly release",
        "dag_run": f"asset__{at:%Y-%m-%dT%H:%M}", "command": None, "failure": None, "baseline": {}, "checks": [],
        "evidence": {}, "started_at": at, "phase_since": at, "confirmed_at": None, "driven_at": at,
        "approval_asked_at": None, "approved_at": None, "finished_at": None,
    }  # fmt: skip
    return row | more


def _failed(writer: _Writer, model: str, version: str, at: datetime) -> None:
    key = "5".ljust(32, "0")
    why = "latency_p99: 41.20 ms beside 12.80 ms, 61 of 740 above 25 ms"
    checks = [_check("readiness", "pass", "ready"), _check("error_rate", "pass", "0 of 740 answers are errors"),
              _check("latency_p99", "fail", "41.20 ms beside 12.80 ms, 61 of 740 above 25 ms")]  # fmt: skip
    writer.add(
        "rollouts",
        **_rollout(
            model,
            version,
            "rolled_back",
            "green",
            key,
            at,
            "3",
            failure=why,
            checks=checks,
            step=1,
            finished_at=at + timedelta(minutes=6),
        ),
    )
    own = {"version": version, "slot": "green", "rollout_id": key}
    writer.ledger(at, model, "started", "nightly release", detail={"kind": "release"}, **own)
    detail = {"kind": "release", "failure": why, "checks": checks}
    writer.ledger(at + timedelta(minutes=6), model, "rolled_back", "nightly release", detail=detail, **own)


def _check(name: str, verdict: str, reason: str, **evidence: Any) -> dict[str, Any]:
    return {"name": name, "verdict": verdict, "reason": reason, "evidence": evidence}


def _running(writer: _Writer, model: str, slot: str, live: str) -> None:
    at, key = writer.now - timedelta(minutes=5), "7".ljust(32, "0")
    replay = _check("replay", "pass", "3 of 200 rows are predicted differently, the limit is 10%", rows=200)
    counts = {"started_at": 1.0, "requests": 0, "rejected": 0, "in_flight": 0, "shadow_requests": 0,
              "shadow_errors": 0, "bounds": [], "latency": [0]}  # fmt: skip
    checks = [
        _check("readiness", "pass", "ready"),
        _check("error_rate", "pass", "0 of 412 answers are errors, the limit is 0.50%"),
        _check("latency_p50", "pass", "1.24 ms beside 1.18 ms, 190 of 412 above 5 ms"),
        _check("latency_p99", "inconclusive", "412 and 1236 of at least 500 requests timed in new and old slot"),
        _check("saturation", "pass", "0 of 412 requests were too many, the limit is 5.00%"),
        _check("divergence", "error", "could not look: the lake is away"),
    ]
    writer.add("rollouts", **_rollout(
        model, "4", "shifting", slot, key, at, "3", step=1, checks=checks, evidence={"replay": replay},
        confirmed_at=writer.now - timedelta(seconds=40), phase_since=writer.now - timedelta(seconds=41),
        baseline={"gateway": {"new": {"requests": 100, "errors": 0}, "old": {"requests": 9000, "errors": 2}},
                  "new": counts, "old": counts},
    ))  # fmt: skip
    writer.add(
        "packages",
        model=model,
        version="4",
        bento_tag=f"{model}:v4",
        path="/nowhere",
        digest="d" * 64,
        dataset_sha256="ab" * 32,
        code_commit="3f2c1d0a9b",
        evidence={},
        created_at=at,
    )
    own = {"version": "4", "slot": slot, "rollout_id": key}
    writer.ledger(at, model, "started", "nightly release", detail={"kind": "release"}, **own)
    for seconds, weight in ((60, 5), (260, 25)):
        detail = {"weights": {slot: weight, live: 100 - weight}, "phase": "shifting", "counters": {}}
        writer.ledger(at + timedelta(seconds=seconds), model, "traffic", "nightly release", detail=detail, **own)


def _samples(writer: _Writer, model: str, live: str, idle: str, running: bool, chance: random.Random) -> None:
    first = writer.now.replace(second=0, microsecond=0) - timedelta(minutes=70)
    level = {"iris": 90, "housing": 240, "solar": 36}.get(model, chance.randrange(0, 400))
    totals = {live: [5000, 3], idle: [100, 0]}
    for minute in range(71):
        share = 0.25 if running and minute > 65 else 0.0
        for slot, part in ((live, 1 - share), (idle, share)):
            requests = round(level * part * (1 + 0.25 * chance.random() + 0.3 * ((minute // 12) % 2)))
            totals[slot][0] += requests
            totals[slot][1] += chance.randrange(1, 4) if model == "solar" and 50 < minute < 60 and part > 0.5 else 0
            writer.add("traffic_samples", model=model, slot=slot, minute=first + timedelta(minutes=minute),
                       requests=totals[slot][0], errors=totals[slot][1])  # fmt: skip


def _judgements(writer: _Writer, model: str, chance: random.Random) -> None:
    features = (*_FEATURES.get(model, ("price", "weekday", "holiday", "temperature")), "prediction")
    nights = 14
    for night in range(nights):
        end = writer.now - timedelta(days=nights - 1 - night, hours=2)
        shift = max(0.0, (night - 8) / 5) if model == "iris" else 0.0
        columns = []
        for name in features:
            moved = shift * 1.6 if name in ("petal_length", "petal_width", "prediction") else 0.0
            statistic = round(0.05 + 0.05 * chance.random() + 0.12 * moved, 5)
            columns.append({"name": name, "kind": "number", "method": "ks", "statistic": statistic, "threshold": 0.142,
                            "drifted": statistic > 0.142})  # fmt: skip
        drifted = [one for one in columns if one["drifted"]]
        value = round(0.955 - 0.10 * shift + 0.008 * chance.random(), 4)
        loss = (0.96 - value) / 0.96
        quality = {"metric": _METRIC.get(model, "accuracy"), "rows": 480 + night, "new_labels": 450, "value": value,
                   "baseline": 0.96, "relative_loss": loss, "loss_bound": loss - 0.018}  # fmt: skip
        reports = {name: f"/lake/reports/model={model}/drift-{end:%Y%m%d}-v3/{file}"
                   for name, file in (("drift", "drift.html"), ("data_checks", "data_checks.html"))}  # fmt: skip
        reasons = [f"{one['name']}: ks {one['statistic']:.3f}, threshold 0.142" for one in drifted]
        writer.decision(
            end + timedelta(minutes=4), model, "drift", "drift" if drifted else "no_drift",
            reasons or [f"none of {len(columns)} columns is above its threshold"],
            champion="3", start=(end - timedelta(days=1)).isoformat(), end=end.isoformat(), rows=1210, logged_rows=1210,
            confirmed=len(drifted) > 1 and night > 10, score=0.1 + 0.3 * shift, columns=columns, joint=None,
            quality=quality, reports=reports,
        )  # fmt: skip
        verdict, why = ("not_needed", "no drift") if not drifted else ("held", "fewer new labels than the 500 needed")
        writer.decision(end + timedelta(minutes=5), model, "retrain", verdict, [why], reports=reports)
