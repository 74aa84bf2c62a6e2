"""The executor ends although a message to one of its workers was lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from slipway.settings import PROJECT_DIR

pytestmark = pytest.mark.services

# In a process of its own: the executor forks, and Airflow's settings are read when it is imported.
_PROGRAM = """
from slipway_executor import LocalExecutor

executor = LocalExecutor(parallelism=2)
executor.start()
assert all(worker.is_alive() for worker in executor.workers.values())
put, lost = executor.activity_queue.put, []
executor.activity_queue.put = lambda message: put(message) if lost else lost.append(message)
executor.end()
assert lost == [None]
print("ended")
"""


def test_it_ends_although_a_message_was_lost(tmp_path: Path) -> None:
    env = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "PYTHONPATH": str(PROJECT_DIR / "plugins")}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert "ended" in done.stdout.splitlines(), done.stderr
