"""Watching windows of traffic, and what follows from them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from jobs.loop_cases import END, START, Loop
from slipway.errors import DataError, NotFoundError, QuarantineError
from slipway.jobs.quarantine import quarantined_windows
from slipway.spec import DriftPolicy, Feature

SHIFT = {"petal_length": 1.5}


@pytest.fixture(scope="module")
def trained() -> Loop:
    """A champion that no test changes; each test takes a copy of its surroundings."""
    loop = Loop()
    loop.first_champion()
    return loop


@pytest.fixture
def loop(trained: Loop) -> Loop:
    fresh = Loop()
    fresh.tracker.runs = dict(trained.tracker.runs)
    fresh.tracker.registered = list(trained.tracker.registered)
    fresh.tracker.aliases = dict(trained.tracker.aliases)
    fresh.tracker.artefacts = trained.tracker.artefacts
    fresh.lake.frames = dict(trained.lake.frames)
    return fresh


def test_a_window_without_shift_has_not_drifted_and_leads_to_no_retrain(loop: Loop) -> None:
    loop.traffic(2000, labels=True)
    watched = loop.watch()
    assert watched["verdict"] == "no_drift"
    assert watched["quality"]["rows"] == 2000
    decision = loop.decide(watched)
    assert not decision["retrain"]
    json.dumps([watched, decision], allow_nan=False)  # both travel between tasks


def test_a_shift_that_hurts_is_seen_and_ends_in_a_better_champion(loop: Loop) -> None:
    loop.traffic(2000, labels=True, shifts=SHIFT)
    watched = loop.watch()
    assert watched["verdict"] == "drift"
    assert watched["confirmed"]
    assert [column["name"] for column in watched["columns"] if column["drifted"]] == ["petal_length", "prediction"]
    decision = loop.decide(watched)
    assert decision["retrain"]
    taken = loop.assemble(decision)
    assert taken.source == "retrain"
    assert taken.rows == 2150
    trained = loop.train(taken, "drift")
    evidence = loop.gate(trained["run_id"], "drift")
    assert evidence["verdict"] == "pass"
    assert evidence["rows"] == 500
    assert evidence["lower_bound"] > 0.1
    version = loop.register(trained["run_id"], evidence)
    assert version.tags["slipway.data_until"] > START.isoformat()

    loop.tracker.set_alias("iris", "champion", version.version)
    after = loop.watch()
    assert after["champion"] == version.version
    assert after["verdict"] == "no_drift"
    assert after["quality"]["new_labels"] == 0
    assert not loop.decide(after)["retrain"]


def test_everything_repeated_gives_the_same_and_records_it_once(loop: Loop) -> None:
    loop.traffic(1000, labels=True, shifts=SHIFT)
    watched = [loop.watch(), loop.watch()]
    assert watched[0] == watched[1]
    decided = [loop.decide(watched[0]), loop.decide(watched[0])]
    assert decided[0] == decided[1]
    assembled = [loop.assemble(decided[0]), loop.assemble(decided[0])]
    assert assembled[0].sha256 == assembled[1].sha256
    kinds = [one.kind for one in loop.decisions.rows]
    assert sorted(kinds) == ["data", "data", "drift", "retrain"]


def test_a_retrain_decided_on_stands_though_the_breaker_would_hold_the_next(loop: Loop) -> None:
    policy = loop.spec.retrain.model_copy(update={"cool_down_hours": 24})
    loop.spec = loop.spec.model_copy(update={"retrain": policy})
    loop.traffic(1000, labels=True, shifts=SHIFT)
    watched = loop.watch()
    assert loop.decide(watched)["retrain"]
    assert loop.decide(watched)["retrain"]
    other = {**watched, "start": (START + timedelta(hours=1)).isoformat()}
    assert loop.decide(other)["verdict"] == "held"


def test_drift_that_does_not_hurt_is_reported_and_nothing_else(loop: Loop) -> None:
    loop.traffic(2000, labels=True, shifts={"sepal_length": 1.0})
    watched = loop.watch()
    assert watched["verdict"] == "drift"
    decision = loop.decide(watched)
    assert not decision["retrain"]
    assert "does not hurt" in decision["reasons"][0]


def test_no_traffic_and_little_traffic_are_inconclusive(loop: Loop) -> None:
    nothing = loop.watch()
    assert nothing["verdict"] == "inconclusive"
    loop.traffic(199)
    little = loop.watch()
    assert little["verdict"] == "inconclusive"
    assert "199 rows in the window, 200 needed" in little["reasons"]
    assert not loop.decide(little)["retrain"]


def test_an_incompletely_logged_window_is_not_judged(loop: Loop) -> None:
    loop.traffic(1000, shifts=SHIFT)
    assert loop.watch(answered_rows=1010)["verdict"] == "inconclusive"
    assert len(quarantined_windows(loop.decisions, "iris")) == 1  # nor is it trained on
    loop.now += timedelta(minutes=1)
    assert loop.watch(answered_rows=1000)["verdict"] == "drift"  # the rest was shipped meanwhile
    assert not quarantined_windows(loop.decisions, "iris")


@pytest.mark.parametrize("value", [-5.0, np.inf, None])
def test_a_window_that_fails_its_checks_is_quarantined_and_never_trained_on(loop: Loop, value: float | None) -> None:
    middle = START + timedelta(hours=12)
    loop.traffic(500, labels=True, shifts=SHIFT, end=middle)
    loop.lake.logged.loc[7, "sepal_width"] = value
    loop.traffic(500, labels=True, shifts=SHIFT, start=middle, seed=1)

    broken = loop.watch(START, middle)
    assert broken["verdict"] == "quarantined"
    assert "sepal_width" in broken["reasons"][0]
    assert loop.decide(broken)["verdict"] == "held"

    sound = loop.watch(middle, END)
    assert sound["verdict"] == "drift"
    whole = {**loop.decide(sound), "start": START.isoformat()}
    taken = loop.assemble(whole)
    assert taken.rows == 150 + 500
    frame = loop.lake.read_snapshot(taken)
    assert frame["ts"].dropna().min() >= pd.Timestamp(middle)


def test_a_window_of_quarantined_rows_only_gives_nothing_to_train_on(loop: Loop) -> None:
    loop.traffic(500, labels=True, shifts=SHIFT)
    watched = loop.watch()
    loop.lake.logged.loc[0, "sepal_width"] = -1.0
    loop.now += timedelta(seconds=1)
    assert loop.watch()["verdict"] == "quarantined"
    with pytest.raises(DataError, match="0 labelled rows"):
        loop.assemble(loop.decide(watched))


def test_bad_rows_that_no_window_was_watched_for_are_caught_when_assembling(loop: Loop) -> None:
    loop.traffic(500, labels=True, shifts=SHIFT)
    decision = loop.decide(loop.watch())
    loop.lake.logged.loc[0, "sepal_width"] = -1.0
    with pytest.raises(QuarantineError, match="sepal_width"):
        loop.assemble(decision)


def test_two_of_three_windows_must_drift_when_the_policy_says_so(loop: Loop) -> None:
    loop.spec = loop.spec.model_copy(update={"drift": DriftPolicy(min_rows=200, window_hours=8)})
    eight = timedelta(hours=8)
    loop.traffic(600, shifts=SHIFT)
    confirmed = []
    for index in range(2):
        loop.now = START + (index + 1) * eight
        confirmed.append(loop.watch(START + index * eight, START + (index + 1) * eight)["confirmed"])
    assert confirmed == [False, True]


def test_labels_given_twice_count_once_and_shadow_rows_do_not_count(loop: Loop) -> None:
    logged = loop.traffic(400, labels=True)
    shadow = logged.assign(shadow=True, petal_length=99.0)
    loop.lake.logged = pd.concat([loop.lake.logged, shadow], ignore_index=True)
    corrected = loop.lake.labelled.assign(label="setosa", ts=loop.lake.labelled["ts"] + timedelta(days=1))
    loop.lake.labelled = pd.concat([loop.lake.labelled, corrected], ignore_index=True)
    watched = loop.watch()
    assert watched["rows"] == 400
    assert watched["quality"]["rows"] == 400
    assert watched["quality"]["value"] == pytest.approx((logged["prediction"] == "setosa").mean())


def test_a_broken_server_shows_in_the_logged_predictions(loop: Loop) -> None:
    loop.traffic(1000, labels=True)
    loop.lake.logged["prediction"] = "setosa"
    watched = loop.watch()
    assert [column["name"] for column in watched["columns"] if column["drifted"]] == ["prediction"]
    assert watched["quality"]["value"] < 0.5


def test_rows_that_another_version_answered_are_judged_by_what_the_champion_would_say(loop: Loop) -> None:
    loop.traffic(1000, labels=True)
    loop.lake.logged["version"] = "99"
    loop.lake.logged["prediction"] = "setosa"
    watched = loop.watch()
    assert watched["verdict"] == "no_drift"
    assert watched["quality"]["value"] > 0.9


def test_large_windows_are_sampled_and_say_so(loop: Loop) -> None:
    loop.spec = loop.spec.model_copy(update={"drift": loop.spec.drift.model_copy(update={"max_rows": 500})})
    loop.traffic(1200)
    watched = loop.watch()
    assert watched["rows"] == 500
    assert watched["logged_rows"] == 1200
    assert watched["reasons"][-1] == "judged on 500 of 1200 rows"


def test_reports_are_written_where_the_outcome_says(loop: Loop) -> None:
    loop.traffic(300)
    reports = loop.watch()["reports"]
    assert set(reports) == {"data_checks", "drift", "drift_json"}
    stored = {f"memory://{path}" for path in loop.lake.reports}
    assert set(reports.values()) <= stored


def test_a_model_without_champion_and_a_window_without_length_are_refused(loop: Loop) -> None:
    with pytest.raises(DataError, match="end after its start"):
        loop.watch(END, START)
    loop.tracker.aliases.clear()
    with pytest.raises(NotFoundError, match="no champion"):
        loop.watch()


def test_two_refused_challengers_in_a_row_raise_an_alert(loop: Loop) -> None:
    loop.traffic(1000, labels=True, shifts=SHIFT)
    watched = loop.watch()
    run_id = loop.tracker.registered[0].run_id
    loop.gate(run_id, "drift")  # the champion against itself is not better
    assert loop.decide(watched)["retrain"]
    refused = next(one for one in loop.decisions.rows if one.kind == "gate")
    loop.decisions.rows.append(replace(refused, key="gate:of another run", at=loop.now + timedelta(hours=1)))
    other = {**watched, "start": (START + timedelta(hours=1)).isoformat()}
    assert loop.decide(other)["verdict"] == "alert"


def test_the_newest_data_check_of_a_window_counts_however_often_it_changes(loop: Loop) -> None:
    loop.traffic(300, labels=True)
    good = loop.lake.logged["sepal_width"].copy()
    seen = []
    for spoiled in (False, True, True, False, True):
        loop.now += timedelta(seconds=1)
        loop.lake.logged["sepal_width"] = -1.0 if spoiled else good
        loop.watch()
        seen.append(len(quarantined_windows(loop.decisions, "iris")))
    assert seen == [0, 1, 1, 0, 1]
    assert len([one for one in loop.decisions.rows if one.kind == "data"]) == 4


def test_a_champion_from_before_a_feature_was_added_is_not_judged_on_it(loop: Loop) -> None:
    added = Feature(name="stem_length", unit="cm", minimum=0, maximum=99)
    loop.traffic(300)
    loop.lake.logged["stem_length"] = 12.0
    loop.spec = loop.spec.model_copy(update={"features": (*loop.spec.features, added)})
    watched = loop.watch()
    assert watched["verdict"] == "inconclusive"
    assert "trained without stem_length" in watched["reasons"][0]
