from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from slipway.core.resample import block_length, informative_blocks, lower_level, resamples


def autocorrelated(rows: int, memory: float, seed: int = 0) -> np.ndarray:
    return np.asarray(lfilter([1.0], [1.0, -memory], np.random.default_rng(seed).normal(size=rows)))


@pytest.mark.parametrize("block", [1, 3, 7])
def test_each_resample_has_as_many_rows_as_whole_blocks_hold_and_draws_rows_alike(block: int) -> None:
    counts = np.concatenate([*resamples(rows=20, draws=4000, block=block, seed=1)])
    assert counts.shape == (4000, 20)
    assert (counts >= 0).all()
    assert set(counts.sum(axis=1)) == {float(block * -(-20 // block))}
    assert counts.mean(axis=0) == pytest.approx(np.full(20, counts.mean()), rel=0.1)


def test_neighbours_come_together_in_blocks_across_the_end_of_the_rows() -> None:
    counts = next(resamples(rows=12, draws=500, block=12, seed=2))
    assert (counts == 1).all()  # one block that goes once around
    pair = next(resamples(rows=12, draws=2000, block=2, seed=2))
    assert np.corrcoef(pair[:, 0], pair[:, 11])[0, 1] > 0.3
    assert abs(np.corrcoef(pair[:, 0], pair[:, 6])[0, 1]) < 0.25


def test_no_rows_give_no_resamples() -> None:
    assert [*resamples(rows=0, draws=10)] == []


def test_blocks_grow_with_what_neighbours_share() -> None:
    lengths = [np.median([block_length(autocorrelated(2000, memory, seed)) for seed in range(5)]) for memory in
               (0.0, 0.5, 0.9)]  # fmt: skip
    assert lengths[0] == 13  # the cube root
    assert lengths[0] <= lengths[1] < lengths[2] <= 3 * np.sqrt(2000) + 1


@pytest.mark.parametrize("series", [np.zeros(0), np.zeros(50), np.ones(5), np.arange(300.0)])
def test_a_series_without_shape_still_has_a_block_length(series: np.ndarray) -> None:
    assert 1 <= block_length(series) <= max(1, len(series))


def test_only_blocks_with_a_difference_inform() -> None:
    series = np.zeros(100)
    series[[3, 4, 57]] = 1.0
    assert informative_blocks(series, 1) == 3
    assert informative_blocks(series, 10) == 2


def test_little_information_moves_the_bound_out() -> None:
    levels = [lower_level(0.95, informative, 2000) for informative in (0, 1, 5, 20, 200, 100_000)]
    assert levels == sorted(levels)
    assert levels[:2] == [0.0, 0.0]
    assert 0.038 < levels[-1] < 0.05
