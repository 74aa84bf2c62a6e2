"""Error rates that hold however often one looks, asked of simulated samples with fixed seeds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.core.sequential import (
    ks_distance,
    share_above,
    share_upper_bound,
    spend,
    total_variation,
    worsening,
)

ALPHA = 0.05
RUNS = 200


@pytest.mark.parametrize("limit", [0.01, 0.1, 0.5])
def test_a_share_at_its_limit_is_rarely_rejected_at_any_look(limit: float) -> None:
    random = np.random.default_rng(1)
    hits = (random.random((RUNS, 1000)) < limit).cumsum(axis=1)
    wrong = sum(any(share_above(int(run[n - 1]), n, limit) >= 1 / ALPHA for n in range(5, 1001, 5)) for run in hits)
    assert wrong / RUNS <= ALPHA


def test_a_share_above_its_limit_is_found() -> None:
    assert share_above(30, 100, 0.1) > 1000
    assert share_above(0, 0, 0.1) == 1.0
    assert share_above(1, 1, 0.0) == float("inf")


@given(st.integers(0, 500), st.integers(0, 500), st.floats(0.0, 1.0))
def test_the_evidence_against_a_share_is_never_negative_and_grows_with_hits(
    hits: int, misses: int, limit: float
) -> None:
    trials = hits + misses
    assert share_above(hits, trials, limit) >= 0.0
    if 0 < limit < 1 and hits > limit * trials:
        assert share_above(hits + 1, trials + 1, limit) >= share_above(hits, trials, limit) * 0.999


def test_bounds_of_a_share() -> None:
    assert share_upper_bound(0, 0) == share_upper_bound(5, 5) == 1.0
    assert share_upper_bound(0, 300, 0.95) == pytest.approx(1 - 0.05 ** (1 / 300))


def test_all_looks_together_spend_no_more_than_alpha() -> None:
    assert sum(spend(ALPHA, look) for look in range(1, 100_000)) <= ALPHA


def test_equal_samples_are_rarely_surely_apart_at_any_look() -> None:
    random = np.random.default_rng(2)
    wrong = 0
    for _ in range(RUNS):
        new, old = random.normal(size=1000), random.normal(size=2000)
        kinds = (new > 0).tolist(), (old > 0).tolist()
        looks = [(n, spend(ALPHA, k)) for k, n in enumerate(range(50, 1001, 50), 1)]
        wrong += any(
            ks_distance(new[:n], old[: 2 * n], a).lower > 0
            or total_variation(kinds[0][:n], kinds[1][: 2 * n], a).lower > 0
            for n, a in looks
        )
    assert wrong / RUNS <= 2 * ALPHA


def test_distances_are_those_of_the_definitions() -> None:
    assert total_variation(["a"] * 3 + ["b"], ["a", "b"] * 2, ALPHA).estimate == pytest.approx(0.25)
    assert ks_distance([1, 2, 3, 4], [3, 4, 5, 6], ALPHA).estimate == pytest.approx(0.5)
    gap = total_variation(["a"] * 500, ["b"] * 500, ALPHA)
    assert gap.estimate == 1.0
    assert gap.lower > 0.8


@pytest.mark.parametrize("paired", [False, True])
def test_equal_losses_are_rarely_surely_worse_at_any_look(paired: bool) -> None:
    random = np.random.default_rng(3)
    wrong = 0
    for _ in range(RUNS):
        new, old = (random.random(1500) < 0.2).astype(float), (random.random(1500) < 0.2).astype(float)
        for n in range(50, 1501, 50):
            gap = (
                worsening(new[:n] - old[:n], None, ALPHA, 0.05) if paired else worsening(new[:n], old[:n], ALPHA, 0.05)
            )
            if gap.lower > 0:
                wrong += 1
                break
    assert wrong / RUNS <= ALPHA


def test_worse_losses_are_found_and_a_few_equal_ones_prove_nothing() -> None:
    random = np.random.default_rng(4)
    new, old = (random.random(1000) < 0.4).astype(float), (random.random(1000) < 0.1).astype(float)
    assert worsening(new, old, 0.01, 0.05).lower > 0.1
    assert worsening([0.0] * 5, [0.0] * 5, 0.01, 0.05).upper > 0.05
