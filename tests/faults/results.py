"""What fault runs found, in `var/bench/faults.json`. A result counts for the code that it was made with and no other.

Several harnesses may write beside each other: every change is made under a lock, and the file is replaced whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from slipway.settings import PROJECT_DIR

__all__ = ["RESULTS", "begin", "code_digest", "load_results", "update_result"]

RESULTS = PROJECT_DIR / "var" / "bench" / "faults.json"
# What decides how a round goes: the product and the harness, but no docs.
CODE = ("include", "bentos", "dags", "plugins", "requirements.lock", "tests/faults", "tests/loop")
CODES = "code"


def code_digest(project: Path = PROJECT_DIR) -> str:
    """The SHA-256 of the files of product and harness as they lie there, whether committed or not."""
    digest = hashlib.sha256()
    for name in sorted(_files(project)):
        with contextlib.suppress(FileNotFoundError):  # deleted and not committed yet
            digest.update(name.encode() + b"\0" + hashlib.sha256((project / name).read_bytes()).digest())
    return digest.hexdigest()


def _files(project: Path) -> set[str]:
    """What git knows of or would add; without git, the Python files."""
    command = ["git", "-C", str(project), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *CODE]
    try:
        listed = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout.decode()
    except (OSError, subprocess.SubprocessError):
        found = (path for folder in CODE for path in (project / folder).rglob("*.py"))
        return {str(path.relative_to(project)) for path in found if ".venv" not in path.parts}
    return {name for name in listed.split("\0") if name}


def begin(section: str, *, fresh: bool = False, keys: Sequence[str] | None = None) -> str:
    """Make sure that the section holds nothing of other code; what to tell whoever waits for the run.

    Args:
        fresh: forget what is there of this code, too.
        keys: with `fresh`, only these.
    """
    code = code_digest()
    with _changing() as found:
        codes = found.setdefault(CODES, {})
        other = bool(found.get(section)) and codes.get(section) != code
        if other or (fresh and keys is None):
            found.pop(section, None)
        elif fresh:
            for key in keys or ():
                found.get(section, {}).pop(key, None)
        codes[section] = code
        kept = len(found.get(section, {}))
    if other:
        return f"{section}: the results there are of other code; this run begins anew, with code {code[:12]}"
    return f"{section}: {f'goes on after {kept} results' if kept else 'begins'}, with code {code[:12]}"


def update_result(section: str, key: str, change: Callable[[Any], Any]) -> Any:
    """Replace one result by what `change` makes of it; it gets None when there is none yet."""
    with _changing() as found:
        results = found.setdefault(section, {})
        results[key] = change(results.get(key))
        return results[key]


def load_results() -> dict[str, Any]:
    """The whole file; empty when there is none."""
    try:
        return dict(json.loads(RESULTS.read_text()))
    except (OSError, ValueError):
        return {}


@contextlib.contextmanager
def _changing() -> Iterator[dict[str, Any]]:
    """The file's contents, for a change that nobody else interrupts and that a kill leaves done or undone."""
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = load_results()
        yield found
        aside = RESULTS.with_suffix(".new")
        aside.write_text(json.dumps(found, indent=1))
        aside.replace(RESULTS)
