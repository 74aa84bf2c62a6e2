"""What keeps a bento from being overrun: the length of a turn, the bytes in work, large bodies beside the loop."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest

from bento_cases import ROW, ROW_2, Client, Serve, write_house, write_iris
from predictor.artefacts import load_artefacts
from predictor.problems import Problem
from predictor.turns import Turns


def begin(turns: Turns, now: float) -> None:
    """Sixteen requests at once, so that the turn is measured."""
    for _ in range(16):
        turns.admit(now)


def test_a_turn_is_measured_from_every_sixteenth_request_until_it_ends() -> None:
    async def scenario() -> None:
        worked = iter([1.0, 1.1, 2.0, 2.1])
        turns = Turns(0.1, lambda: next(worked))
        begin(turns, 10.0)
        turns.admit(10.11)
        await asyncio.sleep(0)
        begin(turns, 11.0)
        turns.admit(11.09)
        with pytest.raises(Problem) as refused:
            turns.admit(11.11)
        assert (refused.value.status, refused.value.reason) == (429, "overload")
        await asyncio.sleep(0)
        turns.admit(11.2)  # another turn, not measured yet

    asyncio.run(scenario())


def test_what_a_stall_leaves_behind_is_answered_and_a_queue_that_stays_is_not() -> None:
    async def scenario() -> None:
        worked = iter(range(100))
        turns = Turns(0.1, lambda: next(worked))
        refused = []
        for now, late_seconds in ((10, 0.11), (11, 0.05), (12, 0.11), (13, 0.11), (14, 0.11), (15, 0.05), (16, 0.11)):
            begin(turns, now)
            refused.append(turns.late(now + late_seconds))
            await asyncio.sleep(0)
        assert refused == [False, False, False, True, True, False, False]

    asyncio.run(scenario())


def test_a_stall_of_the_machine_is_not_overload() -> None:
    async def scenario() -> None:
        worked = iter([0.0, 0.1, 1.0, 1.01, 1.1])
        turns = Turns(0.1, lambda: next(worked))
        begin(turns, 9.0)
        turns.admit(9.11)
        await asyncio.sleep(0)
        begin(turns, 10.0)
        turns.admit(10.5)  # half a second passed, a hundredth of it spent working
        turns.admit(10.55)
        with pytest.raises(Problem):
            turns.admit(10.65)

    asyncio.run(scenario())


def large(rows: int) -> bytes:
    return json.dumps({"rows": [ROW] * rows}).encode()


def test_bytes_in_work_are_bounded_and_one_body_always_fits(serve: Serve) -> None:
    body = large(1000)

    async def scenario(client: Client) -> None:
        answers = await asyncio.gather(*(client.post("/predict", body) for _ in range(4)))
        statuses = [answer.status for answer in answers]
        assert statuses == [200, 429, 429, 429]
        assert answers[1].headers["retry-after"] == "1"
        assert client.engine.metrics.in_flight_bytes == 0
        assert (await client.post("/predict", body)).status == 200
        assert await client.metric("prediction_errors_total", reason="overload") == 3

    serve(scenario, max_in_flight_bytes=len(body) // 2)


def test_small_requests_are_answered_while_a_batch_is_in_work(serve: Serve) -> None:
    async def scenario(client: Client) -> None:
        order: list[str] = []

        async def ask(name: str, body: bytes) -> None:
            assert (await client.post("/predict", body)).status == 200
            order.append(name)

        await asyncio.gather(ask("batch", large(10_000)), ask("row", json.dumps(ROW).encode()))
        assert order == ["row", "batch"]

    serve(scenario)


def test_batches_of_any_size_give_what_their_rows_give_alone(serve: Serve) -> None:
    """2,500 rows are several chunks of the model, beside the loop; three are neither."""

    async def scenario(client: Client) -> None:
        alone = [(await client.post("/predict", row)).json() for row in (ROW, ROW_2)]
        for count in (1, 3, 2500):
            rows = [(ROW, ROW_2)[index % 2] for index in range(count)]
            answer = (await client.post("/predict", {"rows": rows})).json()
            assert answer["predictions"] == [alone[index % 2]["prediction"] for index in range(count)]
            for index, named in enumerate(answer["probabilities"]):
                assert named == pytest.approx(alone[index % 2]["probabilities"], abs=1e-6)

    serve(scenario)


@pytest.mark.parametrize("write", [write_iris, write_house])
def test_a_single_row_takes_its_own_way_to_the_same_answer(tmp_path, write) -> None:
    artefacts = load_artefacts(write(tmp_path / "artefacts"), 100)
    model = artefacts.model
    assert model._bound is not None
    generator = np.random.default_rng(7)
    for _ in range(200):
        row = tuple(generator.uniform(0, 30, len(artefacts.schema.features)).tolist())
        assert model.infer_one(row) == model.infer([row])


def test_a_single_row_with_a_null_is_a_missing_number(tmp_path) -> None:
    model = load_artefacts(write_house(tmp_path / "artefacts"), 100).model
    assert model._bound is not None
    given = model._bound((1.0, 2, None))
    assert np.isnan(given[0]).all()
    assert model.infer_one((10.0, 3, 4.0)).predictions == [26.0]
