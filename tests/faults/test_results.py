"""Results count for the code that they were made with; several harnesses may write beside each other."""

from __future__ import annotations

import multiprocessing
import subprocess
from pathlib import Path

import pytest

from faults import results
from faults.results import begin, code_digest, load_results, update_result

FORK = multiprocessing.get_context("fork")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(results, "RESULTS", tmp_path / "faults.json")
    return tmp_path


def codes(monkeypatch: pytest.MonkeyPatch, digest: str) -> None:
    monkeypatch.setattr(results, "code_digest", lambda: digest)


def test_results_of_other_code_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    codes(monkeypatch, "old")
    assert begin("rounds") == "rounds: begins, with code old"
    update_result("rounds", "a cell", lambda _: {"done": 10})
    assert begin("rounds") == "rounds: goes on after 1 results, with code old"
    codes(monkeypatch, "new")
    assert begin("rounds") == "rounds: the results there are of other code; this run begins anew, with code new"
    assert "rounds" not in load_results()


def test_results_from_before_the_code_was_kept_are_forgotten(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "faults.json").write_text('{"rounds": {"a cell": {"done": 10}}}')
    codes(monkeypatch, "new")
    assert "begins anew" in begin("rounds")
    assert load_results() == {"code": {"rounds": "new"}}


def test_a_fresh_run_forgets_what_it_is_about_to_play(monkeypatch: pytest.MonkeyPatch) -> None:
    codes(monkeypatch, "same")
    for key in ("a", "b"):
        update_result("rounds", key, lambda _: 1)
    begin("swaps")
    results_code = load_results()["code"]
    assert results_code == {"swaps": "same"}
    begin("rounds")
    for key in ("a", "b"):
        update_result("rounds", key, lambda known: (known or 0) + 1)
    begin("rounds", fresh=True, keys=["a"])
    assert load_results()["rounds"] == {"b": 1}
    begin("rounds", fresh=True)
    assert "rounds" not in load_results()


def test_any_change_of_product_or_harness_is_other_code_and_a_change_of_docs_is_not(place: Path) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", str(place), *arguments], check=True, capture_output=True)

    git("init", "-q")
    for name in ("include/a.py", "tests/faults/b.py", "docs/c.md"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("1")
    git("add", "-A")
    before = code_digest(place)
    (place / "docs" / "c.md").write_text("2")
    assert code_digest(place) == before
    (place / "include" / "a.py").write_text("2")
    changed = code_digest(place)
    assert changed != before, "an edit that is not committed"
    (place / "include" / "new.py").write_text("2")
    assert code_digest(place) not in (before, changed), "a file that git does not know"
    (place / "tests" / "faults" / "b.py").unlink()
    assert code_digest(place) not in (before, changed)


def test_without_git_the_python_files_count(place: Path) -> None:
    (place / "include").mkdir()
    (place / "include" / "a.py").write_text("1")
    before = code_digest(place)
    (place / "include" / "a.py").write_text("2")
    assert code_digest(place) != before


def add_many(worker: int) -> None:
    for _ in range(20):
        update_result("rounds", "shared", lambda known: (known or 0) + 1)
        update_result("rounds", f"own {worker}", lambda known: (known or 0) + 1)


def test_nobody_loses_what_another_writes() -> None:
    workers = [FORK.Process(target=add_many, args=(number,)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert load_results()["rounds"] == {"shared": 60, "own 0": 20, "own 1": 20, "own 2": 20}
