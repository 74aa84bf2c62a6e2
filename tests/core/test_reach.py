"""What nothing reaches goes; whatever anything reaches stays."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from slipway.core.fleet import fallback_version
from slipway.core.reach import ModelFacts, reachable

VERSION = st.integers(1, 12).map(str)
VERSIONS = st.lists(VERSION, max_size=5)
HISTORY = st.lists(st.tuples(VERSION, st.sampled_from(["release", "rollback"])), max_size=15)


def releases(*versions: str) -> list[tuple[str, str]]:
    return [(version, "release") for version in versions]


def test_the_last_three_former_versions_stay_whatever_the_policy_says() -> None:
    facts = ModelFacts(live="9", went_live=releases(*"123456789"), started=set("123456789"), keep_versions=1)
    assert set(reachable(facts)) == {"9", "8", "7", "6"}


def test_a_policy_may_keep_more() -> None:
    facts = ModelFacts(live="9", went_live=releases(*"123456789"), started=set("123456789"), keep_versions=5)
    assert set(reachable(facts)) == set("456789")


def test_a_version_that_failed_is_not_kept_for_a_rollback() -> None:
    facts = ModelFacts(live="3", went_live=releases("1", "3"), started={"1", "2", "3"}, registered=["1", "2", "3"])
    assert set(reachable(facts)) == {"1", "3"}


def test_versions_that_wait_for_their_release_stay() -> None:
    facts = ModelFacts(live="1", went_live=releases("1"), started={"1"}, registered=["1", "2", "3"])
    assert reachable(facts)["3"] == reachable(facts)["2"] == "waits for its release"


def test_after_many_rollbacks_the_next_ones_target_stays() -> None:
    went = [*releases(*"12345"), *((version, "rollback") for version in "432")]
    assert fallback_version(went) == "1"
    assert "1" in reachable(ModelFacts(live="2", went_live=went, started=set("12345")))


@given(VERSIONS, VERSIONS, VERSIONS, HISTORY, VERSIONS, VERSIONS)
def test_nothing_in_use_ever_goes(
    in_slots: list[str],
    in_rollouts: list[str],
    aliased: list[str],
    went_live: list[tuple[str, str]],
    registered: list[str],
    young: list[str],
) -> None:
    live = went_live[-1][0] if went_live else None
    started = {version for version, _ in went_live}
    facts = ModelFacts(live, in_slots, in_rollouts, aliased, went_live, started, registered, young, keep_versions=2)
    kept = set(reachable(facts))
    assert kept >= {*in_slots, *in_rollouts, *aliased, *young, *({live} if live else ())}
    former = [version for version in dict.fromkeys(v for v, _ in reversed(went_live)) if version != live]
    assert kept >= set(former[:3])
    assert (fallback_version(went_live) or live) in {*kept, None}
