"""`mlflow server` in one process instead of two.

The stock command prepares the database and the environment, and then starts uvicorn as a child, which imports
all of MLflow a second time: 250 MB and three seconds for a parent that only waits. Here uvicorn runs in the
process that has prepared everything. It leans on one private name of MLflow; when that is gone the stock
behaviour remains.

Run as `python -m slipway.stack.mlflow_server`, with the options of `mlflow server`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["main"]


def _serve_here(command: Sequence[str], extra_env: Mapping[str, str], **_: Any) -> None:
    """Takes the place of MLflow's starter of child processes; `command` is `python -m uvicorn …`."""
    import uvicorn.main

    os.environ.update(extra_env)
    uvicorn.main.main(args=list(command[3:]), prog_name="mlflow")


def main() -> None:
    """Serves until it is told to stop."""
    import mlflow.cli
    import mlflow.server

    if hasattr(mlflow.server, "_exec_cmd"):
        mlflow.server._exec_cmd = _serve_here
    mlflow.cli.cli(["server", *sys.argv[1:]])


if __name__ == "__main__":
    main()
