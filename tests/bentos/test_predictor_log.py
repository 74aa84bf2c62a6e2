"""Every answered row is in the spool before its answer leaves."""

from __future__ import annotations

import asyncio
import errno
import os
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from bento_cases import ROW, ROW_2, Client, Serve, read_frames, segments, softmax, write_house
from predictor import spool as spool_module

REQUEST_ID = "0198c6b4-31b6-7be2-9f0a-6a1b2c3d4e5f"


async def until(condition: Any, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.01)


def test_a_request_is_one_record_with_all_its_rows(serve: Serve, tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        before = time.time_ns() // 1000
        await client.post("/predict", {"rows": [ROW, ROW_2]}, x_request_id=REQUEST_ID)
        await client.post("/invocations", {"instances": [ROW]}, x_slipway_shadow="1")
        [path] = segments(tmp_path / "spool", "open")
        header, first, second = read_frames(path)
        assert header["features"] == list(ROW)
        assert (header["format"], header["kind"], header["model"]) == (1, "predictions", "iris")
        assert (header["version"], header["slot"], header["bento_tag"]) == ("3", "blue", "iris:v3")
        request_id, ts_us, latency_us, shadow, rows, predictions, probabilities = first
        assert request_id == uuid.UUID(REQUEST_ID).bytes
        assert before <= ts_us <= time.time_ns() // 1000
        assert 0 < latency_us < 5_000_000
        assert shadow is False
        assert rows == [list(ROW.values()), list(ROW_2.values())]
        assert predictions == ["setosa", "virginica"]
        assert probabilities == [pytest.approx(row, abs=1e-6) for row in softmax([ROW, ROW_2]).tolist()]
        assert (second[3], len(second[4])) == (True, 1)

    serve(scenario)


def test_counters_leave_shadow_requests_out_of_the_traffic(serve: Serve) -> None:
    async def scenario(client: Client) -> None:
        await client.post("/predict", {"rows": [ROW, ROW_2]})
        await client.post("/predict", ROW, x_slipway_shadow="1")
        await client.post("/predict", b"{", x_slipway_shadow="1")
        assert await client.metric("prediction_requests_total", model="iris", version="3", slot="blue") == 1
        assert await client.metric("model_version_requests_total") == 1
        assert await client.metric("prediction_rows_total") == 2
        assert await client.metric("prediction_latency_seconds_count") == 1
        assert await client.metric("prediction_latency_seconds_bucket", le="+Inf") == 1
        assert await client.metric("prediction_shadow_requests_total") == 1
        assert await client.metric("prediction_shadow_refused_total") == 1
        assert await client.metric("prediction_shadow_errors_total") == 0
        assert await client.metric("prediction_errors_total") == 0
        assert await client.metric("prediction_log_rows_total") == 3

    serve(scenario)


def test_a_shadows_errors_are_its_own_and_neither_the_clients_nor_the_load(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(client: Client) -> None:
        assert (await client.post("/predict", {"no": 1}, x_slipway_shadow="1")).status == 422
        client.engine.metrics.in_flight = 10**6
        assert (await client.post("/predict", ROW, x_slipway_shadow="1")).status == 429
        client.engine.metrics.in_flight = 0

        def fail(rows: Any) -> Any:
            raise RuntimeError

        artefacts = client.engine._artefacts
        assert artefacts is not None
        monkeypatch.setattr(artefacts.model, "infer_one", fail)
        assert (await client.post("/predict", ROW, x_slipway_shadow="1")).status == 500
        assert await client.metric("prediction_shadow_errors_total") == 1
        assert await client.metric("prediction_shadow_refused_total") == 1
        assert await client.metric("prediction_errors_total") == 0

    serve(scenario)


def test_an_idle_segment_is_sealed_by_age(serve: Serve, tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        await client.post("/predict", ROW)
        await until(lambda: segments(tmp_path / "spool", "seg"))
        assert len(read_frames(segments(tmp_path / "spool", "seg")[0])) == 2
        assert not segments(tmp_path / "spool", "open")

    serve(scenario, spool_segment_max_age_seconds=0.1)


def test_a_full_segment_is_followed_by_another(serve: Serve, tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        for _ in range(100):
            await client.post("/predict", ROW)
        await until(lambda: len(segments(tmp_path / "spool", "seg")) >= 2)

    serve(scenario, spool_segment_max_bytes=4096)
    paths = segments(tmp_path / "spool", "seg")
    assert all(path.stat().st_size <= 4096 for path in paths)
    assert sum(len(read_frames(path)) - 1 for path in paths) == 100
    assert not segments(tmp_path / "spool", "open")


def test_a_segment_holds_one_date_only(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    midnight = 1_800_000_000_000_000_000 // (86_400 * 10**9) * 86_400 * 10**9
    moments = iter([midnight - 2000, midnight - 1000, midnight, midnight + 1000])

    async def scenario(client: Client) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("predictor.log.time.time_ns", lambda: next(moments))
            for _ in range(4):
                await client.post("/predict", ROW, x_request_id=REQUEST_ID)

    serve(scenario)
    counts = [len(read_frames(path)) - 1 for path in segments(tmp_path / "spool", "seg")]
    assert counts == [2, 2]


def test_stopping_seals_everything(serve: Serve, tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        await client.post("/predict", ROW)
        await client.post("/feedback", {"request_id": REQUEST_ID, "label": "setosa"})
        assert len(segments(tmp_path / "spool", "open")) == 2

    serve(scenario)
    assert len(segments(tmp_path / "spool", "seg")) == len(segments(tmp_path / "spool")) == 2


def test_a_full_spool_refuses_and_recovers_when_it_is_shipped(serve: Serve, tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        answered = 0
        while (response := await client.post("/predict", ROW)).status == 200:
            answered += 1
        assert (response.status, response.json()["code"]) == (503, "log_full")
        assert response.headers["retry-after"] == "5"
        assert await client.metric("prediction_requests_total") == answered
        assert await client.metric("prediction_log_rows_total") == answered
        refused = await client.post("/feedback", {"request_id": REQUEST_ID, "label": "setosa"})
        assert refused.status == 503

        def shipped() -> bool:
            for path in segments(tmp_path / "spool", "seg"):
                path.unlink()
            return not client.engine._log._budget.full  # type: ignore[union-attr]

        await until(shipped)
        assert (await client.post("/predict", ROW)).status == 200

    serve(scenario, spool_max_bytes=20_000, spool_segment_max_bytes=4096)


def test_a_full_spool_serves_and_counts_the_loss_if_told_to(serve: Serve) -> None:
    async def scenario(client: Client) -> None:
        for _ in range(100):
            assert (await client.post("/predict", {"rows": [ROW, ROW]})).status == 200
        lost = await client.metric("prediction_log_lost_rows_total")
        assert lost > 0
        assert await client.metric("prediction_log_rows_total") + lost == 200
        assert await client.metric("prediction_rows_total") == 200

    serve(scenario, spool_max_bytes=5000, spool_when_full="serve")


@pytest.mark.parametrize("policy", ["refuse", "serve"])
def test_a_disk_that_fills_up_inside_a_record_leaves_whole_records(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    real = os.pwrite

    def half(fd: int, data: bytes, offset: int) -> int:
        if len(data) > 60:
            return real(fd, data[:40], offset)
        raise OSError(errno.ENOSPC, "No space left on device")

    async def scenario(client: Client) -> None:
        assert (await client.post("/predict", ROW)).status == 200
        with monkeypatch.context() as patch:
            patch.setattr("predictor.segment.os.pwrite", half)
            response = await client.post("/predict", ROW)
        assert response.status == (503 if policy == "refuse" else 200)
        assert await client.metric("prediction_log_lost_rows_total") == (0 if policy == "refuse" else 1)
        assert (await client.post("/predict", ROW)).status == 200

    serve(scenario, spool_when_full=policy)
    [path] = segments(tmp_path / "spool")
    assert len(read_frames(path)) == 3


def test_with_interval_zero_every_reply_waits_for_a_shared_fsync(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr("predictor.segment.os.fsync", lambda fd: (time.sleep(0.005), synced.append(fd), real(fd)))

    async def scenario(client: Client) -> None:
        responses = await asyncio.gather(*(client.post("/predict", ROW) for _ in range(50)))
        assert all(response.status == 200 for response in responses)
        assert 1 <= len(synced) <= 10

    serve(scenario, fsync_interval_ms=0)


def test_labels_are_durable_records(serve: Serve, tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        entries = [
            {"request_id": REQUEST_ID, "label": "setosa"},
            {"request_id": REQUEST_ID, "row": 1.0, "label": "virginica"},
        ]
        response = await client.post("/feedback/iris", entries)
        assert (response.status, response.json()) == (202, {"accepted": 2})
        [path] = segments(tmp_path / "spool", "open")
        header, first, second = read_frames(path)
        assert (header["kind"], path.parent.parent.name) == ("labels", "labels")
        assert first[:3] == [uuid.UUID(REQUEST_ID).bytes, 0, "setosa"]
        assert second[1:3] == [1, "virginica"]
        assert (await client.post("/feedback", {"request_id": REQUEST_ID, "label": "setosa"})).json() == {"accepted": 1}
        assert await client.metric("feedback_labels_total") == 3

    serve(scenario)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ([], "at least one"),
        ("x", "must be an object"),
        ({"label": "setosa"}, "request_id: missing"),
        ({"request_id": REQUEST_ID}, "label: missing"),
        ({"request_id": "x", "label": "setosa"}, "request_id: must be a UUID"),
        ({"request_id": 7, "label": "setosa"}, "request_id: must be a UUID"),
        ({"request_id": REQUEST_ID, "label": "rose"}, "label: must be one of"),
        ({"request_id": REQUEST_ID, "label": 1}, "label: must be one of"),
        ({"request_id": REQUEST_ID, "label": "setosa", "row": -1}, "row: must be"),
        ({"request_id": REQUEST_ID, "label": "setosa", "row": True}, "row: must be"),
        ({"request_id": REQUEST_ID, "label": "setosa", "when": 1}, "when: unknown field"),
        ([{"request_id": REQUEST_ID, "label": "setosa"}, {"request_id": "x", "label": "setosa"}], "[1]: request_id"),
    ],
)
def test_bad_labels_are_refused_and_nothing_of_them_is_kept(
    serve: Serve, tmp_path: Path, entry: Any, message: str
) -> None:
    async def scenario(client: Client) -> None:
        response = await client.post("/feedback/iris", entry)
        assert response.status == 422
        assert message in response.json()["detail"]
        assert not segments(tmp_path / "spool")

    serve(scenario)


def test_a_number_is_labelled_with_a_number(serve: Serve, tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        assert (await client.post("/feedback", {"request_id": REQUEST_ID, "label": 12})).status == 202
        assert (await client.post("/feedback", {"request_id": REQUEST_ID, "label": "12"})).status == 422
        nan = f'{{"request_id": "{REQUEST_ID}", "label": NaN}}'.encode()
        assert (await client.post("/feedback", nan)).status == 422

    serve(scenario, artefacts=write_house(tmp_path / "house"))


def test_without_a_spool_it_predicts_and_refuses_feedback(serve: Serve) -> None:
    async def scenario(client: Client) -> None:
        assert (await client.post("/predict", ROW)).status == 200
        response = await client.post("/feedback", {"request_id": REQUEST_ID, "label": "setosa"})
        assert (response.status, response.json()["code"]) == (503, "log_off")

    serve(scenario, spool_dir=None)


def test_the_budget_counts_files_of_other_writers(tmp_path: Path) -> None:
    (tmp_path / "predictions" / "other").mkdir(parents=True)
    (tmp_path / "predictions" / "other" / "x.seg").write_bytes(b"x" * 1000)
    budget = spool_module.Budget(tmp_path, 1500)
    budget.scan()
    assert (budget.used, budget.full) == (1000, False)
    budget.spend(500)
    assert budget.full


def test_damaged_segments_that_were_set_aside_use_up_no_budget(tmp_path: Path) -> None:
    folder = tmp_path / "predictions" / "iris"
    folder.mkdir(parents=True)
    (folder / "x.seg").write_bytes(b"x" * 100)
    (folder / "y.damaged").write_bytes(b"x" * 5000)
    budget = spool_module.Budget(tmp_path, 1500)
    budget.scan()
    assert (budget.used, budget.full) == (100, False)
