"""Challengers of six kinds under simulated traffic with the default canary policy: each ends as it should.

Traffic and clock are simulated, the state machine, its checks and Postgres are real. `CHALLENGER_ROUNDS` repeats each
kind that often, with other random traffic each time.
"""

from __future__ import annotations

import os

import pytest

from contracts.traffic_twin import Behaviour, TrafficTwin
from contracts.world import QUICK, World
from slipway.core.rollout_record import Phase
from slipway.core.routes import BackendStats
from slipway.spec import RolloutPolicy, all_at_once, canary

pytestmark = pytest.mark.services
ROUNDS = int(os.environ.get("CHALLENGER_ROUNDS", "1"))
DEFAULT = RolloutPolicy()
BAD = {
    "slow": (Behaviour(latency=0.02), "latency_p50"),
    "slower_than_the_last_bucket": (Behaviour(latency=5.0), "latency_p50"),
    "raises_on_1_per_cent": (Behaviour(fails=0.01), "error_rate"),
    "crashes_after_30_s": (Behaviour(lives_seconds=30), "readiness"),
    "shifted_predictions": (Behaviour(shares=(0.05, 0.3, 0.65)), "divergence"),
    "wrong_on_labels": (Behaviour(right=0.7), "quality"),
}
GOOD = {"equal": Behaviour(right=0.9), "better": Behaviour(latency=0.002, right=0.97)}


def traffic(world: World, seed: int, challenger: Behaviour, invalid: float = 0.0) -> TrafficTwin:
    world.release("1", QUICK)
    made = TrafficTwin(world, seed=seed, versions={"1": Behaviour(right=0.9), "2": challenger}, invalid=invalid)
    made.pass_time(5)
    return made


@pytest.mark.parametrize("seed", range(ROUNDS))
@pytest.mark.parametrize("kind", list(BAD))
def test_a_bad_challenger_is_rolled_back_by_the_named_check(world: World, kind: str, seed: int) -> None:
    behaviour, check = BAD[kind]
    simulated = traffic(world, seed, behaviour)
    sent = simulated.sent
    ended = simulated.drive(world.begin("2", DEFAULT))
    assert ended.phase is Phase.ROLLED_BACK
    assert (ended.failure or "").startswith(f"{check}: "), ended.failure
    steps = {weights["iris"].get("green", 0) for weights in world.gateway.published}
    assert max(steps) <= 5, "more than the first step met it"
    assert simulated.met.get("2", 0) <= 0.06 * max(1, simulated.sent - sent)
    world.check_truth()


@pytest.mark.parametrize("seed", range(ROUNDS))
@pytest.mark.parametrize("kind", list(GOOD))
def test_an_equal_and_a_better_challenger_are_promoted(world: World, kind: str, seed: int) -> None:
    simulated = traffic(world, seed, GOOD[kind])
    ended = simulated.drive(world.begin("2", DEFAULT))
    assert (ended.phase, ended.failure) == (Phase.LIVE, None)
    world.check_truth()


def test_a_better_challenger_may_answer_differently_when_labels_say_so(world: World) -> None:
    simulated = traffic(world, 0, Behaviour(shares=(0.1, 0.3, 0.6), right=0.99))
    assert simulated.drive(world.begin("2", DEFAULT)).phase is Phase.LIVE


def test_a_champion_with_errors_of_its_own_can_be_replaced_by_its_equal(world: World) -> None:
    simulated = traffic(world, 0, Behaviour(fails=0.02))
    simulated.versions = {**simulated.versions, "1": Behaviour(fails=0.02)}
    assert simulated.drive(world.begin("2", DEFAULT)).phase is Phase.LIVE


AT_ONCE = DEFAULT.model_copy(update={"steps": all_at_once(bake_seconds=30.0)})


def test_errors_that_a_former_version_left_in_the_slots_counters_excuse_nothing(world: World) -> None:
    world.gateway.stats["iris_blue"] = BackendStats(500_000, 10_000)
    simulated = traffic(world, 0, Behaviour(fails=0.01))
    ended = simulated.drive(world.begin("2", AT_ONCE))
    assert (ended.phase, (ended.failure or "").partition(":")[0]) == (Phase.ROLLED_BACK, "error_rate")


@pytest.mark.parametrize("restarted", [False, True])
def test_what_the_champion_itself_failed_counts_also_after_the_gateways_restart(world: World, restarted: bool) -> None:
    world.gateway.stats["iris_blue"] = BackendStats(500_000, 5)
    simulated = traffic(world, 0, Behaviour(fails=0.02))
    simulated.versions = {**simulated.versions, "1": Behaviour(fails=0.02)}
    simulated.pass_time(60)
    if restarted:
        world.gateway.stats["iris_blue"] = BackendStats(2000, 40)
    assert simulated.drive(world.begin("2", AT_ONCE)).phase is Phase.LIVE


