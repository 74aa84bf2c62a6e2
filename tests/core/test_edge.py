from __future__ import annotations

import pytest

from slipway.core.edge import Edge, RateLimit, parse_rate_limits
from slipway.errors import SpecError


def test_limits_are_read_from_a_setting() -> None:
    assert parse_rate_limits("") == ()
    assert parse_rate_limits(" predict=500/s,control = 30/m ") == (
        RateLimit("predict", 500, 1),
        RateLimit("control", 30, 60),
    )


@pytest.mark.parametrize(
    "text", ["predict", "predict=0/s", "predict=5/h", "train=5/s", "predict=-1/s", "predict=1/s,predict=2/s"]
)
def test_a_limit_that_says_nothing_clear_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(SpecError, match="predict=500/s"):
        parse_rate_limits(text)


@pytest.mark.parametrize(("limit", "seconds"), [("1/s", 1), ("500/s", 1), ("1/m", 60), ("7/m", 9), ("600/m", 1)])
def test_retry_after_is_when_the_next_one_passes(limit: str, seconds: int) -> None:
    (one,) = parse_rate_limits(f"predict={limit}")
    assert one.retry_after_seconds == seconds


def test_keys_are_read_where_they_are_needed_or_limited() -> None:
    assert not Edge().reads_keys
    assert Edge(need_key=True).reads_keys
    assert Edge(key_limits=parse_rate_limits("predict=1/s")).reads_keys
