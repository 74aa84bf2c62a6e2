"""What is compared: one forest in every format, and a server for each way to serve it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.servers import Server

__all__ = ["PEERS", "Forest", "bento", "contestants", "gateway", "prepare", "slipway", "uvicorn"]

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
PEERS_PYTHON = HERE / ".venv" / "peers" / "bin" / "python"
MLSERVER_PYTHON = HERE / ".venv" / "mlserver" / "bin" / "python"
SERVING_PYTHON = PROJECT / "bentos" / ".venv" / "bin" / "python"

PEERS = (
    "uvicorn_bare",
    "fastapi_sklearn",
    "fastapi_onnx",
    "bentoml_onnx",
    "litserve_onnx",
    "mlflow_serve",
    "mlserver",
)


@dataclass(frozen=True)
class Forest:
    """Files of the same random forest of 100 trees."""

    onnx: Path
    joblib: Path
    bento: Path
    mlflow: Path
    mlserver: Path


class _OneVersion:
    """Stands for registry and tracker: the packager finds one version whose files lie in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def version(self, model: str, version: str) -> Any:
        from slipway.ports import ModelVersion

        return ModelVersion(model=model, version=version, run_id="bench", created_at=datetime.now(UTC))

    def download(self, run_id: str, path: str, folder: Path, without: Sequence[str] = ()) -> Path:
        return self._folder / path


def prepare(work: Path) -> Forest:
    """Fit the forest and write it for every server; the bento is built as a release builds it."""
    import joblib
    import mlflow.sklearn
    from mlflow.models import infer_signature

    from fleet.iris import MODEL, forest_100
    from slipway.adapters.onnx import OnnxModelFiles
    from slipway.core.encoding import encode_target, feature_matrix

    frame = MODEL.loader()
    features = [(feature.name, feature.kind) for feature in MODEL.features]
    target = encode_target(MODEL.target.classes, frame[MODEL.target.name].to_numpy())
    matrix = feature_matrix(features, frame)
    forest = forest_100().fit(matrix, target)
    run = work / "run"
    written = OnnxModelFiles().write(MODEL, forest, frame, run)
    if written["format"] != "onnx":
        raise RuntimeError(f"the forest did not convert to ONNX: {written['obstacle']}")
    files = Forest(
        run / "model" / "model.onnx", work / "forest.joblib", Path(), work / "mlflow-model", work / "mlserver"
    )
    joblib.dump(forest, files.joblib)
    signature = infer_signature(frame[list(MODEL.feature_names)], forest.predict(matrix))  # its way to validate
    mlflow.sklearn.save_model(
        forest,
        files.mlflow,
        signature=signature,
        serialization_format="cloudpickle",
        pip_requirements=["scikit-learn"],
    )
    built = bento("iris", run, work / "bentoml")
    return Forest(files.onnx, files.joblib, built, files.mlflow, _mlserver_folder(files))


def bento(model: str, run: Path, bentoml_home: Path) -> Path:
    """The bento of the artefacts in a folder, built as a release builds it."""
    from slipway.adapters.bentoml import BentoPackager

    source: Any = _OneVersion(run)
    return BentoPackager(source, source, SERVING_PYTHON, PROJECT / "bentos", bentoml_home).build(model, "1").path


def _mlserver_folder(files: Forest) -> Path:
    files.mlserver.mkdir(parents=True, exist_ok=True)
    model = {
        "name": "iris",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": str(files.joblib)},
    }
    (files.mlserver / "model-settings.json").write_text(json.dumps(model))
    return files.mlserver


def slipway(bento: Path, spool: Path, model: str = "iris") -> Server:
    """The bento as Supervisor starts it, with validation, prediction log and metrics."""
    options = ["--host", "127.0.0.1", "--port", "{port}", "--api-workers", "1"]
    limits = ["--timeout-keep-alive", "120", "--timeout-graceful-shutdown", "15"]
    environment = {
        "BENTOML_HOME": str(bento.parents[2]),
        "BENTOML_DO_NOT_TRACK": "True",
        "DO_NOT_TRACK": "1",
        "SLIPWAY_MODEL": model,
        "SLIPWAY_VERSION": "1",
        "SLIPWAY_SLOT": "blue",
        "SLIPWAY_SPOOL_DIR": str(spool),
    }
    command = [str(SERVING_PYTHON), "-m", "bentoml", "serve", str(bento), *options, *limits]
    path = f"/predict/{model}"
    return Server("slipway", command, path, path, "flat", PROJECT, environment)


