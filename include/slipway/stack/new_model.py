"""`slipway new-model`: a fleet file and its test that work as they are, to be replaced part by part."""

from __future__ import annotations

import json
import keyword
import re
import shlex
from importlib import resources
from pathlib import Path
from string import Template
from typing import Literal, get_args

from slipway.errors import ConflictError, DataError
from slipway.spec import load_model

__all__ = ["TASKS", "Task", "new_model", "next_commands"]

Task = Literal["regression", "classification", "text"]
TASKS: tuple[Task, ...] = get_args(Task)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")


def new_model(name: str, task: Task, fleet_dir: Path, tests_dir: Path) -> tuple[Path, Path]:
    """Write the fleet file and its test.

    Raises:
        DataError: the name cannot be a model's.
        ConflictError: one of the files exists; nothing is written.
    """
    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise DataError(
            f"{name!r} cannot be a model's name: lower case letters, digits and underscores, a letter first, "
            "at most 63, and no word of Python; choose another"
        )
    made = fleet_dir / f"{name}.py", tests_dir / f"test_{name}.py"
    taken = [str(path) for path in made if path.exists()]
    if taken:
        raise ConflictError(
            f"nothing written, already there: {', '.join(taken)}; choose another name, or remove what is there"
        )
    words = {"name": name, "title": name.replace("_", " ").capitalize()}
    for path, template in zip(made, (f"{task}.py.txt", "test.py.txt"), strict=True):
        text = resources.files("slipway").joinpath("scaffold", template).read_text(encoding="utf-8")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(Template(text).substitute(words))
    return made


def next_commands(name: str, fleet_dir: Path) -> tuple[str, str, str]:
    """What to type next: test it, run the whole loop, predict."""
    row = json.dumps(load_model(fleet_dir, name).golden_rows[0])
    return (
        f"make test-environment && .venv/bin/python -m pytest tests/fleet/test_{name}.py",
        f"make demo MODEL={name}",
        f".venv/bin/slipway predict {name} {shlex.quote(row)}",
    )
