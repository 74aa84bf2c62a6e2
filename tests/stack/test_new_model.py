"""`slipway new-model`: what it writes works as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from slipway.cli import root
from slipway.errors import ConflictError, DataError
from slipway.settings import PROJECT_DIR
from slipway.spec import load_model
from slipway.stack.new_model import TASKS, Task, new_model, next_commands


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return tmp_path


def make(project: Path, name: str, task: Task) -> tuple[Path, Path]:
    return new_model(name, task, project / "include" / "fleet", project / "tests" / "fleet")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", ["a", "m" * 63])
def test_the_files_load_and_are_clean(project: Path, task: Task, name: str) -> None:
    made = make(project, name, task)
    spec = load_model(made[0].parent, name)
    assert spec.task == ("classification" if task == "text" else task)
    assert all("$" not in path.read_text() for path in made)
    own = "lint.isort.known-first-party = ['fleet']"  # in the project it is found in `include/`
    config = ["--no-cache", "--config", str(PROJECT_DIR / "pyproject.toml")]
    for command in (["check", "--config", own], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, *config]
        done = subprocess.run([*ruff, *made], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
    assert next_commands(name, made[0].parent)[1] == f"make demo MODEL={name}"


@pytest.mark.parametrize("name", ["", "1a", "Ship", "a-b", "a b", "../a", "a.py", "class", "_a", "ä", "a" * 64, "a\n"])
def test_a_name_that_cannot_be_a_models_is_refused_in_one_line(project: Path, name: str) -> None:
    with pytest.raises(DataError, match="cannot be a model's name") as caught:
        make(project, name, "text")
    assert "\n" not in str(caught.value)
    assert not list(project.iterdir())


def test_nothing_is_overwritten(project: Path) -> None:
    fleet_file, test = make(project, "mine", "text")
    before = fleet_file.read_text()
    with pytest.raises(ConflictError, match="already there"):
        make(project, "mine", "regression")
    fleet_file.unlink()
    with pytest.raises(ConflictError, match=r"already there: .*test_mine\.py;"):
        make(project, "mine", "regression")
    assert not fleet_file.exists()
    test.unlink()
    make(project, "mine", "text")
    assert fleet_file.read_text() == before


def test_the_command_says_what_it_wrote_and_what_comes_next(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_FLEET_DIR", str(project / "include" / "fleet"))
    monkeypatch.setenv("SLIPWAY_PROJECT_DIR", str(project))
    done = CliRunner().invoke(root, ["new-model", "mine", "--task", "regression"])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].endswith("include/fleet/mine.py")
    assert lines[1].endswith("tests/fleet/test_mine.py")
    assert lines[4:] == ["  make demo MODEL=mine", f"  {next_commands('mine', project / 'include' / 'fleet')[2]}"]
    again = CliRunner().invoke(root, ["new-model", "mine", "--task", "regression"])
    assert isinstance(again.exception, ConflictError)


@pytest.mark.services
def test_the_written_tests_pass_and_the_models_get_their_workflows(project: Path) -> None:
    made = [make(project, f"my_{task}", task) for task in TASKS]
    path = os.pathsep.join(str(one) for one in (project / "include", *_paths("include", "bentos", "tests")))
    environment: dict[str, Any] = os.environ | {"PYTHONPATH": path}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--import-mode=importlib",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
    ]
    done = subprocess.run(
        [*command, *(str(test) for _, test in made)],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "9 passed" in done.stdout

    script = "import sys, dagparts, data, train, release, drift; print(sorted(one.name for one in dagparts.fleet()))"
    environment |= {
        "PYTHONPATH": os.pathsep.join(map(str, _paths("include", "dags"))),
        "SLIPWAY_FLEET_DIR": str(project / "include" / "fleet"),
        "AIRFLOW_HOME": str(project / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == str(sorted(f"my_{task}" for task in TASKS))


def _paths(*names: str) -> list[Path]:
    return [PROJECT_DIR / name for name in names]
