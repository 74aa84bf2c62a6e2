"""The same by hand with ONNX Runtime on one thread, in the event loop, as a model of microseconds allows."""

import os

import numpy as np
import onnxruntime
from fastapi import FastAPI
from pydantic import BaseModel, Field

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["BENCH_ONNX"], options, providers=["CPUExecutionProvider"])
CLASSES = ("setosa", "versicolor", "virginica")
app = FastAPI()


class Flower(BaseModel):
    sepal_length: float = Field(ge=0, le=30, allow_inf_nan=False)
    sepal_width: float = Field(ge=0, le=30, allow_inf_nan=False)
    petal_length: float = Field(ge=0, le=30, allow_inf_nan=False)
    petal_width: float = Field(ge=0, le=30, allow_inf_nan=False)


class Batch(BaseModel):
    rows: list[Flower]


def answer(rows: list[Flower]) -> list[dict]:
    matrix = [[row.sepal_length, row.sepal_width, row.petal_length, row.petal_width] for row in rows]
    labels, probabilities = session.run(None, {"input": np.array(matrix, np.float32)})
    return [
        {"prediction": CLASSES[index], "probabilities": row}
        for index, row in zip(labels.tolist(), probabilities.tolist(), strict=True)
    ]


@app.post("/predict")
async def predict(flower: Flower) -> dict:
    return answer([flower])[0]


@app.post("/batch")
async def batch(body: Batch) -> list[dict]:
    return answer(body.rows)
