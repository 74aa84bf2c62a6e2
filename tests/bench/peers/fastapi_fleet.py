"""What people write by hand for any table of rows: FastAPI, a pydantic model of the row, scikit-learn.

`BENCH_FIELDS` is a list of [name, kind], `BENCH_CLASSES` the target's classes, or null for a regression.
"""

import json
import os
from typing import Annotated, Any

import joblib
import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel, Field, create_model

NUMBER = Annotated[float | None, Field(allow_inf_nan=False)]
FIELDS = json.loads(os.environ["BENCH_FIELDS"])
CLASSES = json.loads(os.environ["BENCH_CLASSES"])
estimator = joblib.load(os.environ["BENCH_JOBLIB"])
Row: Any = create_model("Row", **{name: (str if kind == "text" else NUMBER, ...) for name, kind in FIELDS})
app = FastAPI()


class Batch(BaseModel):
    rows: list[Row]


def answer(rows: list[Any]) -> list[dict]:
    values = [[getattr(row, name) for name, _ in FIELDS] for row in rows]
    text = any(kind == "text" for _, kind in FIELDS)
    matrix = np.array(values, dtype=object if text else float)
    if CLASSES is None:
        return [{"prediction": value} for value in estimator.predict(matrix).tolist()]
    probabilities = estimator.predict_proba(matrix)
    best = probabilities.argmax(axis=1)
    return [
        {"prediction": CLASSES[index], "probabilities": row}
        for index, row in zip(best.tolist(), probabilities.tolist(), strict=True)
    ]


@app.post("/predict")
def predict(row: Row) -> dict:
    return answer([row])[0]


@app.post("/batch")
def batch(body: Batch) -> list[dict]:
    return answer(body.rows)