def uvicorn(name: str, python: Path, batch: str | None, environment: Mapping[str, str]) -> Server:
    """One of the apps in `peers/` under a uvicorn with its fast parts."""
    here = ["--host", "127.0.0.1", "--port", "{port}"]
    fast = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    command = [str(python), "-m", "uvicorn", f"{name}:app", *here, *fast]
    return Server(name, command, "/predict", batch, "flat", HERE / "peers", environment)


def gateway(folder: Path, bento_port: int, port: int, admin_port: int) -> Server:
    """Envoy with one thread, configured and routed by Slipway's own adapter."""
    import envoy

    from slipway.adapters.envoy import EnvoyGateway, write_bootstrap
    from slipway.core.routes import Backend, Route

    bootstrap = write_bootstrap(folder, gateway_port=port, admin_port=admin_port, control_port=admin_port)
    EnvoyGateway(folder, f"http://127.0.0.1:{admin_port}").publish([Route("iris", (Backend("blue", bento_port, 100),))])
    binary = Path(next(iter(envoy.__path__))) / "_bin" / "envoy"
    flags = ["--concurrency", "1", "--log-level", "warning", "--disable-hot-restart"]
    return Server("slipway_envoy", [str(binary), "-c", str(bootstrap), *flags], "/predict/iris", None, "flat", PROJECT)


def contestants(forest: Forest, spool: Path) -> dict[str, Server]:
    """All servers by name, Slipway first; each with one worker."""
    quiet = {"BENTOML_DO_NOT_TRACK": "True", "DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    files = {"BENCH_ONNX": str(forest.onnx), "BENCH_JOBLIB": str(forest.joblib), **quiet}
    peers, here = HERE / "peers", ["--host", "127.0.0.1", "--port", "{port}"]
    bentoml = [str(SERVING_PYTHON), "-m", "bentoml", "serve", "bentoml_onnx:Forest", *here, "--api-workers", "1"]
    litserve = [str(PEERS_PYTHON), "litserve_onnx.py", "{port}"]
    mlflow = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(forest.mlflow), "--env-manager"]
    mlserver = [str(MLSERVER_PYTHON), "-m", "mlserver.cli.main", "start", str(forest.mlserver)]
    found = (
        slipway(forest.bento, spool),
        # The same uvicorn as the bento's, so that the difference is what the bento adds.
        uvicorn("uvicorn_bare", SERVING_PYTHON, None, files),
        uvicorn("fastapi_sklearn", PEERS_PYTHON, "/batch", files),
        uvicorn("fastapi_onnx", PEERS_PYTHON, "/batch", files),
        Server(
            "bentoml_onnx", bentoml, "/predict", "/batch", "flat", peers, {**files, "BENTOML_HOME": str(forest.bento)}
        ),
        Server("litserve_onnx", litserve, "/predict", "/predict", "flat", peers, files),
        Server(
            "mlflow_serve",
            [*mlflow, "local", *here, "--workers", "1"],
            "/invocations",
            "/invocations",
            "mlflow",
            peers,
            {**files, "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"},
        ),
        Server(
            "mlserver", mlserver, "/v2/models/iris/infer", "/v2/models/iris/infer", "v2", peers, _mlserver_ports(files)
        ),
    )
    return {server.name: server for server in found}


def _mlserver_ports(files: Mapping[str, str]) -> dict[str, str]:
    from bench.servers import free_port

    settings = {
        "HOST": "127.0.0.1",
        "HTTP_PORT": "{port}",
        "GRPC_PORT": str(free_port()),
        "METRICS_PORT": str(free_port()),
        "PARALLEL_WORKERS": "0",  # one process, as with the others; faster here than a worker behind a queue
        "DEBUG": "false",
    }
    return {**files, **{f"MLSERVER_{key}": value for key, value in settings.items()}}
