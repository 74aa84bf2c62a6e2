"""Numbers that describe a text: what drift is looked for in where a feature is text.

Raw texts are all different, so comparing them tells nothing. Their length and the shares of kinds of characters do:
they move when another language, another program or a broken encoding comes in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from slipway.core.encoding import is_missing

__all__ = ["TEXT_MEASURES", "measure_texts", "text_columns"]

TEXT_MEASURES = (
    "length",
    "line length",
    "letters",
    "capitals",
    "digits",
    "whitespace",
    "punctuation",
    "beyond ascii",
)


def text_columns(feature: str) -> tuple[str, ...]:
    """The columns that stand for a text feature; no feature can have such a name, as it holds a space.

    >>> text_columns("note")[:2]
    ('note length', 'note line length')
    """
    return tuple(f"{feature} {measure}" for measure in TEXT_MEASURES)


def measure_texts(feature: str, texts: Iterable[object]) -> dict[str, NDArray[np.float64]]:
    """(n,) numbers by column name; NaN where a text is missing.

    `length` is in characters, `line length` the mean of the text's lines; all others are shares of the characters, 0
    for an empty text.

    >>> {name: value.tolist() for name, value in measure_texts("t", ["aB 1!"]).items()}["t letters"]
    [0.4]
    """
    rows = np.array([_measure(text) for text in texts], dtype=np.float64).reshape(-1, len(TEXT_MEASURES))
    return {name: rows[:, index] for index, name in enumerate(text_columns(feature))}


def _measure(text: object) -> Sequence[float]:
    if is_missing(text):
        return [np.nan] * len(TEXT_MEASURES)
    value = str(text)
    length = len(value)
    letters = sum(map(str.isalpha, value))
    digits = sum(map(str.isdigit, value))
    space = sum(map(str.isspace, value))
    counts = (
        letters,
        sum(map(str.isupper, value)),
        digits,
        space,
        length - letters - digits - space,
        sum(character > "\x7f" for character in value),
    )
    return [float(length), length / (value.count("\n") + 1), *(count / max(length, 1) for count in counts)]
