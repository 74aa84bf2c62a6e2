"""MLflow's tracking and registry over its REST API.

The client library takes seconds to import and hundreds of megabytes, in every Airflow task, the keeper and the command
line; the REST API is what the library itself speaks. Artefacts go through the server (`mlflow-artifacts:`), so that
nothing but the server needs to reach their store.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from slipway.adapters.mlflow_model import describe, input_columns, signature
from slipway.adapters.plain_http import httpx, plain_client
from slipway.errors import NotFoundError, RegistryError
from slipway.ports import ModelVersion, Run, Snapshot
from slipway.spec import ModelSpec

__all__ = ["MlflowTracker"]

_PAGE = 1000
_TAG_CHARACTERS = 5000
_ARTIFACT_SCHEME = "mlflow-artifacts:"
_LIST_KEYS = ("runs", "model_versions")


class MlflowTracker:
    """The `Registry` and `Tracker` ports; safe to share between threads, opens no connection until it is used."""

    def __init__(self, uri: str, timeout_seconds: float = 60.0) -> None:
        self._uri = uri
        logging.getLogger("httpx").setLevel(logging.WARNING)  # one line per call would bury a task's own log
        timeout = httpx.Timeout(timeout_seconds, connect=3.0)
        self._http = plain_client(base_url=uri, timeout=timeout, retries=1)

    def close(self) -> None:
        self._http.close()

    # -- registry ------------------------------------------------------------------------------------------------------

    def versions(self, model: str) -> Sequence[ModelVersion]:
        """Every registered version, oldest first; none when the model was never registered."""
        answer = self.call("GET", "registered-models/get", {"name": model}, missing_is_none=True)
        if answer is None:
            return []
        aliases = answer["registered_model"].get("aliases", ())  # a search does not name them
        found = [
            replace(one, aliases=tuple(a["alias"] for a in aliases if str(a["version"]) == one.version))
            for one in self._search_versions(f"name = '{model}'")
        ]
        return sorted(found, key=lambda version: int(version.version))

    def version(self, model: str, version: str) -> ModelVersion:
        answer = self.call("GET", "model-versions/get", {"name": model, "version": version}, missing_is_none=True)
        if answer is None:
            known = ", ".join(one.version for one in self.versions(model)) or "none"
            raise NotFoundError(f"{model} has no version {version!r}; registered versions: {known}")
        return _version(answer["model_version"])

    def by_alias(self, model: str, alias: str) -> ModelVersion | None:
        answer = self.call("GET", "registered-models/alias", {"name": model, "alias": alias}, missing_is_none=True)
        return None if answer is None else _version(answer["model_version"])

    def set_alias(self, model: str, alias: str, version: str) -> None:
        self.call("POST", "registered-models/alias", {"name": model, "alias": alias, "version": version})

    def tag(self, model: str, version: str, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            self.call("POST", "model-versions/set-tag", {"name": model, "version": version, "key": key, "value": value})

    def register(self, model: str, run_id: str, tags: Mapping[str, str], description: str) -> ModelVersion:
        """The version of this run's `model` folder; an existing one is returned as it is."""
        existing = self._search_versions(f"run_id = '{run_id}'")
        if existing:
            return existing[0]
        if self.call("GET", "registered-models/get", {"name": model}, missing_is_none=True) is None:
            self.call("POST", "registered-models/create", {"name": model, "description": description})
        body = {"name": model, "source": f"{self._artifact_uri(run_id)}/model", "run_id": run_id, "tags": _pairs(tags)}
        answer = self._answer("POST", "model-versions/create", body)
        return _version(answer["model_version"])

    def _search_versions(self, condition: str) -> list[ModelVersion]:
        return [_version(one) for one in self.pages("GET", "model-versions/search", {"filter": condition})]

    # -- runs ----------------------------------------------------------------------------------------------------------

    def find_runs(self, model: str, tags: Mapping[str, str]) -> Sequence[Run]:
        """Runs that carry all of `tags`, oldest first."""
        condition = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        body = {"experiment_ids": [self._experiment(model)], "filter": condition, "order_by": ["start_time ASC"]}
        return [_run(one) for one in self.pages("POST", "runs/search", body)]

    def run(self, run_id: str) -> Run:
        return _run(self._get_run(run_id))

    def start_run(self, model: str, name: str, tags: Mapping[str, str]) -> str:
        body = {
            "experiment_id": self._experiment(model),
            "run_name": name,
            "start_time": _now_ms(),
            "tags": _pairs(tags),
        }
        return str(self._answer("POST", "runs/create", body)["run"]["info"]["run_id"])

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Everything in one call; a metric that is already there with this value is not repeated."""
        known = self.run(run_id).metrics if metrics else {}
        now = _now_ms()
        body = {
            "run_id": run_id,
            "params": _pairs({key: str(value)[:6000] for key, value in (params or {}).items()}),
            "metrics": [
                {"key": key, "value": float(value), "timestamp": now, "step": 0}
                for key, value in (metrics or {}).items()
                if known.get(key) != float(value) and math.isfinite(value)  # JSON has no other numbers
            ],
            "tags": _pairs(tags or {}),
        }
        self.call("POST", "runs/log-batch", body)

    def log_dataset(self, run_id: str, spec: ModelSpec, snapshot: Snapshot) -> None:
        """The snapshot as the run's input, with the model's signature as its schema."""
        columns = [{"type": kind, "name": name, "required": True} for name, kind in input_columns(spec).items()]
        dataset = {
            "name": f"{snapshot.model}-{snapshot.source}",
            "digest": snapshot.sha256[:36],  # MLflow's limit; the whole hash is the run's tag
            "source_type": "local" if "://" not in snapshot.uri else snapshot.uri.split("://", 1)[0],
            "source": json.dumps({"uri": snapshot.uri}),
            "schema": json.dumps({"mlflow_colspec": columns}),
            "profile": json.dumps({"num_rows": snapshot.rows, "sha256": snapshot.sha256}),
        }
        tags = [{"key": "mlflow.data.context", "value": "training"}]
        self.call("POST", "runs/log-inputs", {"run_id": run_id, "datasets": [{"tags": tags, "dataset": dataset}]})
        self.log(run_id, tags={"slipway.signature": json.dumps(signature(spec))[:_TAG_CHARACTERS]})

    def finish(self, run_id: str) -> None:
        self.call("POST", "runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": _now_ms()})

    # -- artefacts -----------------------------------------------------------------------------------------------------

    def upload(self, run_id: str, folder: Path) -> None:
        """All files below `folder`, under the same relative paths; a repeat overwrites."""
        root = self._artifact_path(run_id)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self._send("PUT", f"{root}/{_quoted(path.relative_to(folder).as_posix())}", content=path.read_bytes())

    def upload_model(self, spec: ModelSpec, run_id: str, folder: Path) -> None:
        """As `upload`, with `folder/model` described as an MLflow model."""
        describe(spec, run_id, folder / "model", datetime.now(UTC))
        self.upload(run_id, folder)

    def download(self, run_id: str, path: str, folder: Path, without: Collection[str] = ()) -> Path:
        """The artefact folder `path` of a run, copied below `folder`; sub-folders in `without` are left out.

        Raises:
            NotFoundError: the run holds no such folder.
        """
        files = list(self._list_artifacts(run_id, path, frozenset(without)))
        if not files:
            raise NotFoundError(f"run {run_id} holds no artefacts below {path!r}; train again")
        root = self._artifact_path(run_id)
        for name in files:
            target = folder / name
            if not target.resolve().is_relative_to(folder.resolve()):
                raise RegistryError(f"MLflow listed {name!r}, which lies outside of its folder")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self._send("GET", f"{root}/{_quoted(name)}").content)
        return folder / path

    def delete_artifacts(self, run_id: str) -> None:
        """The whole artefact folder of a run, at once; deleting twice is fine."""
        root = self._artifact_path(run_id)
        self._send("DELETE", root.removesuffix("/artifacts"))

    def _list_artifacts(self, run_id: str, path: str, without: frozenset[str]) -> Iterator[str]:
        answer = self._answer("GET", "artifacts/list", {"run_id": run_id, "path": path})
        for one in answer.get("files", ()):
            if one.get("is_dir"):
                if one["path"].rsplit("/", 1)[-1] not in without:
                    yield from self._list_artifacts(run_id, one["path"], without)
            else:
                yield one["path"]

    def _artifact_uri(self, run_id: str) -> str:
        uri = str(self._get_run(run_id)["info"]["artifact_uri"])
        if not uri.startswith(_ARTIFACT_SCHEME):
            raise RegistryError(f"MLflow keeps artefacts at {uri}; start it with --serve-artifacts and no default root")
        return uri

    def _artifact_path(self, run_id: str) -> str:
        path = httpx.URL(self._artifact_uri(run_id)).path.strip("/")
        return f"/api/2.0/mlflow-artifacts/artifacts/{_quoted(path)}"

    # -- transport -----------------------------------------------------------------------------------------------------

    def _experiment(self, model: str) -> str:
        asked = {"experiment_name": model}
        answer = self.call("GET", "experiments/get-by-name", asked, missing_is_none=True)
        if answer is None:
            try:
                return str(self._answer("POST", "experiments/create", {"name": model})["experiment_id"])
            except RegistryError:  # another task created it in between, or the next line says what is wrong
                answer = self._answer("GET", "experiments/get-by-name", asked)
        return str(answer["experiment"]["experiment_id"])

    def _get_run(self, run_id: str) -> dict[str, Any]:
        answer = self.call("GET", "runs/get", {"run_id": run_id}, missing_is_none=True)
        if answer is None:
            raise NotFoundError(f"MLflow has no run {run_id}")
        found: dict[str, Any] = answer["run"]
        return found

    def pages(self, method: str, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Every entry of a search, however many answers it takes."""
        token = ""
        while True:
            page = {**body, "max_results": _PAGE, **({"page_token": token} if token else {})}
            answer = self._answer(method, path, page)
            for key in _LIST_KEYS:
                yield from answer.get(key, ())
            token = answer.get("next_page_token", "")
            if not token:
                return

    def _answer(self, method: str, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer = self.call(method, path, body)
        if answer is None:
            raise RegistryError(f"MLflow gave no answer to {path}")
        return answer

    def call(
        self, method: str, path: str, body: Mapping[str, Any], *, missing_is_none: bool = False
    ) -> dict[str, Any] | None:
        """One call of the REST API, for what the ports have no name for.

        Raises:
            RegistryError: MLflow does not answer or refuses.
        """
        url = f"/api/2.0/mlflow/{path}"
        try:
            sent = self._send(method, url, params=body) if method == "GET" else self._send(method, url, json=body)
        except _MissingError:
            if missing_is_none:
                return None
            raise
        answer: dict[str, Any] = sent.json() if sent.content else {}
        return answer

    def _send(self, method: str, url: str, **arguments: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, url, **arguments)
        except httpx.HTTPError as error:
            reason = f"{type(error).__name__}: {error}"
            raise RegistryError(
                f"MLflow at {self._uri} does not answer ({reason}); see `slipway logs mlflow`"
            ) from error
        if answer.is_success:
            return answer
        code, message = _problem(answer)
        known = code == "RESOURCE_DOES_NOT_EXIST" or ("alias" in message and "not found" in message)
        raise (_MissingError if known else RegistryError)(f"MLflow refused {url}: {message}")


class _MissingError(RegistryError):
    """MLflow does not have what was asked for."""


def _problem(answer: httpx.Response) -> tuple[str, str]:
    try:
        body = answer.json()
        return str(body.get("error_code", "")), str(body.get("message", ""))[:300]
    except ValueError:
        return "", f"HTTP {answer.status_code} {answer.text[:200]}"


def _pairs(values: Mapping[str, Any]) -> list[dict[str, str]]:
    return [{"key": key, "value": str(value)} for key, value in values.items()]


def _quoted(path: str) -> str:
    return quote(path, safe="/")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _version(raw: Mapping[str, Any]) -> ModelVersion:
    return ModelVersion(
        model=raw["name"],
        version=str(raw["version"]),
        run_id=raw.get("run_id", ""),
        created_at=datetime.fromtimestamp(int(raw["creation_timestamp"]) / 1000, UTC),
        aliases=tuple(raw.get("aliases", ())),
        tags={tag["key"]: tag.get("value", "") for tag in raw.get("tags", ())},
    )


def _run(raw: Mapping[str, Any]) -> Run:
    info, data = raw["info"], raw.get("data", {})
    return Run(
        run_id=info["run_id"],
        name=info.get("run_name", ""),
        finished=info["status"] == "FINISHED",
        tags={tag["key"]: tag.get("value", "") for tag in data.get("tags", ())},
        metrics={metric["key"]: float(metric["value"]) for metric in data.get("metrics", ())},
    )
