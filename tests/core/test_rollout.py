"""The state machine alone: what it decides, and what it never decides whatever it sees."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.core.checks import error_rate, judge, readiness
from slipway.core.rollout import decide, target_weights
from slipway.core.rollout_record import (
    ENDED,
    Ask,
    Finish,
    Go,
    Observation,
    Phase,
    Promote,
    Replay,
    Rollout,
    Shift,
    Start,
    Stop,
    Wait,
)
from slipway.core.verdict import Check, Verdict
from slipway.spec import RolloutPolicy, Step

T0 = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
POLICY = RolloutPolicy(
    steps=(Step(weight=5, bake_seconds=10), Step(weight=100, bake_seconds=10)),
    bake_seconds=10,
    deadline_seconds=100,
    ready_timeout_seconds=20,
    drain_seconds=5,
    replay_requests=0,
)
GOOD = (Check("readiness", Verdict.PASS, "ready"), Check("error_rate", Verdict.PASS, "0 of 10"))


def rollout(phase: Phase, **changes: object) -> Rollout:
    made = Rollout(
        id="r",
        model="iris",
        version="2",
        kind="release",
        phase=phase,
        slot="green",
        policy=POLICY,
        actor="a",
        reason="r",
        started_at=T0,
        phase_since=T0,
        driven_at=T0,
        previous_slot="blue",
        previous_version="1",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def seen(**changes: object) -> Observation:
    made = Observation(running=True, occupied=True, ready=True, weights={"blue": 100}, checks=GOOD)
    return replace(made, **changes)  # type: ignore[arg-type]


def after(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("phase", "look", "seconds", "expected"),
    [
        (Phase.PACKAGED, {"running": False}, 0, Go(Phase.STARTING)),
        (Phase.STARTING, {"running": False, "occupied": False}, 0, Start()),
        (Phase.STARTING, {}, 0, Go(Phase.VERIFYING)),
        (Phase.VERIFYING, {}, 0, Go(Phase.REPLAYING)),
        (Phase.VERIFYING, {"ready": False, "ready_detail": "loading"}, 1, Wait("loading")),
        (Phase.VERIFYING, {"running": False, "ready": False}, 1, Start()),
        (Phase.REPLAYING, {}, 0, Go(Phase.SHADOWING)),
        (Phase.SHADOWING, {}, 0, Go(Phase.SHIFTING, step=0)),
        (Phase.SHIFTING, {}, 0, Shift({"blue": 95, "green": 5})),
        (Phase.BAKING, {"weights": {"blue": 95, "green": 5}}, 0, Shift({"green": 100})),
        (Phase.PROMOTING, {"weights": {"green": 100}}, 0, Promote()),
        (Phase.PROMOTING, {"weights": {"blue": 100}}, 0, Shift({"green": 100})),
        (Phase.PROMOTING, {"weights": None}, 0, Shift({"green": 100})),
        (Phase.ROLLING_BACK, {"weights": {"green": 100}}, 0, Shift({"blue": 100})),
    ],
)
def test_each_phase_does_the_next_thing(
    phase: Phase, look: dict[str, object], seconds: float, expected: object
) -> None:
    assert decide(rollout(phase), seen(**look), after(seconds)) == expected


def test_a_step_is_watched_for_its_time_and_then_left() -> None:
    step = rollout(Phase.SHIFTING, confirmed_at=after(1))
    look = seen(weights={"blue": 95, "green": 5})
    assert isinstance(decide(step, look, after(10.9)), Wait)
    assert decide(step, look, after(11)) == Go(Phase.SHIFTING, step=1)
    last = replace(step, step=1)
    assert decide(last, seen(weights={"green": 100}), after(11)) == Go(Phase.BAKING)
    baking = rollout(Phase.BAKING, confirmed_at=after(1))
    assert decide(baking, seen(weights={"green": 100}), after(11)) == Go(Phase.PROMOTING)


@pytest.mark.parametrize(
    ("ready", "seconds", "expected"),
    [
        (False, 1, Go(Phase.ROLLING_BACK, failure="readiness: gone")),
        (None, 1, Wait("the slot has to answer before it gets traffic: gone")),
        (None, 30, Go(Phase.ROLLING_BACK, failure="readiness: gone")),
    ],
)
@pytest.mark.parametrize("phase", [Phase.SHIFTING, Phase.BAKING])
def test_no_step_gives_traffic_to_a_slot_that_does_not_answer(
    phase: Phase, ready: bool | None, seconds: float, expected: object
) -> None:
    look = seen(running=ready is None, ready=ready, ready_detail="gone", checks=())
    assert decide(rollout(phase), look, after(seconds)) == expected


def test_with_an_unknown_runtime_traffic_moves_and_nothing_is_finished() -> None:
    back = rollout(Phase.ROLLING_BACK, failure="latency")
    assert decide(back, seen(running=None, occupied=None, weights={"green": 100}), after(1)) == Shift({"blue": 100})
    moved = replace(back, confirmed_at=after(1))
    assert decide(moved, seen(running=None, occupied=None), after(2)) == Stop()
    assert decide(rollout(Phase.STARTING), seen(running=None, occupied=None, ready=None), after(1)) == Start()


@pytest.mark.parametrize(
    ("dead", "seconds", "stops"), [(True, 20, False), (True, 21, True), (False, 5.5, False), (False, 6, True)]
)
def test_a_slot_that_died_with_traffic_stays_while_requests_are_repeated(
    dead: bool, seconds: float, stops: bool
) -> None:
    evidence = {"dead_at": after(5).isoformat()}
    back = rollout(Phase.ROLLING_BACK, failure="readiness", confirmed_at=after(1), evidence=evidence)
    action = decide(back, seen(dead=dead, active=0), after(seconds))
    assert isinstance(action, Stop if stops else Wait)


def test_a_replay_that_never_ends_is_rolled_back_at_the_deadline() -> None:
    replaying = rollout(Phase.REPLAYING, policy=POLICY.model_copy(update={"replay_requests": 10}))
    assert decide(replaying, seen(), after(99)) == Replay()
    action = decide(replaying, seen(), after(100))
    assert action == Go(Phase.ROLLING_BACK, failure="replay: it was not finished by the deadline")


def test_a_question_keeps_its_answer_when_nobody_drove_for_a_while() -> None:
    asked = rollout(Phase.REPLAYING, approval_asked_at=after(1), approved_at=after(3), driven_at=after(4))
    resumed = asked.resumed(after(60))
    assert (resumed.asked, resumed.approved, resumed.phase_since) == (True, True, T0)


def test_a_first_release_takes_everything_in_one_step() -> None:
    first = rollout(Phase.SHIFTING, previous_slot=None, previous_version=None, confirmed_at=after(0))
    assert target_weights(first) == {"green": 100}
    assert decide(first, seen(weights={"green": 100}), after(10)) == Go(Phase.BAKING)


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.VERIFYING])
def test_what_does_not_come_up_in_time_is_rolled_back(phase: Phase) -> None:
    action = decide(rollout(phase), seen(running=phase is Phase.VERIFYING, ready=False), after(20))
    assert isinstance(action, Go)
    assert action.phase is Phase.ROLLING_BACK


def test_silence_of_the_drivers_is_not_held_against_a_starting_slot() -> None:
    starting = rollout(Phase.STARTING, phase_since=after(0), driven_at=after(1))
    resumed = starting.resumed(after(60))
    assert resumed.phase_since == after(59)
    assert decide(resumed, seen(running=False, occupied=False), after(60)) == Start()


@pytest.mark.parametrize("phase", [Phase.SHIFTING, Phase.BAKING])
def test_a_failed_check_rolls_back_before_the_bake_is_over(phase: Phase) -> None:
    checks = (*GOOD, Check("error_rate", Verdict.FAIL, "30 of 200 failed"))
    weights = {"blue": 95, "green": 5} if phase is Phase.SHIFTING else {"green": 100}
    action = decide(rollout(phase, confirmed_at=T0), seen(weights=weights, checks=checks), after(1))
    assert action == Go(Phase.ROLLING_BACK, failure="error_rate: 30 of 200 failed")


@pytest.mark.parametrize("verdict", [Verdict.INCONCLUSIVE, Verdict.ERROR])
def test_not_knowing_waits_until_the_deadline_and_never_promotes(verdict: Verdict) -> None:
    baking = rollout(Phase.BAKING, confirmed_at=T0)
    look = seen(weights={"green": 100}, checks=(Check("error_rate", verdict, "?"),))
    assert isinstance(decide(baking, look, after(99)), Wait)
    assert decide(baking, look, after(100)) == Go(
        Phase.ROLLING_BACK, failure=f"{verdict} at the deadline: error_rate: ?"
    )
    held = replace(baking, policy=POLICY.model_copy(update={"on_inconclusive": "hold"}))
    action = decide(held, look, after(100))
    assert isinstance(action, Wait) is (verdict is Verdict.INCONCLUSIVE)


def test_rolling_back_drains_then_stops_then_ends() -> None:
    back = rollout(Phase.ROLLING_BACK, confirmed_at=after(1), failure="error_rate: too many")
    assert isinstance(decide(back, seen(active=3), after(2)), Wait)
    assert decide(back, seen(active=3), after(6)) == Stop()
    assert decide(back, seen(active=0), after(2)) == Stop()
    assert decide(back, seen(running=False, occupied=False), after(2)) == Finish(Phase.ROLLED_BACK)


# --- replay, shadow, approval ----------------------------------------------------------------------------

REPLAYS = POLICY.model_copy(update={"replay_requests": 10})
SHADOWS = POLICY.model_copy(update={"shadow_percent": 20, "shadow_seconds": 10.0})
ASKS = POLICY.model_copy(update={"approval": "before_promotion", "on_inconclusive": "ask"})


def found(verdict: Verdict, rows: int = 10) -> dict[str, object]:
    return {"replay": Check("replay", verdict, "why", {"rows": rows}).as_dict()}


@pytest.mark.parametrize(
    ("evidence", "seconds", "expected"),
    [
        ({}, 0, Replay()),
        (found(Verdict.PASS), 0, Go(Phase.SHADOWING)),
        (found(Verdict.FAIL), 0, Go(Phase.ROLLING_BACK, failure="replay: why")),
        (found(Verdict.INCONCLUSIVE, rows=0), 0, Go(Phase.SHADOWING)),
        (found(Verdict.INCONCLUSIVE), 0, Go(Phase.ROLLING_BACK, failure="inconclusive: replay: why")),
        (found(Verdict.ERROR), 1, Replay()),
        (found(Verdict.ERROR), 21, Go(Phase.ROLLING_BACK, failure="replay: why")),
    ],
)
def test_a_replay_is_made_once_and_judged(evidence: dict[str, object], seconds: float, expected: object) -> None:
    assert decide(rollout(Phase.REPLAYING, policy=REPLAYS, evidence=evidence), seen(), after(seconds)) == expected


def test_a_first_version_has_nothing_to_replay_or_to_mirror() -> None:
    alone = {"previous_slot": None, "previous_version": None}
    assert decide(rollout(Phase.REPLAYING, policy=REPLAYS, **alone), seen(), T0) == Go(Phase.SHADOWING)
    assert decide(rollout(Phase.SHADOWING, policy=SHADOWS, **alone), seen(), T0) == Go(Phase.SHIFTING, step=0)


def test_a_shadow_is_mirrored_watched_and_ended() -> None:
    shadow = rollout(Phase.SHADOWING, policy=SHADOWS)
    assert decide(shadow, seen(), T0) == Shift({"blue": 100}, 20)
    watched = replace(shadow, confirmed_at=T0)
    assert decide(watched, seen(), after(1)) == Shift({"blue": 100}, 20), "it is no longer mirrored"
    assert isinstance(decide(watched, seen(shadow=20), after(9)), Wait)
    assert decide(watched, seen(shadow=20), after(10)) == Go(Phase.SHIFTING, step=0)
    back = rollout(Phase.ROLLING_BACK, policy=SHADOWS, confirmed_at=T0)
    assert decide(back, seen(shadow=20), after(1)) == Shift({"blue": 100}), "a slot that is mirrored to was stopped"


def test_waiting_for_a_person_stops_the_deadline_and_keeps_checks_armed() -> None:
    policy = POLICY.model_copy(update={"approval": "before_promotion"})
    look = seen(weights={"green": 100})
    baking = rollout(Phase.BAKING, policy=policy, confirmed_at=T0)
    assert isinstance(decide(baking, look, after(10)), Ask)
    asked = replace(baking, approval_asked_at=after(10))
    assert isinstance(decide(asked, look, after(5000)), Wait)
    unsure = replace(look, checks=(Check("error_rate", Verdict.INCONCLUSIVE, "?"),))
    assert isinstance(decide(asked, unsure, after(5000)), Wait)
    bad = replace(look, checks=(Check("error_rate", Verdict.FAIL, "3 of 9"),))
    assert decide(asked, bad, after(5000)) == Go(Phase.ROLLING_BACK, failure="error_rate: 3 of 9")
    approved = replace(asked, approved_at=after(5000))
    assert decide(approved, look, after(5001)) == Go(Phase.PROMOTING)
    assert approved.deadline == after(100 + 4990)
    assert approved.moved(Phase.PROMOTING, after(5001)).deadline == approved.deadline
    assert isinstance(decide(replace(asked, command="reject"), look, after(11)), Go)


def test_an_approval_counts_for_its_own_phase_only() -> None:
    before = rollout(Phase.SHIFTING, approval_asked_at=after(1), approved_at=after(2), phase_since=after(3))
    assert (before.asked, before.approved) == (False, False)


phases = st.sampled_from(list(Phase))
weights = st.none() | st.sampled_from([{}, {"blue": 100}, {"green": 100}, {"blue": 95, "green": 5}])
verdicts = st.lists(st.sampled_from(list(Verdict)), max_size=3).map(
    lambda found: tuple(Check(f"c{i}", verdict, "why") for i, verdict in enumerate(found))
)


@st.composite
def situations(draw: st.DrawFn) -> tuple[Rollout, Observation, datetime]:
    phase = draw(phases)
    confirmed = draw(st.none() | st.floats(0, 300))
    made = rollout(
        phase,
        step=draw(st.integers(0, 1)),
        command=draw(st.sampled_from([None, "abort", "promote"])),
        policy=draw(st.sampled_from([POLICY, REPLAYS, SHADOWS, ASKS])),
        approval_asked_at=draw(st.sampled_from([None, after(0), after(50)])),
        approved_at=draw(st.sampled_from([None, after(60)])),
        confirmed_at=None if confirmed is None else after(confirmed),
        previous_slot=draw(st.sampled_from([None, "blue"])),
    )
    running = draw(st.booleans())
    look = Observation(
        running=running,
        occupied=running or draw(st.booleans()),
        ready=draw(st.sampled_from([True, False, None])),
        weights=draw(weights),
        shadow=draw(st.sampled_from([0, 20])),
        active=draw(st.integers(0, 3)),
        checks=draw(verdicts),
    )
    return made, look, after(draw(st.floats(0, 400)))


@given(situations())
def test_whatever_is_seen_the_rules_hold(situation: tuple[Rollout, Observation, datetime]) -> None:
    made, look, now = situation
    action = decide(made, look, now)
    assert action == decide(made, look, now)
    forward = isinstance(action, Go) and action.phase in (Phase.BAKING, Phase.PROMOTING, Phase.SHIFTING)
    verdict, _ = judge(look.checks)
    if made.phase in ENDED:
        assert isinstance(action, Wait)
    if made.phase in (Phase.SHIFTING, Phase.BAKING) and forward:
        assert verdict is not Verdict.FAIL
        assert look.weights == target_weights(made), "went on without the gateway's confirmation"
        assert made.confirmed_at is not None
        told = made.approved and made.policy.on_inconclusive == "ask" and verdict is Verdict.INCONCLUSIVE
        assert verdict is Verdict.PASS or made.command == "promote" or told
        if made.phase is Phase.BAKING and made.policy.approval == "before_promotion":
            assert made.approved or made.command == "promote", "promoted without the approval"
    if isinstance(action, Promote):
        assert made.phase is Phase.PROMOTING
        assert look.weights == target_weights(made)
    if isinstance(action, Stop):
        assert made.phase is Phase.ROLLING_BACK
        assert look.weights is not None
        assert made.slot not in look.weights, "a slot with traffic was stopped"
        assert look.shadow == 0, "a slot that is mirrored to was stopped"
    if isinstance(action, Finish):
        assert not look.occupied
    if isinstance(action, Shift):
        assert sum(action.weights.values()) in (0, 100)
    if made.command == "abort" and made.phase not in (*ENDED, Phase.PROMOTING, Phase.ROLLING_BACK):
        assert action == Go(Phase.ROLLING_BACK, failure="aborted by an operator")
    if isinstance(action, Go) and action.phase is Phase.SHIFTING and made.phase is Phase.SHADOWING:
        assert action.step == 0


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 500))
def test_error_rate_never_passes_above_its_limit_or_below_its_evidence(requests: int, errors: int, least: int) -> None:
    errors = min(errors, requests)
    verdict = error_rate(requests, errors, limit=0.01, min_requests=least).verdict
    if verdict is Verdict.PASS:
        assert requests >= least
        assert errors <= 0.01 * max(requests, least)
    if verdict is Verdict.FAIL:
        assert errors > 0.01 * requests


def test_no_check_is_inconclusive_and_the_worst_one_is_named() -> None:
    assert judge(()) == (Verdict.INCONCLUSIVE, "nothing was checked")
    assert judge((*GOOD, readiness(None, "no answer"))) == (Verdict.ERROR, "readiness: no answer")
    assert judge((readiness(False, "golden row 1"), readiness(None, ""))) == (Verdict.FAIL, "readiness: golden row 1")
