"""Traffic as data: weights, differences, splits, and what should run."""

from __future__ import annotations

import doctest
from datetime import UTC, datetime, timedelta

import pytest

from slipway.core import checks, fleet
from slipway.core.fleet import SlotRecord, Traffic, fallback_version, routes, slot_is_wanted
from slipway.core.routes import Backend, GatewayState, Route, differences, other_slot, split_weights
from slipway.errors import ConflictError

NOW = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.mark.parametrize("module", [checks, fleet], ids=lambda module: module.__name__)
def test_examples_in_the_docs_are_true(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted > 0
    assert result.failed == 0


def test_the_fleet_keeps_both_slots_of_every_model() -> None:
    slots = [SlotRecord("iris", "green", 2, "1"), SlotRecord("iris", "blue", 1), SlotRecord("a", "blue", 3, "1")]
    traffic = [Traffic("iris", green=100, live_slot="green", live_version="1"), Traffic("a")]
    assert routes(slots, traffic) == [
        Route("a", (Backend("blue", 3, 0),)),
        Route("iris", (Backend("blue", 1, 0), Backend("green", 2, 100))),
    ]


def test_differences_name_what_is_wanted_and_what_is() -> None:
    fleet = [Route("iris", (Backend("blue", 1, 100), Backend("green", 2, 0))), Route("new", ())]
    state = GatewayState("v", {"iris": {"green": 100}, "gone": {"blue": 100}})
    assert differences(fleet, state) == {"iris": ({"blue": 100}, {"green": 100}), "gone": ({}, {"blue": 100})}
    assert differences(fleet, GatewayState("v", {"iris": {"blue": 100}})) == {}


def test_splits_are_given_by_role() -> None:
    assert split_weights({"champion": 70, "challenger": 30}, "green") == {"green": 70, "blue": 30}
    assert split_weights({"champion": 100}, "blue") == {"blue": 100, "green": 0}


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ({"champion": 70}, "add up to 100, these give 70"),
        ({"champion": 70, "blue": 30}, "unknown side 'blue'"),
        ({"champion": 101, "challenger": -1}, "whole per cent"),
        ({"champion": True, "challenger": 99}, "whole per cent"),
        ({"champion": 50.0, "challenger": 50.0}, "whole per cent"),
    ],
)
def test_what_is_no_split_is_refused(split: dict[str, int], words: str) -> None:
    with pytest.raises(ConflictError, match=words):
        split_weights(split, "blue")


def test_the_other_slot() -> None:
    assert [other_slot(slot) for slot in (None, "green", "blue")] == ["blue", "blue", "green"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("slot", "active", "wanted"),
    [
        (SlotRecord("iris", "green", 1, "2"), 0, True),
        (SlotRecord("iris", "blue", 1), 0, False),
        (SlotRecord("iris", "blue", 1, "1"), 0, False),
        (SlotRecord("iris", "blue", 1, "1", keep_warm_until=NOW + timedelta(seconds=1)), 0, True),
        (SlotRecord("iris", "blue", 1, "1", keep_warm_until=NOW, drain_until=NOW + timedelta(seconds=9)), 2, True),
        (SlotRecord("iris", "blue", 1, "1", keep_warm_until=NOW, drain_until=NOW + timedelta(seconds=9)), 0, False),
        (SlotRecord("iris", "blue", 1, "1", keep_warm_until=NOW, drain_until=NOW), 2, False),
    ],
)
def test_which_slots_should_be_up(slot: SlotRecord, active: int, wanted: bool) -> None:
    traffic = Traffic("iris", green=100, live_slot="green", live_version="2")
    assert slot_is_wanted(slot, traffic, NOW, active_requests=active) is wanted


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([], None),
        (["1r"], None),
        (["1r", "2r"], "1"),
        (["1r", "2r", "1b"], None),
        (["1r", "2r", "1b", "3r"], "1"),
        (["1r", "2r", "3r", "1b"], None),
        (["1r", "2r", "3r", "2b", "2r"], "1"),
        (["1r", "2r", "1b", "2b"], "1"),
    ],
)
def test_where_a_rollback_goes_by_default(history: list[str], expected: str | None) -> None:
    kinds = {"r": "release", "b": "rollback"}
    assert fallback_version([(entry[0], kinds[entry[1]]) for entry in history]) == expected
