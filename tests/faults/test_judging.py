"""The verdicts on a round find a broken world: dead loads, failures, wrong versions, a ledger of another story."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from contracts.world import World
from faults.judging import (
    LONGEST_OUTAGE_SECONDS,
    UNNOTICED_SECONDS,
    Before,
    Killed,
    Round,
    Story,
    broken,
    judge_clients,
    strays,
)
from loop.open_load import Reply
from slipway.adapters.envoy_replies import BROKEN_OFF
from slipway.adapters.postgres_ledger import append
from slipway.core.rollout_record import Phase
from slipway.core.routes import SlotName
from slipway.ports import LedgerEntry

START = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ZERO = START.timestamp()
RATE = 10.0


def reply(at: float, status: int = 200, version: str = "1", seconds: float = 0.01) -> Reply:
    """Sent `at` seconds after the round's beginning; version 1 lives in blue and 2 in green."""
    slot = {"1": "blue", "2": "green"}.get(version, "blue") if status == 200 else ""
    return Reply(ZERO + at, ZERO + at + seconds, status, version if status == 200 else "", slot)


def broken_off(at: float, seconds: float = 0.01) -> Reply:
    """A request that the gateway had given to a slot that ended."""
    return replace(reply(at, 503, seconds=seconds), error=BROKEN_OFF)


def steady(start: float, end: float, version: str = "1") -> list[Reply]:
    count = round((end - start) * RATE)
    return [reply(start + number / RATE, version=version) for number in range(count)]


def row(at: float, event: str, version: str, slot: SlotName, weights: dict[str, int] | None = None) -> LedgerEntry:
    detail = {"weights": weights} if weights else {}
    return LedgerEntry(1, START + timedelta(seconds=at), "iris", event, version, slot, "x", "y", "r", detail)


BEFORE = [row(-100, "traffic", "1", "blue", {"blue": 100}), row(-99, "live", "1", "blue")]
BOTH = [*BEFORE, row(-5, "traffic", "2", "green", {"blue": 75, "green": 25})]


def judged(
    replies: list[Reply],
    rows: list[LedgerEntry],
    killed: Killed | None = None,
    *,
    over: float = 20.0,
    live: str = "1",
    withheld: float = 0.0,
) -> Round:
    outcome = Round("a cell", withheld_share=withheld)
    shaken = (ZERO + 9, ZERO + 15) if killed else None
    story = Story(ZERO, killed, shaken, settled=ZERO + over - 1, over=ZERO + over, live=live)
    judge_clients(outcome, story, replies, rows, RATE)
    return outcome


def killed(part: str, *, carried: bool = True, gone: float = 10.0) -> Killed:
    return Killed(part, ZERO + 10, ZERO + gone, carried)


def test_a_round_in_which_all_is_well_has_no_problem() -> None:
    assert judged(steady(0, 20), BEFORE).problems == []


def test_a_dead_load_is_a_problem() -> None:
    assert judged([], BEFORE).problems == ["only 0 of 200 requests were made", "nobody answered after all had settled"]
    thin = judged([*steady(0, 4), *steady(19, 20)], BEFORE)
    assert thin.problems == ["only 50 of 200 requests were made"]


@pytest.mark.parametrize(
    ("part", "carried", "failed_at", "excused"),
    [
        ("envoy", True, 10.5, 1),
        ("envoy", True, 9.5, 0),  # before the kill
        ("envoy", True, 12.5, 0),  # after it answered again
        ("postgres", False, 10.5, 0),
        ("slot-iris-blue", True, 10.2, 0),  # it never had the request: to be repeated until it is back
    ],
)
def test_a_failure_is_excused_only_while_nobody_could_answer(
    part: str, carried: bool, failed_at: float, excused: int
) -> None:
    replies = [*steady(0, 10), reply(failed_at, 503), *steady(12, 20)]
    found = judged(replies, BEFORE, killed(part, carried=carried))
    assert (found.excused, len(found.problems)) == (excused, 1 - excused), found.problems


