"""What people write by hand: FastAPI, a pydantic model of the row, scikit-learn."""

import os

import joblib
from fastapi import FastAPI
from pydantic import BaseModel, Field

forest = joblib.load(os.environ["BENCH_JOBLIB"])
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
    probabilities = forest.predict_proba(matrix)
    best = probabilities.argmax(axis=1)
    return [
        {"prediction": CLASSES[index], "probabilities": row}
        for index, row in zip(best.tolist(), probabilities.tolist(), strict=True)
    ]


@app.post("/predict")
def predict(flower: Flower) -> dict:
    return answer([flower])[0]


@app.post("/batch")
def batch(body: Batch) -> list[dict]:
    return answer(body.rows)
