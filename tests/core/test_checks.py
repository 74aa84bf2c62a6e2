"""Each check alone: what passes, what fails, and what is not enough to tell."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from slipway.core.checks import (
    Pair,
    SideLog,
    disagreement,
    divergence,
    error_rate,
    latency,
    quality,
    refusals,
    saturation,
    slower,
)
from slipway.core.slot_metrics import SlotMetrics
from slipway.core.verdict import Check, Verdict
from slipway.policy import ChecksPolicy, RolloutPolicy, canary, linear

POLICY = ChecksPolicy()
BOUNDS = (0.005, 0.01, 0.025, 0.05)


def timed(*latency_counts: int, rejected: int = 0) -> SlotMetrics:
    return SlotMetrics(requests=sum(latency_counts), rejected=rejected, bounds=BOUNDS, latency=latency_counts)


def p50(new: SlotMetrics, old: SlotMetrics) -> Verdict:
    return latency("latency_p50", new, old, share=0.5, ratio=1.5, policy=POLICY, least=100).verdict


def test_latency_is_judged_by_what_the_old_slot_takes_at_the_same_time() -> None:
    quick, slow = timed(0, 500, 0, 0, 0), timed(0, 0, 0, 200, 0)
    assert p50(timed(0, 200, 0, 0, 0), quick) is Verdict.PASS
    assert p50(slow, quick) is Verdict.FAIL
    assert p50(slow, replace(slow, latency=(0, 0, 0, 500, 0))) is Verdict.PASS
    assert p50(timed(0, 50, 0, 0, 0), quick) is Verdict.INCONCLUSIVE
    assert p50(slow, timed(0, 0, 0, 0, 0)) is Verdict.INCONCLUSIVE


def p99(new: SlotMetrics, old: SlotMetrics) -> Check:
    return latency("latency_p99", new, old, share=0.99, ratio=2.0, policy=POLICY, least=100)


def test_answers_slower_than_the_last_bucket_are_judged_by_their_share_and_leave_finite_evidence() -> None:
    quick, slow = timed(0, 500, 0, 0, 0), timed(0, 400, 0, 0, 100)
    near_the_end = timed(0, 0, 0, 500, 0)  # twice its 99th percentile is beyond the last bound
    rarely_slow = timed(0, 485, 0, 0, 15)
    found = {
        "slow beside quick": p99(slow, quick),
        "slow beside near": p99(slow, near_the_end),
        "slow beside its like": p99(slow, slow),
        "slow beside rarely slow": p99(slow, rarely_slow),
        "rarely slow beside slow": p99(rarely_slow, slow),
        "quick beside slow": p99(quick, slow),
        "all of it beside all of it": p99(timed(0, 0, 0, 0, 200), timed(0, 0, 0, 0, 900)),
    }
    assert {name for name, check in found.items() if check.verdict is Verdict.FAIL} == {
        "slow beside quick", "slow beside near", "slow beside rarely slow"
    }  # fmt: skip
    assert {check.verdict for check in found.values()} == {Verdict.FAIL, Verdict.PASS}
    for check in found.values():
        json.dumps(check.as_dict(), allow_nan=False)
        assert "inf" not in check.reason
    both = found["slow beside its like"]
    assert both.reason == "more than 50 ms beside more than 50 ms, 100 of 500 above 50 ms"
    assert (both.evidence["new_ms"], both.evidence["old_ms"], both.evidence["bound_ms"]) == (None, None, 50.0)


def test_a_bucket_never_fails_a_version_by_its_width_and_fast_is_fast_enough() -> None:
    assert p50(timed(200, 0, 0, 0, 0), timed(500, 0, 0, 0, 0)) is Verdict.PASS
    slightly = latency(
        "p99", timed(0, 300, 0, 0, 0), timed(500, 0, 0, 0, 0), share=0.99, ratio=1.5, policy=POLICY, least=9
    )
    assert slightly.verdict is Verdict.PASS


def test_what_was_counted_before_or_by_another_process_is_left_out() -> None:
    before, now = timed(10, 0, 0, 0, 0), timed(15, 3, 0, 0, 0)
    assert now.since(before).latency == (5, 3, 0, 0, 0)
    assert replace(now, started_at=2.0).since(before).requests == 18
    assert SlotMetrics().quantile_seconds(0.5) is None
    assert timed(0, 0, 0, 0, 5).quantile_seconds(0.5) == float("inf")
    assert timed(0, 100, 0, 0, 0).quantile_seconds(0.5) == pytest.approx(0.0075)


def test_too_many_requests_count_beside_the_old_slots_share() -> None:
    loaded = timed(0, 500, 0, 0, 0, rejected=300)
    assert saturation(loaded, timed(500, 0, 0, 0, 0), limit=0.05, alpha=0.01, least=100).verdict is Verdict.FAIL
    assert saturation(loaded, loaded, limit=0.05, alpha=0.01, least=100).verdict is Verdict.PASS
    assert saturation(timed(3), loaded, limit=0.05, alpha=0.01, least=100).verdict is Verdict.INCONCLUSIVE


def test_errors_pass_only_when_no_more_than_the_limit_is_possible() -> None:
    assert error_rate(500, 0, limit=0.005, min_requests=100).verdict is Verdict.INCONCLUSIVE
    assert error_rate(1000, 0, limit=0.005, min_requests=100).verdict is Verdict.PASS
    assert error_rate(1000, 0, limit=0.005, min_requests=0).verdict is Verdict.PASS
    assert error_rate(300, 20, limit=0.005, min_requests=100, old=(1000, 40)).verdict is Verdict.INCONCLUSIVE
    assert error_rate(300, 90, limit=0.005, min_requests=100, old=(1000, 40)).verdict is Verdict.FAIL


def refused(new: tuple[int, int], old: tuple[int, int]) -> Verdict:
    return refusals(new, old, limit=0.005, alpha=0.01, least=100).verdict


def test_refused_requests_are_compared_between_the_slots() -> None:
    assert refused((1000, 0), (19_000, 0)) is Verdict.PASS
    assert refused((1000, 105), (19_000, 1900)) is Verdict.PASS
    assert refused((1000, 1000), (19_000, 19_000)) is Verdict.PASS
    assert refused((200, 10), (4000, 0)) is Verdict.FAIL
    assert refused((1000, 118), (19_000, 1900)) is Verdict.INCONCLUSIVE
    assert refused((99, 50), (19_000, 0)) is Verdict.INCONCLUSIVE
    assert refused((1000, 0), (0, 0)) is Verdict.INCONCLUSIVE


def test_equal_shares_of_refused_requests_fail_at_no_look() -> None:
    random = np.random.default_rng(7)
    failures = 0
    for _ in range(200):
        new, old = np.cumsum(random.binomial(15, 0.1, 100)), np.cumsum(random.binomial(285, 0.1, 100))
        looks = ((15 * k, int(new[k - 1]), 285 * k, int(old[k - 1])) for k in range(7, 101, 7))
        failures += any(refused((n, x), (m, y)) is Verdict.FAIL for n, x, m, y in looks)
    assert failures <= 2


@pytest.mark.parametrize("values", [("a", "b"), (1.0, 5.0)])
def test_divergence_needs_rows_and_certainty(values: tuple[str | float, str | float]) -> None:
    first, second = values
    old = SideLog([first] * 1500 + [second] * 500)
    assert divergence(SideLog([first] * 150 + [second] * 50), old, POLICY, 1).verdict is Verdict.PASS
    assert divergence(SideLog([first] * 40 + [second] * 160), old, POLICY, 1).verdict is Verdict.FAIL
    assert divergence(SideLog([second] * 20), old, POLICY, 1).verdict is Verdict.INCONCLUSIVE
    assert divergence(SideLog([first] * 60 + [second] * 60), old, POLICY, 400).verdict is Verdict.INCONCLUSIVE


def labelled(right: int, wrong: int) -> SideLog:
    return SideLog((), [("a", "a")] * right + [("a", "b")] * wrong)


def test_quality_speaks_when_enough_labels_came() -> None:
    old = labelled(450, 50)
    worse = quality(labelled(300, 200), old, POLICY)
    assert worse is not None
    assert worse.verdict is Verdict.FAIL
    assert quality(labelled(10, 0), old, POLICY) is None
    waiting = quality(labelled(10, 0), old, POLICY.model_copy(update={"min_labels": 100}))
    assert waiting is not None
    assert waiting.verdict is Verdict.INCONCLUSIVE
    better = quality(labelled(2000, 20), labelled(1800, 200), POLICY)
    assert better is not None
    assert better.evidence["surely_not_worse"] is True
    assert quality(labelled(300, 200), old, ChecksPolicy.off()) is None


def test_quality_of_numbers_is_relative_to_the_old_error() -> None:
    old = SideLog((), [(10.0, 11.0), (10.0, 9.0)] * 200)
    worse = quality(SideLog((), [(10.0, 13.0), (10.0, 7.0)] * 200), old, POLICY)
    assert worse is not None
    assert worse.verdict is Verdict.FAIL
    assert worse.evidence["worse_by"] == pytest.approx(2.0)


def test_pairs_that_differ() -> None:
    same, other = Pair("a", "a"), Pair("a", "b")
    assert disagreement("shadow", [same] * 200, POLICY, 100).verdict is Verdict.PASS
    assert disagreement("shadow", [same] * 100 + [other] * 100, POLICY, 100).verdict is Verdict.FAIL
    assert disagreement("shadow", [same] * 10, POLICY, 100).verdict is Verdict.INCONCLUSIVE
    assert disagreement("shadow", [], POLICY, 0).verdict is Verdict.INCONCLUSIVE
    numbers = [Pair(float(n), n + 0.01) for n in range(100)]
    assert disagreement("replay", numbers, POLICY, 1).evidence["different"] == 0
    assert disagreement("replay", [Pair(p.old, 500.0) for p in numbers], POLICY, 1).verdict is Verdict.FAIL


def test_replayed_times_are_compared_by_their_medians() -> None:
    assert slower("latency", [50.0] * 30, [2.0] * 30, 1.5, POLICY).verdict is Verdict.FAIL
    assert slower("latency", [4.0] * 30, [1.0] * 30, 1.5, POLICY).verdict is Verdict.PASS


def test_presets_of_steps_and_the_default_policy() -> None:
    assert [step.weight for step in RolloutPolicy().steps] == [5, 25, 50, 100]
    assert [step.weight for step in canary(10)] == [10, 100]
    assert [step.weight for step in linear(25, bake_seconds=7)] == [25, 50, 75, 100]
    assert linear(25, bake_seconds=7)[0].bake_seconds == 7
    assert (RolloutPolicy().may_ask, RolloutPolicy(approval="before_promotion").may_ask) == (False, True)
    undone = RolloutPolicy(approval="before_promotion", shadow_percent=10).without_evidence()
    assert (undone.may_ask, undone.shadow_percent, undone.replay_requests, undone.min_requests) == (False, 0, 0, 0)
    with pytest.raises(ValueError, match="rise strictly"):
        RolloutPolicy(steps=canary(50, 25))