def test_counters_of_two_lives_of_the_gateway_are_not_mixed(world: World) -> None:
    world.gateway.stats["iris_blue"] = BackendStats(500_000, 5)
    simulated = traffic(world, 0, Behaviour(fails=0.06))
    world.clock.sleep(1000)
    world.gateway.uptime_seconds = 10.0
    world.gateway.stats["iris_blue"] = BackendStats(600_000, 12_000)  # 2 %, and not 12 % of what came since
    ended = simulated.drive(world.begin("2", AT_ONCE))
    assert (ended.phase, (ended.failure or "").partition(":")[0]) == (Phase.ROLLED_BACK, "error_rate")


def test_a_policy_that_is_refused_as_it_waits_in_vain_for_labels_never_promotes(world: World) -> None:
    checks = AT_ONCE.checks.model_copy(update={"min_labels": 50})
    policy = AT_ONCE.model_copy(update={"checks": checks})
    assert policy.waits_in_vain
    simulated = traffic(world, 0, Behaviour(right=0.9))
    ended = simulated.drive(world.begin("2", policy), step=20.0)
    assert "quality: 0 and 0 of at least 50 labels" in (ended.failure or "")


def test_no_traffic_at_all_is_never_promoted_by_the_clock(world: World) -> None:
    world.release("1")
    idle = TrafficTwin(world, rate=0.0)
    ended = idle.drive(world.begin("2", DEFAULT), step=20.0)
    assert ended.phase is Phase.ROLLED_BACK
    assert "inconclusive at the deadline: error_rate: 0 of at least 100 requests seen" in (ended.failure or "")
    assert max(weights["iris"].get("green", 0) for weights in world.gateway.published) == 5
    world.check_truth()


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_the_clients_own_mistakes_fail_no_equal_version(world: World, seed: int) -> None:
    simulated = traffic(world, seed, Behaviour(), invalid=0.1)
    assert simulated.drive(world.begin("2", DEFAULT)).phase is Phase.LIVE


def test_refused_requests_are_no_evidence(world: World) -> None:
    simulated = traffic(world, 0, Behaviour(), invalid=1.0)
    ended = simulated.drive(world.begin("2", DEFAULT), step=20.0)
    assert simulated.met["2"] > 1000
    assert "inconclusive at the deadline: error_rate: 0 of at least 100 requests seen" in (ended.failure or "")


def test_refused_requests_do_not_thin_out_errors(world: World) -> None:
    world.release("1")
    policy = QUICK.model_copy(update={"steps": canary(50), "min_requests": 100})
    simulated = TrafficTwin(world, versions={"2": Behaviour(fails=0.007)}, invalid=0.9)
    ended = simulated.drive(world.begin("2", policy.model_copy(update={"max_error_rate": 0.02})))
    assert (ended.failure or "").startswith("error_rate: "), ended.failure


@pytest.mark.parametrize("version", ["1", "2"])
def test_metrics_that_cannot_be_read_never_promote(world: World, version: str) -> None:
    simulated = traffic(world, 0, Behaviour())
    world.probe.blind.add(version)
    ended = simulated.drive(world.begin("2", DEFAULT.model_copy(update={"deadline_seconds": 300.0})), step=5.0)
    assert ended.phase is Phase.ROLLED_BACK
    assert (ended.failure or "").startswith("error at the deadline: metrics: ")


def test_a_log_that_cannot_be_read_never_promotes(world: World) -> None:
    simulated = traffic(world, 0, Behaviour())
    rollout = world.begin("2", DEFAULT.model_copy(update={"deadline_seconds": 300.0, "replay_requests": 0}))
    world.answers.broken = True
    ended = simulated.drive(rollout, step=5.0)
    assert (ended.failure or "").startswith("error at the deadline: log: ")


def test_too_many_requests_are_load_and_no_failure(world: World) -> None:
    simulated = traffic(world, 0, Behaviour(rejects=0.3))
    ended = simulated.drive(world.begin("2", DEFAULT))
    assert (ended.failure or "").startswith("saturation: ")


def test_the_first_version_needs_no_evidence(world: World) -> None:
    ended = TrafficTwin(world, rate=0.0).drive(world.begin("1", DEFAULT), step=5.0)
    assert ended.phase is Phase.LIVE
