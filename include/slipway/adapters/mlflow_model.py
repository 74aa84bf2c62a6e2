"""Makes a folder of model files an MLflow model, so that MLflow's page, `pyfunc` and `mlflow models serve` know it.

The description is written by hand: MLflow's own writer imports for seconds, infers requirements, and for scikit-learn
saves a second copy. JSON is YAML, so `MLmodel` is written as JSON.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from slipway.spec import ModelSpec

__all__ = ["describe", "input_columns", "signature"]

_TYPES = {"number": "double", "integer": "long", "category": "string", "text": "string"}
_NEEDS = ("mlflow", "scikit-learn", "skops", "onnx", "onnxruntime", "numpy", "pandas")


def input_columns(spec: ModelSpec) -> dict[str, str]:
    """MLflow's column type by feature; a nullable integer is a double, as it is in every frame."""
    return {
        feature.name: "double" if feature.kind == "integer" and feature.nullable else _TYPES[feature.kind]
        for feature in spec.features
    }


def signature(spec: ModelSpec) -> dict[str, str | None]:
    """MLflow's model signature: the features in, the class index or number out."""
    required = {feature.name: not feature.nullable for feature in spec.features}
    inputs = [{"type": kind, "name": name, "required": required[name]} for name, kind in input_columns(spec).items()]
    outputs = [{"type": "long" if spec.target.classes else "double", "name": spec.target.name, "required": True}]
    return {"inputs": json.dumps(inputs), "outputs": json.dumps(outputs), "params": None}


def describe(spec: ModelSpec, run_id: str, folder: Path, at: datetime) -> None:
    """Add `MLmodel` and its environment files to a folder with `model.onnx` or `model.skops`."""
    kind = "onnx" if (folder / "model.onnx").is_file() else "skops"
    requirements = [f"{name}=={version(name)}" for name in _NEEDS]
    (folder / "requirements.txt").write_text("\n".join(requirements) + "\n")
    python_env = {"python": platform.python_version(), "dependencies": ["-r requirements.txt"]}
    (folder / "python_env.yaml").write_text(json.dumps(python_env, indent=1))
    model = {
        "artifact_path": "model",
        "flavors": _flavors(folder),
        "mlflow_version": version("mlflow"),
        "model_size_bytes": (folder / f"model.{kind}").stat().st_size,
        "run_id": run_id,
        "signature": signature(spec),
        "utc_time_created": at.strftime("%Y-%m-%d %H:%M:%S.%f"),
        "metadata": {"classes": list(spec.target.classes or ())},
    }
    (folder / "MLmodel").write_text(json.dumps(model, indent=1))


def _flavors(folder: Path) -> dict[str, Any]:
    """`pyfunc` loads the scikit-learn estimator where there is one: MLflow's ONNX wrapper cannot return a matrix."""
    native = folder if (folder / "model.skops").is_file() else folder / "native"
    flavors: dict[str, Any] = {}
    if (folder / "model.onnx").is_file():
        providers = ["CPUExecutionProvider"]
        flavors["onnx"] = {"code": None, "data": "model.onnx", "onnx_version": version("onnx"), "providers": providers}
        flavors["python_function"] = _pyfunc("mlflow.onnx", data="model.onnx")
    if (native / "model.skops").is_file():
        path = (native / "model.skops").relative_to(folder).as_posix()
        flavors["sklearn"] = {
            "code": None,
            "pickled_model": path,  # MLflow's name for the file, whatever its format
            "serialization_format": "skops",
            "sklearn_version": version("scikit-learn"),
            "skops_trusted_types": json.loads((native / "types.json").read_text()),
        }
        flavors["python_function"] = _pyfunc("mlflow.sklearn", model_path=path, predict_fn="predict")
    return flavors


def _pyfunc(module: str, **more: str) -> Mapping[str, Any]:
    environment = {"virtualenv": "python_env.yaml"}
    return {"env": environment, "loader_module": module, "python_version": platform.python_version(), **more}
