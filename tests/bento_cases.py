"""Small hand-made bentos, and a way to talk to the predictor's ASGI app without a server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from predictor.config import Config
from predictor.engine import Engine
from predictor.front import Front
from predictor.turns import Turns

CLASSES = ("setosa", "versicolor", "virginica")
WEIGHTS = np.array([[0.4, 1.4, -2.2, -1.0], [0.3, -0.3, 0.5, -0.9], [-0.7, -1.1, 1.7, 1.9]], np.float32)
ROW = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
ROW_2 = {"sepal_length": 6.9, "sepal_width": 3.1, "petal_length": 5.9, "petal_width": 2.2}


def iris_schema() -> dict[str, Any]:
    features = [{"name": name, "kind": "number", "unit": "cm", "minimum": 0.0, "maximum": 30.0} for name in ROW]
    return {
        "model": "iris",
        "task": "classification",
        "features": features,
        "target": {"name": "species", "classes": CLASSES},
    }


def softmax(rows: list[dict[str, float]]) -> np.ndarray:
    scores = np.array([list(row.values()) for row in rows], np.float32) @ WEIGHTS.T
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def linear_classifier() -> bytes:
    import onnx
    from onnx import TensorProto, helper

    node = helper.make_node(
        "LinearClassifier",
        ["input"],
        ["label", "probabilities"],
        domain="ai.onnx.ml",
        coefficients=WEIGHTS.ravel().tolist(),
        intercepts=[0.0] * 3,
        classlabels_ints=[0, 1, 2],
        post_transform="SOFTMAX",
    )
    outputs = [
        helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 3]),
    ]
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, 4])]
    graph = helper.make_graph([node], "iris", inputs, outputs)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    content: bytes = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    return content


def linear_regressor(coefficients: list[float]) -> bytes:
    import onnx
    from onnx import TensorProto, helper

    node = helper.make_node(
        "LinearRegressor", ["input"], ["variable"], domain="ai.onnx.ml", coefficients=coefficients, intercepts=[1.0]
    )
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [None, len(coefficients)])]
    outputs = [helper.make_tensor_value_info("variable", TensorProto.FLOAT, [None, 1])]
    graph = helper.make_graph([node], "house", inputs, outputs)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    content: bytes = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    return content


def write_iris(folder: Path, *, version: str = "3", wrong: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    probabilities = softmax([ROW, ROW_2])
    predictions = [CLASSES[index] for index in probabilities.argmax(axis=1)]
    golden = {
        "rows": [ROW, ROW_2],
        "predictions": predictions,
        "probabilities": probabilities.tolist(),
        "tolerance": 1e-5,
    }
    if wrong:
        golden["predictions"] = ["versicolor", "versicolor"]
    identity = {"model": "iris", "version": version, "bento_tag": f"iris:v{version}", "format": "onnx"}
    (folder / "model.onnx").write_bytes(linear_classifier())
    (folder / "schema.json").write_text(json.dumps(iris_schema()))
    (folder / "golden.json").write_text(json.dumps(golden))
    (folder / "identity.json").write_text(json.dumps(identity))
    return folder


def write_house(folder: Path) -> Path:
    """A regression with every kind of numeric field: price = 1 + 2 area + rooms + 0.5 age."""
    folder.mkdir(parents=True, exist_ok=True)
    features = [
        {"name": "area", "kind": "number"},
        {"name": "rooms", "kind": "integer", "minimum": 0},
        {"name": "age", "kind": "number", "nullable": True},
    ]
    schema = {"model": "house", "task": "regression", "features": features, "target": {"name": "price"}}
    golden = {"rows": [{"area": 10.0, "rooms": 3, "age": 4.0}], "predictions": [26.0]}
    (folder / "model.onnx").write_bytes(linear_regressor([2.0, 1.0, 0.5]))
    (folder / "schema.json").write_text(json.dumps(schema))
    (folder / "golden.json").write_text(json.dumps(golden))
    (folder / "identity.json").write_text(json.dumps({"model": "house", "version": "1"}))
    return folder


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


async def inner_app(scope: Any, receive: Any, send: Any) -> None:
    """Stands for BentoML's app: speaks lifespan and answers everything with 418."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body", "body": b"inner"})


class Client:
    """Speaks ASGI to a `Front`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        if engine.config.max_queue_ms == Config.max_queue_ms:
            # Without sockets the loop hardly turns: all requests of a test look like one overlong turn.
            engine.turns = Turns(60.0)
        self.front = Front(inner_app, engine)

    @asynccontextmanager
    async def lifespan(self) -> Any:
        to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        task = asyncio.create_task(self.front({"type": "lifespan"}, to_app.get, from_app.put))
        to_app.put_nowait({"type": "lifespan.startup"})
        assert (await from_app.get())["type"] == "lifespan.startup.complete"
        try:
            yield self
        finally:
            to_app.put_nowait({"type": "lifespan.shutdown"})
            assert (await from_app.get())["type"] == "lifespan.shutdown.complete"
            await task

    async def request(
        self, method: str, path: str, body: bytes | list[bytes] = b"", headers: dict[str, str] | None = None
    ) -> Response:
        chunks = [body] if isinstance(body, bytes) else list(body)
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            if not chunks:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

        async def send(message: Any) -> None:
            sent.append(message)

        pairs = [(key.encode(), value.encode()) for key, value in (headers or {}).items()]
        await self.front({"type": "http", "method": method, "path": path, "headers": pairs}, receive, send)
        if not sent:
            return Response(0, {}, b"")
        answer = {key.decode(): value.decode() for key, value in sent[0]["headers"]}
        return Response(sent[0]["status"], answer, b"".join(message["body"] for message in sent[1:]))

    async def post(self, path: str, body: Any, **headers: str) -> Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return await self.request("POST", path, content, {"content-type": "application/json", **named})

    async def get(self, path: str) -> Response:
        return await self.request("GET", path)

    async def metric(self, name: str, **labels: str) -> float:
        text = (await self.get("/metrics")).body.decode()
        for line in text.splitlines():
            key, _, value = line.rpartition(" ")
            if key.split("{")[0] == name and all(f'{label}="{want}"' in key for label, want in labels.items()):
                return float(value)
        return 0.0


Serve = Callable[..., None]


def read_frames(path: Path) -> list[Any]:
    """Header and records of a segment, read independently of both implementations."""
    import struct
    from zlib import crc32

    data, offset, result = path.read_bytes(), 0, []
    while offset < len(data):
        length, checksum = struct.unpack_from("<II", data, offset)
        payload = data[offset + 8 : offset + 8 + length]
        assert crc32(payload) == checksum
        result.append(json.loads(payload) if not result else msgspec.msgpack.decode(payload))
        offset += 8 + length
    return result


def segments(folder: Path, state: str = "*") -> list[Path]:
    return sorted(path for kind in ("predictions", "labels") for path in folder.glob(f"{kind}/*/*.{state}"))