@pytest.mark.parametrize(
    ("carried", "failed_at", "seconds", "excused"),
    [
        (True, 9.9, 0.3, 1),  # in flight at the kill
        (True, 9.9, 0.01, 0),  # before the kill
        (True, 10.4, 0.4, 1),  # the gateway stood still, and gave it to a process that was no more
        (True, 10.4, UNNOTICED_SECONDS, 0),  # by then it was another process that broke off
        (False, 10.1, 0.01, 0),  # without traffic: the other one had to answer
    ],
)
def test_of_a_killed_slot_only_what_the_gateway_had_given_to_it_is_excused(
    carried: bool, failed_at: float, seconds: float, excused: int
) -> None:
    part = "slot-iris-blue" if carried else "slot-iris-green"
    found = judged([*steady(0, 20), broken_off(failed_at, seconds)], BEFORE, killed(part, carried=carried))
    assert (found.excused, len(found.problems)) == (excused, 1 - excused), found.problems


def test_a_gateway_that_stood_still_does_not_excuse_other_failures() -> None:
    replies = [*steady(0, 20), broken_off(10.4, 0.4), reply(10.3, 503, seconds=0.4)]
    found = judged(replies, BEFORE, killed("slot-iris-blue"))
    assert (found.excused, len(found.problems)) == (1, 1), found.problems


def test_a_dead_slot_excuses_no_more_failures_than_its_share_of_the_traffic() -> None:
    for failures, problems in ((6, 0), (40, 1)):
        lost = [broken_off(10.1 + number / 1000) for number in range(failures)]
        others = [reply(10.05 + number / 1000) for number in range(40 - failures)]
        found = judged([*steady(0, 20), *lost, *others], BOTH, killed("slot-iris-green"))
        assert (found.excused, len(found.problems)) == (failures, problems), found.problems


def test_a_slot_that_was_killed_between_a_shift_and_its_decision_counts_as_having_had_the_traffic() -> None:
    replies = [*steady(0, 20), broken_off(10.2)]
    for decided_at, excused in ((9.9, 1), (10.2, 0)):
        rows = [*BEFORE, row(decided_at, "traffic", "2", "green", {"blue": 75, "green": 25})]
        found = judged(replies, rows, killed("slot-iris-green", carried=False))
        assert (found.excused, len(found.problems)) == (excused, 1 - excused), found.problems


def test_no_outage_lasts_for_long() -> None:
    late = 10 + LONGEST_OUTAGE_SECONDS + 0.1
    found = judged([*steady(0, 10), reply(late, 503), *steady(16, 20)], BEFORE, killed("envoy"))
    assert (found.excused, len(found.problems)) == (0, 1)


SHIFTED = [*BEFORE, row(10, "traffic", "2", "green", {"green": 100}), row(12, "live", "2", "green")]


def test_who_answers_must_have_traffic_by_the_ledger() -> None:
    assert judged([*steady(0, 10.5), *steady(10.5, 20, "2")], SHIFTED, live="2").problems == []
    early = judged([*steady(0, 8.5), *steady(8.5, 20, "2")], SHIFTED, live="2")
    assert early.problems == [
        "version 2 answered 5 requests while the ledger gave it no traffic, from 8.50 s on",
    ]
    late = judged([*steady(0, 11.5), *steady(11.5, 20, "2")], SHIFTED, live="2")
    assert late.problems == ["version 1 answered 5 requests while the ledger gave it no traffic, from 11.00 s on"]
    third = judged([*steady(0, 10), reply(5, version="3"), *steady(10, 20, "2")], SHIFTED, live="2")
    assert third.problems == ["version 3 answered 1 requests while the ledger gave it no traffic, from 5.00 s on"]


def test_a_shift_may_come_later_by_as_long_as_nobody_answered_anything() -> None:
    stood = [*steady(0, 10.2), *steady(10.8, 11.5), *steady(11.5, 20, "2")]
    assert strays(stood, SHIFTED) == []
    refused = [*stood, *(reply(10.2 + number / 10, status=503) for number in range(6))]
    assert strays(refused, SHIFTED) != []  # the gateway was there and did nothing about the shift
    long_after = [*steady(0, 10.2), *steady(10.8, 12), *steady(12, 20, "2")]
    assert strays(long_after, SHIFTED) != []


