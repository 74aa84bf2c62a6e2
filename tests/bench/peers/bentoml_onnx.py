"""BentoML as its documentation shows it: `@bentoml.api` with typed fields."""

import os

import bentoml
import numpy as np
import onnxruntime
from pydantic import BaseModel, Field

CLASSES = ("setosa", "versicolor", "virginica")


class Flower(BaseModel):
    sepal_length: float = Field(ge=0, le=30)
    sepal_width: float = Field(ge=0, le=30)
    petal_length: float = Field(ge=0, le=30)
    petal_width: float = Field(ge=0, le=30)


@bentoml.service(workers=1)
class Forest:
    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            os.environ["BENCH_ONNX"], options, providers=["CPUExecutionProvider"]
        )

    def answer(self, rows: list[Flower]) -> list[dict]:
        matrix = [[row.sepal_length, row.sepal_width, row.petal_length, row.petal_width] for row in rows]
        labels, probabilities = self.session.run(None, {"input": np.array(matrix, np.float32)})
        return [
            {"prediction": CLASSES[index], "probabilities": row}
            for index, row in zip(labels.tolist(), probabilities.tolist(), strict=True)
        ]

    @bentoml.api
    async def predict(self, sepal_length: float, sepal_width: float, petal_length: float, petal_width: float) -> dict:
        row = Flower(
            sepal_length=sepal_length, sepal_width=sepal_width, petal_length=petal_length, petal_width=petal_width
        )
        return self.answer([row])[0]

    @bentoml.api
    async def batch(self, rows: list[Flower]) -> list[dict]:
        return self.answer(rows)
