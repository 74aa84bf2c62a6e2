"""What housekeeping removes from MLflow: registered versions, and runs with their artefacts and rows.

MLflow only marks a run as deleted; `mlflow gc` is what removes its rows and artefacts. It runs as a process of its own,
since it imports all of MLflow, and is given the very runs that were marked here: what a person deleted by hand, to
restore it perhaps, is left alone.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from slipway.adapters.mlflow import MlflowTracker
from slipway.core.reach import Stored
from slipway.errors import NotFoundError, RegistryError
from slipway.ports import ModelVersion

__all__ = ["MlflowShelf"]

_log = logging.getLogger(__name__)
_MARK = "slipway.tidied"
_AT_ONCE = 50
_PURGE_SECONDS = 600
# The store's address holds a password, so it comes through standard input and not in the list of processes.
_PURGE = """
import sys
import mlflow.cli
mlflow.cli.cli(["gc", "--backend-store-uri", sys.stdin.read(), "--run-ids", sys.argv[1]])
"""


class MlflowShelf:
    """Versions and runs of a model.

    Args:
        store_uri: the database of the MLflow server.
    """

    def __init__(self, tracker: MlflowTracker, uri: str, store_uri: str) -> None:
        self._tracker, self._uri, self._store_uri = tracker, uri, store_uri

    def versions(self, model: str) -> Sequence[ModelVersion]:
        """Every registered version, oldest first."""
        return self._tracker.versions(model)

    def runs(self, model: str) -> list[Stored]:
        """Every run that was not deleted, with the time of its end, or of its start while it has none."""
        return [_stored(model, raw) for raw in self._search(model, "ACTIVE_ONLY")]

    def remove_version(self, model: str, version: str) -> None:
        """Delete a registered version; deleting twice is fine.

        Raises:
            RegistryError: it has an alias.
        """
        try:
            found = self._tracker.version(model, version)
        except NotFoundError:
            return
        if found.aliases:
            raise RegistryError(f"version {version} of {model} is {', '.join(found.aliases)} and is not removed")
        self._tracker.call("DELETE", "model-versions/delete", {"name": model, "version": version})

    def remove_run(self, run_id: str) -> None:
        """Delete a run's artefacts and mark it as deleted; `purge` then removes its rows."""
        self._tracker.call("POST", "runs/set-tag", {"run_id": run_id, "key": _MARK, "value": "true"})
        self._tracker.delete_artifacts(run_id)  # `mlflow gc` would leave empty folders
        self._tracker.call("POST", "runs/delete", {"run_id": run_id})

    def purge(self, model: str) -> int:
        """Remove rows and artefacts of the runs that were marked here, also by a run that was killed; how many.

        Raises:
            RegistryError: MLflow's own tool failed; the next purge finds the same runs.
        """
        marked = [raw["info"]["run_id"] for raw in self._search(model, "DELETED_ONLY") if _tags(raw).get(_MARK)]
        for start in range(0, len(marked), _AT_ONCE):
            self._purge(marked[start : start + _AT_ONCE])
        return len(marked)

    def _purge(self, run_ids: Sequence[str]) -> None:
        environment = {
            **os.environ,
            "MLFLOW_TRACKING_URI": self._uri,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "1",
        }
        command = [sys.executable, "-c", _PURGE, ",".join(run_ids)]
        try:
            subprocess.run(
                command,
                env=environment,
                input=self._store_uri,
                check=True,
                capture_output=True,
                text=True,
                timeout=_PURGE_SECONDS,
            )
        except subprocess.CalledProcessError as error:
            _log.error("mlflow gc failed:\n%s", error.stderr)
            last = (error.stderr or "no output").strip().splitlines()[-1][:300]
            raise RegistryError(f"mlflow gc failed: {last}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RegistryError(f"mlflow gc failed: {error}") from error

    def _search(self, model: str, view: str) -> list[dict[str, Any]]:
        experiment = self._tracker.call(
            "GET", "experiments/get-by-name", {"experiment_name": model}, missing_is_none=True
        )
        if experiment is None:
            return []
        body = {"experiment_ids": [experiment["experiment"]["experiment_id"]], "run_view_type": view}
        return list(self._tracker.pages("POST", "runs/search", body))


def _tags(raw: Mapping[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag.get("value", "") for tag in raw.get("data", {}).get("tags", ())}


def _stored(model: str, raw: Mapping[str, Any]) -> Stored:
    info = raw["info"]
    written = int(info.get("end_time") or 0) or int(info["start_time"])
    return Stored(model, info["run_id"], datetime.fromtimestamp(written / 1000, UTC), 0, _tags(raw))
