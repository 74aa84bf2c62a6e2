"""How a bad version misbehaves. The harness of challengers puts this file into a bento, beside `predictor/model.py`."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from predictor.model import Model, Outcome
from predictor.schema import Row, Schema

PRIMES = (7.13, 3.71, 1.57, 0.83)
WRONG_SHARE = {"better": 0.0, "shifted": 0.35}
CHAMPIONS_WRONG_SHARE = 0.06


def mark(row: Row) -> float:
    """A number in [0, 1) that a row always has; of the golden rows 0.71, 0.47 and 0.79."""
    return sum(float(value) * prime for value, prime in zip(row, PRIMES, strict=True)) % 1.0


class Misbehaving:
    """A loaded model that is slow, raises, crashes or answers wrongly, as its kind says."""

    def __init__(self, inner: Model, kind: str) -> None:
        self._inner, self._kind = inner, kind
        self._wrong = WRONG_SHARE.get(kind, CHAMPIONS_WRONG_SHARE)
        self._wrong_answer = "virginica" if kind == "shifted" else "setosa"
        if kind == "crashes_after_30_s":
            threading.Timer(30.0, os._exit, (1,)).start()

    def infer_one(self, row: Row) -> Outcome:
        return self.infer([row])

    def infer(self, rows: Sequence[Row]) -> Outcome:
        outcome = self._inner.infer(rows)
        marks = [mark(row) for row in rows]
        if self._kind == "slow":
            time.sleep(0.02)
        if self._kind == "raises_on_1_per_cent" and min(marks) < 0.01:
            raise RuntimeError("a row that this version cannot take")
        for number, found in enumerate(marks):
            if 0.1 <= found < 0.1 + self._wrong:
                outcome.predictions[number] = self._wrong_answer
        return outcome


def misbehaving(load: Callable[[Path, Schema], Model], kind: str) -> Callable[[Path, Schema], Model]:
    """`load_model` for a version of this kind."""
    return lambda folder, schema: Misbehaving(load(folder, schema), kind)
