"""Imports point inwards: errors/spec/settings, core, adapters, jobs, then stack, wiring and the command line."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "include" / "slipway"
RING = {
    "errors": 0,
    "policy": 0,
    "spec": 0,
    "settings": 0,
    "ports": 1,
    "core": 1,
    "adapters": 2,
    "jobs": 2,
    "migrations": 2,
    "wiring": 3,
    "agent": 3,
    "keeper": 3,
    "keeper_metrics": 3,
    "stack": 3,
    "cli": 4,
}
OUTSIDE = {"pydantic", "pydantic_settings", "numpy", "scipy", "slipway"}


def ring_of(module: str) -> int:
    part = module.split(".")[1]
    return RING[part if not part.startswith("cli") else "cli"]


def imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
            if node.module == "slipway":
                names |= {f"slipway.{alias.name}" for alias in node.names if not alias.name.startswith("_")}
    return names


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name not in ("__init__.py", "__main__.py"))


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_imports_point_inwards(path: Path) -> None:
    own = path.relative_to(PACKAGE).with_suffix("").parts
    own_part = "cli" if own[0].startswith("cli") else own[0]
    inner = {name for name in imports(path) if name.startswith("slipway.")}
    for name in inner:
        part = name.split(".")[1]
        assert ring_of(name) <= RING[own_part], f"{'/'.join(own)} imports {name}, which lies further out"
        if own_part == "jobs":
            assert part != "adapters", f"{'/'.join(own)} imports {name}; adapters are passed in"
        if own_part == "adapters":
            assert part not in ("jobs", "settings"), f"{'/'.join(own)} imports {name}; adapters take values"


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES])
def test_nothing_in_the_library_imports_airflow(path: Path) -> None:
    assert not {name for name in imports(path) if name.split(".")[0] == "airflow"}


@pytest.mark.parametrize("path", [p for p in FILES if p.parts[-2] == "core"], ids=lambda path: path.name)
def test_core_needs_numpy_and_scipy_at_most(path: Path) -> None:
    import sys

    foreign = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names) - OUTSIDE
    assert not foreign


def test_only_settings_reads_the_environment() -> None:
    readers = {
        str(path.relative_to(PACKAGE))
        for path in FILES
        if any(word in path.read_text(encoding="utf-8") for word in ("os.environ[", "os.environ.get", "os.getenv"))
    }
    assert readers <= {"settings.py"}
