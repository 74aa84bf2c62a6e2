"""Batch scoring: every row once, whatever is killed, and bad rows named instead of fatal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.loop_cases import Loop
from slipway.adapters import score_files
from slipway.adapters.score_files import ScoreFiles
from slipway.core import faults
from slipway.errors import DataError, NotFoundError
from slipway.jobs.score import score


@pytest.fixture(scope="module")
def loop() -> Loop:
    made = Loop()
    made.first_champion()
    return made


@pytest.fixture
def lake(tmp_path: Path) -> str:
    return str(tmp_path / "lake")


def rows(loop: Loop, count: int, seed: int = 0) -> pd.DataFrame:
    source = loop.spec.loader()
    drawn = source.iloc[np.random.default_rng(seed).integers(0, len(source), count)].reset_index(drop=True)
    return drawn[list(loop.spec.feature_names)].assign(id=[f"r{index}" for index in range(count)])


def write(folder: Path, frame: pd.DataFrame, name: str = "a.parquet", group: int = 500) -> Path:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), folder / name, row_group_size=group)
    return folder


def run(loop: Loop, source: Path, lake: str, **more: Any) -> dict[str, Any]:
    return score(
        loop.spec, str(source), store=ScoreFiles(lake), registry=loop.tracker, tracker=loop.tracker, files=loop.files,
        **more,
    )  # fmt: skip


def read(done: dict[str, Any]) -> pd.DataFrame:
    parts = sorted(Path(done["output"]).glob("*.parquet"))
    return pd.concat([pq.read_table(part).to_pandas() for part in parts], ignore_index=True)


def test_every_row_gets_the_models_answer_in_its_place(loop: Loop, tmp_path: Path, lake: str) -> None:
    frame = rows(loop, 3000)
    write(tmp_path / "in", frame.iloc[:1700])
    write(tmp_path / "in", frame.iloc[1700:], "b.parquet")
    done = run(loop, tmp_path / "in", lake, keep=["id", "petal_width"], probabilities=True)
    assert (done["rows"], done["problems"], done["version"]) == (3000, 0, "1")
    out = read(done)
    champion = loop.tracker.by_alias("iris", "champion")
    scorer = loop.files.read(loop.tracker.artefacts / champion.run_id / "model")
    expected = scorer.predict(frame)
    assert out["id"].tolist() == frame["id"].tolist()
    assert np.array_equal(out["petal_width"], frame["petal_width"])
    assert out["prediction"].tolist() == [loop.spec.target.classes[index] for index in expected.values]
    shares = out[[f"probability_{name}" for name in loop.spec.target.classes]].to_numpy()
    assert np.allclose(shares, expected.probabilities, atol=1e-6)
    assert out["problem"].isna().all()


def test_a_row_that_cannot_be_predicted_says_why_and_stops_nothing(loop: Loop, tmp_path: Path, lake: str) -> None:
    frame = rows(loop, 1000)
    frame.loc[3, "petal_width"] = np.nan
    frame.loc[4, "petal_width"] = np.inf
    frame.loc[5, "sepal_length"] = -1.0
    frame.loc[[7, 900], "petal_length"] = 31.0
    done = run(loop, write(tmp_path / "in", frame), lake)
    assert (done["rows"], done["problems"]) == (1000, 5)
    out = read(done)
    said = out["problem"].dropna().to_dict()
    assert said == {
        3: "petal_width: missing",
        4: "petal_width: not finite",
        5: "sepal_length: below 0",
        7: "petal_length: above 30",
        900: "petal_length: above 30",
    }
    assert out.loc[out["problem"].notna(), "prediction"].isna().all()
    assert out.loc[out["problem"].isna(), "prediction"].notna().all()


def test_a_repeat_finds_everything_done_and_other_input_is_another_job(loop: Loop, tmp_path: Path, lake: str) -> None:
    source = write(tmp_path / "in", rows(loop, 500))
    first = run(loop, source, lake)
    again = run(loop, source, lake)
    assert again["output"] == first["output"]
    assert again["seconds"] == 0.0
    write(tmp_path / "in", rows(loop, 500, seed=1), "b.parquet")
    assert run(loop, source, lake)["output"] != first["output"]


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("at", [1, 3, 5])
def test_a_killed_job_goes_on_where_it_was(
    loop: Loop, tmp_path: Path, lake: str, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr(score_files, "_PART_ROWS", 500)
    frame = rows(loop, 2400)
    source = write(tmp_path / "in", frame)
    written = []

    def die(point: str) -> None:
        written.append(point)
        if len(written) == at:
            raise _Killed

    faults.install(die)
    try:
        with pytest.raises(_Killed):
            run(loop, source, lake)
        done = run(loop, source, lake, keep=[])
    finally:
        faults.install(None)
    assert len(written) == 5  # none of the five pieces was made twice
    assert done["rows"] == 2400
    whole = run(loop, source, lake, keep=["id"])
    assert read(whole)["id"].tolist() == frame["id"].tolist()
    assert read(done)["prediction"].tolist() == read(whole)["prediction"].tolist()


def test_an_input_that_changes_meanwhile_is_not_called_done(loop: Loop, tmp_path: Path, lake: str) -> None:
    source = write(tmp_path / "in", rows(loop, 500))
    with pytest.raises(DataError, match="changed while it was scored"):
        run(loop, source, lake, progress=lambda _: write(source, rows(loop, 700), "b.parquet") and None)
    assert run(loop, source, lake)["rows"] == 1200


def test_what_cannot_be_scored_is_refused_at_once(loop: Loop, tmp_path: Path, lake: str) -> None:
    frame = rows(loop, 10)
    with pytest.raises(DataError, match="sepal_width is string, not a number; petal_width is missing"):
        run(loop, write(tmp_path / "a", frame.drop(columns="petal_width").assign(sepal_width="x")), lake)
    with pytest.raises(DataError, match="nobody, to be kept, is missing"):
        run(loop, write(tmp_path / "b", frame), lake, keep=["nobody"])
    with pytest.raises(DataError, match="there is no Parquet file"):
        run(loop, tmp_path / "nothing", lake)
    (tmp_path / "c.parquet").write_bytes(b"no Parquet")
    with pytest.raises(DataError, match=r"c\.parquet is no readable Parquet file"):
        run(loop, tmp_path / "c.parquet", lake)
    write(tmp_path / "d", frame)
    with pytest.raises(DataError, match="has other columns than"):
        run(loop, write(tmp_path / "d", frame.drop(columns="id"), "b.parquet"), lake)
    with pytest.raises(NotFoundError):
        run(loop, tmp_path / "b", lake, version="77")