def test_while_a_driver_is_replaced_its_shift_may_come_late_but_not_early() -> None:
    replies, shaken = steady(8, 13), (ZERO + 10, ZERO + 15)
    assert strays(replies, SHIFTED, shaken) == []
    assert strays([*replies, reply(15.5)], SHIFTED, shaken) != []
    assert strays(steady(8, 9, "2"), SHIFTED, shaken) != []


def test_after_all_has_settled_only_the_live_version_answers() -> None:
    found = judged([*steady(0, 20), reply(19.5, version="2")], BOTH)
    assert found.problems == ["version 1 is live, and ['2'] answered after all had settled"]


# --- what the tables and the ledger were left with -----------------------------------------------------------


@pytest.mark.services
class TestBroken:
    """`broken` on a world that the test spoils."""

    @pytest.fixture
    def before(self, world: World) -> Before:
        world.release("1")
        world.release("2")
        return Before.look(world.releases, world.clock.now())

    def test_a_good_round(self, world: World, before: Before) -> None:
        assert before == Before("2", 2, 2)
        assert broken(world.releases, before, world.release("3")) == []

    def test_a_round_without_a_rollout(self, world: World, before: Before) -> None:
        assert broken(world.releases, before, None) == []
        world.release("3")
        assert broken(world.releases, before, None) == [
            "1 versions went live, 0 had to",
            "1 rollouts began, 0 had to",
            "version 3 is live after a round that had to end with 2",
        ]

    def test_a_rollout_that_was_rolled_back(self, world: World, before: Before) -> None:
        world.probe.wrong.add("3")
        ended = world.release("3")
        assert ended.phase is Phase.ROLLED_BACK
        assert broken(world.releases, before, ended) == []
        assert broken(world.releases, before, replace(ended, phase=Phase.LIVE))[:1] == [
            "0 versions went live, 1 had to"
        ]

    def test_two_promotions_in_one_round(self, world: World, before: Before) -> None:
        ended = world.release("3")
        with world.database.begin() as connection:
            append(
                connection, at=world.clock.now(), model="iris", event="live", actor="x", reason="y", version="3",
                slot=ended.slot,
            )  # fmt: skip
        assert broken(world.releases, before, ended) == ["2 versions went live, 1 had to"]

    def test_a_second_rollout_in_one_round(self, world: World, before: Before) -> None:
        ended = world.release("3")
        world.probe.wrong.add("4")
        second = world.release("4")
        assert broken(world.releases, before, ended) == [
            "2 rollouts began, 1 had to",
            f"the newest rollout is {second.id} instead of {ended.id}",
        ]

    def test_a_ledger_without_the_end(self, world: World, before: Before) -> None:
        world.begin("3")
        unfinished = world.until(Phase.VERIFYING)
        problems = broken(world.releases, before, replace(unfinished, phase=Phase.ABORTED))
        assert problems == ["the ledger's rows of the rollout are ['started']"]


@pytest.mark.parametrize(
    ("withheld", "last", "problems"), [(0.0, 0.8, 0), (0.0, 1.2, 1), (0.5, 1.8, 0), (0.5, 2.2, 1), (0.99, 4.4, 1)]
)
def test_a_shift_may_take_longer_when_the_host_withheld_processors(withheld: float, last: float, problems: int) -> None:
    rows = [*BEFORE, row(5, "traffic", "2", "green", {"green": 100}), row(6, "live", "2", "green")]
    replies = [*steady(0, 5 + last), *steady(5 + last, 20, version="2")]
    assert len(judged(replies, rows, live="2", withheld=withheld).problems) == problems


@pytest.mark.parametrize(("withheld", "excused"), [(0.0, 0), (0.5, 1)])
def test_so_may_the_gateway_s_return(withheld: float, excused: int) -> None:
    late = 10 + LONGEST_OUTAGE_SECONDS * 1.5
    replies = [*steady(0, 10), reply(late, 503), *steady(late + 1, 40)]
    assert judged(replies, BEFORE, killed("envoy"), over=40, withheld=withheld).excused == excused
