"""Makes a folder of model files an MLflow model, so that MLflow's page, `pyfunc` and `mlflow models serve` know it.

The description is written by hand: MLflow's own writer imports for seconds, infers requirements, and for scikit-learn
saves a second copy. JSON is YAML, so `MLmodel` is written as JSON.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from slipway.spec import ModelSpec

__all__ = ["describe", "input_columns", "signature"]

_TYPES = {"number": "double", "integer": "long", "category": "string", "text": "string"}
_NEEDS: dict[str, Sequence[str]] = {
    "onnx": ("mlflow", "onnx", "onnxruntime", "numpy", "pandas"),
    "skops": ("mlflow", "scikit-learn", "skops", "numpy", "pandas"),
}


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
    requirements = [f"{name}=={version(name)}" for name in _NEEDS[kind]]
    (folder / "requirements.txt").write_text("\n".join(requirements) + "\n")
    python_env = {"python": platform.python_version(), "dependencies": ["-r requirements.txt"]}
    (folder / "python_env.yaml").write_text(json.dumps(python_env, indent=1))
    model = {
        "artifact_path": "model",
        "flavors": _onnx_flavor() if kind == "onnx" else _skops_flavor(folder),
        "mlflow_version": version("mlflow"),
        "model_size_bytes": (folder / f"model.{kind}").stat().st_size,
        "run_id": run_id,
        "signature": signature(spec),
        "utc_time_created": at.strftime("%Y-%m-%d %H:%M:%S.%f"),
        "metadata": {"classes": list(spec.target.classes or ())},
    }
    (folder / "MLmodel").write_text(json.dumps(model, indent=1))


def _pyfunc(module: str, **more: str) -> Mapping[str, Any]:
    environment = {"virtualenv": "python_env.yaml"}
    return {"env": environment, "loader_module": module, "python_version": platform.python_version(), **more}


def _onnx_flavor() -> dict[str, Any]:
    own = {"code": None, "data": "model.onnx", "onnx_version": version("onnx"), "providers": ["CPUExecutionProvider"]}
    return {"onnx": own, "python_function": _pyfunc("mlflow.onnx", data="model.onnx")}


def _skops_flavor(folder: Path) -> dict[str, Any]:
    own = {
        "code": None,
        "pickled_model": "model.skops",  # MLflow's name for the file, whatever its format
        "serialization_format": "skops",
        "sklearn_version": version("scikit-learn"),
        "skops_trusted_types": json.loads((folder / "types.json").read_text()),
    }
    return {
        "sklearn": own,
        "python_function": _pyfunc("mlflow.sklearn", model_path="model.skops", predict_fn="predict"),
    }
