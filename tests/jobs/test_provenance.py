"""What served a model at a time, and what stands behind a request: the model, its data, its bento, its people."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from contracts.world import QUICK, World
from slipway.core.rollout_record import Phase
from slipway.errors import NotFoundError
from slipway.jobs.provenance import behind_request, served_at
from slipway.spec import Step

pytestmark = pytest.mark.services


class Logged:
    """The log of one request, answered by these versions at this moment."""

    def __init__(self, world: World, *versions: str, shadow: Sequence[str] = ()) -> None:
        now = world.clock.now()
        self.rows = [
            {"model": "iris", "version": v, "slot": "blue", "shadow": v in shadow, "at": now, "rows": 1}
            for v in versions
        ]

    def find(self, request_id: str) -> list[dict[str, Any]]:
        return self.rows


def ask(world: World, log: Logged) -> list[dict[str, Any]]:
    parts = world.parts
    return list(behind_request(str(uuid.uuid4()), log, parts.ledger, parts.store)["answers"])


def test_a_request_is_traced_to_version_data_bento_gate_and_person(world: World) -> None:
    world.release("1")
    (answer,) = ask(world, Logged(world, "1"))
    assert answer["dataset_sha256"] == "d" * 64
    assert answer["bento_tag"] == "iris:v1"
    assert answer["bento_digest"] == "digest-1"
    assert answer["code_commit"] == "c0ffee"
    assert answer["gate"] == {"gate": "won"}
    assert answer["rollout"]["person"] == "tester"
    assert answer["rollout"]["reason"] == "release 1"
    assert [event["event"] for event in answer["rollout"]["events"]] == ["started", "traffic", "live"]


def test_a_request_of_a_canary_that_was_aborted_is_traced_as_well(world: World) -> None:
    world.release("1")
    world.begin("2", QUICK.model_copy(update={"steps": (Step(weight=10, bake_seconds=60), Step(weight=100))}))
    world.until(Phase.SHIFTING)
    world.releases.advance("iris")
    log = Logged(world, "2")
    world.releases.abort("iris", actor="ops", reason="looks wrong")
    (answer,) = ask(world, log)
    assert answer["bento_tag"] == "iris:v2"
    assert answer["rollout"]["phase"] == "aborted"
    assert ("abort_asked", "ops") in [(event["event"], event["actor"]) for event in answer["rollout"]["events"]]


def test_the_rollout_behind_a_request_is_the_one_of_its_time(world: World) -> None:
    world.release("1")
    log = Logged(world, "1")
    world.release("2")
    world.releases.rollback("iris", actor="ops", reason="back")
    assert ask(world, log)[0]["rollout"]["kind"] == "release"
    assert ask(world, Logged(world, "1"))[0]["rollout"]["kind"] == "rollback"


def test_the_shadows_answer_comes_after_the_clients(world: World) -> None:
    world.release("1")
    world.release("2")
    found = ask(world, Logged(world, "2", "1", shadow=["2"]))
    assert [(one["version"], one["shadow"]) for one in found] == [("1", False), ("2", True)]


def test_a_request_that_was_never_answered_is_unknown(world: World) -> None:
    with pytest.raises(NotFoundError):
        ask(world, Logged(world))


def test_what_served_at_a_time_names_both_sides_of_a_split(world: World) -> None:
    before = world.clock.now()
    world.release("1")
    first = world.clock.now()
    world.release("2")
    world.releases.set_split("iris", {"champion": 70, "challenger": 30}, actor="ops", reason="compare")
    split = world.clock.now()
    world.clock.sleep(10)
    world.releases.set_split("iris", {"champion": 100}, actor="ops", reason="enough")
    ledger = world.parts.ledger
    with pytest.raises(NotFoundError):
        served_at(ledger, "iris", before)
    assert served_at(ledger, "iris", first)["version"] == "1"
    found = served_at(ledger, "iris", split)
    assert found["version"] == "2"
    assert {one["version"]: one["weight"] for one in found["slots"].values()} == {"1": 30, "2": 70}
    assert found["dataset_sha256"] == "d" * 64
    now = served_at(ledger, "iris", world.clock.now() + timedelta(days=1))
    assert [one["version"] for one in now["slots"].values()] == ["2"]
