"""What a person is told about a model, and its story in words."""

from __future__ import annotations

from typing import Any

import pytest

from slipway_control.pictures import bars, meter, sparkline
from slipway_control.signals import drift_light, error_share, level_of, signals
from slipway_control.timeline import of_event, story

WELL: dict[str, Any] = {
    "live_version": "3",
    "rollout": None,
    "last_rollout": None,
    "slots": {"blue": {"weight": 100, "running": True}, "green": {"weight": 0, "running": False}},
    "weights": {"blue": 100, "green": 0},
    "applied": {"blue": 100, "green": 0},
    "traffic": {"requests": [100] * 10, "errors": [0] * 10},
    "decisions": {"drift": {"verdict": "no_drift", "confirmed": False}, "data": {"verdict": "passed"}},
}
ASKING = {"version": "4", "phase": "baking", "awaits_approval": True}


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        ({}, "ok", None),
        ({"live_version": None}, "none", "no version was released"),
        ({"applied": None}, "bad", "the gateway does not answer"),
        ({"applied": {"blue": 90, "green": 10}}, "warn", "does not apply the wanted weights"),
        ({"slots": {"blue": {"weight": 100, "running": False}}}, "bad", "does not run"),
        ({"traffic": {"requests": [100] * 5, "errors": [2] * 5}}, "bad", "2.0% of the answers fail"),
        ({"traffic": {"requests": [1000] * 5, "errors": [2] * 5}}, "warn", "0.20% of the answers fail"),
        ({"traffic": {"requests": [3] * 5, "errors": [3] * 5}}, "ok", None),
        ({"rollout": ASKING}, "ask", "v4 waits for your approval"),
        ({"rollout": ASKING | {"awaits_approval": False}}, "ok", None),
        ({"last_rollout": {"phase": "rolled_back", "version": "4", "failure": "slow"}}, "warn", "rolled back: slow"),
        ({"decisions": {"drift": {"verdict": "drift", "confirmed": True}}}, "bad", "drift is confirmed"),
        ({"decisions": {"drift": {"verdict": "drift", "confirmed": False}}}, "warn", "drift was seen once"),
        ({"decisions": {"retrain": {"verdict": "alert"}}}, "bad", "automatic retraining has stopped"),
        ({"decisions": {"data": {"verdict": "quarantined"}}}, "warn", "the last data set failed its checks"),
    ],
)  # fmt: skip
def test_a_models_level_and_what_is_said(change: dict[str, Any], level: str, words: str | None) -> None:
    found = signals({**WELL, **change})
    assert level_of(found) == level
    assert words is None or any(words in one.text for one in found)


def test_the_worst_comes_first() -> None:
    found = signals({**WELL, "rollout": ASKING, "applied": None, "decisions": {"data": {"verdict": "quarantined"}}})
    assert [one.level for one in found] == ["bad", "ask", "warn"]


def test_too_few_answers_say_nothing_about_errors() -> None:
    assert error_share(None) is None
    assert error_share({"requests": [19], "errors": [19]}) is None
    assert error_share({"requests": [40], "errors": [10]}) == 0.25
    assert drift_light(None).text == "not judged yet"


def event(seq: int, name: str, **more: Any) -> dict[str, Any]:
    row = {"seq": seq, "at": f"2026-11-20T00:{seq:02d}:00+00:00", "event": name, "version": "4", "actor": "airflow"}
    return {**row, "reason": "nightly", "rollout_id": "r", "detail": {}, **more}


def decision(minute: int, kind: str, verdict: str) -> dict[str, Any]:
    at = f"2026-11-20T01:{minute:02d}:00+00:00"
    return {"key": f"{kind}{minute}", "at": at, "kind": kind, "verdict": verdict, "reasons": ["why"], "evidence": {}}


def test_moves_of_a_rollout_and_quiet_nights_are_told_as_one() -> None:
    moves = [event(n, "traffic", detail={"weights": {"green": w}}) for n, w in ((2, 5), (3, 25), (4, 100))]
    nights = [decision(n, "drift", "no_drift") for n in (1, 2, 3)] + [decision(4, "drift", "drift")]
    kept = [decision(5, "retrain", "held"), decision(6, "retrain", "not_needed")]
    told = story([event(1, "started", detail={"kind": "release"}), *moves, event(5, "live")], [*nights, *kept])
    assert [one["title"] for one in told] == [
        "Retrain held back",
        "Drift seen",
        "No drift, nor in the 2 windows before",
        "v4 went live",
        "Traffic: green 5 % → green 25 % → green 100 %",
        "Release of v4 started",
    ]


def test_a_rollback_reads_as_one() -> None:
    back = {"detail": {"kind": "rollback"}, "version": "3"}
    assert of_event(event(1, "started", **back))["title"] == "Rollback to v3 started"
    assert of_event(event(2, "live", **back))["title"] == "v3 is live again"
    failed = of_event(event(3, "rolled_back", detail={"failure": "slow"}))
    assert failed["reasons"] == ["slow", "nightly"]


def test_pictures_say_the_same_in_words_and_escape_them() -> None:
    for picture in (sparkline([0, 0], "<none>"), bars([0, 3], "<b>"), meter(2.0, 1.0, "<m>", "bad"), sparkline([], "")):
        assert 'role="img"' in picture
        assert "<none>" not in picture
        assert "nan" not in picture
    assert 'aria-label="&lt;b&gt;"' in bars([0, 3], "<b>")
