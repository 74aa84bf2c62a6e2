"""skops: estimators as data. Loading restores only types that are named beforehand, so it executes no foreign code.

Besides the types that skops itself trusts, only those in `REVIEWED` are accepted. A type was reviewed when somebody
read that restoring it from a file runs nothing that the file decides; add one only after doing that.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from slipway.errors import ArtefactError

__all__ = ["REVIEWED", "dump", "load"]

REVIEWED = frozenset(
    {
        "sklearn.tree._tree.Tree",  # C struct of arrays; __setstate__ checks dtypes and shapes
        "sklearn._loss._loss.CyHalfMultinomialLoss",
        "sklearn._loss._loss.CyHalfBinomialLoss",
        "sklearn._loss._loss.CyHalfSquaredError",
        "sklearn._loss.link.IdentityLink",
        "sklearn._loss.link.Interval",
        "sklearn._loss.link.LogitLink",
        "sklearn._loss.link.MultinomialLogit",
        "sklearn._loss.loss.HalfBinomialLoss",
        "sklearn._loss.loss.HalfMultinomialLoss",
        "sklearn._loss.loss.HalfSquaredError",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.linear_model._sgd_fast.Hinge",
        "sklearn.linear_model._sgd_fast.Log",
        "sklearn.linear_model._sgd_fast.ModifiedHuber",
        "numpy.dtype",
    }
)


def dump(estimator: Any, folder: Path) -> None:
    """Write `model.skops` and `types.json` (the reviewed types that it needs); the same estimator gives the same bytes.

    Raises:
        ArtefactError: the estimator holds a type that nobody reviewed.
    """
    import skops.io

    path = folder / "model.skops"
    skops.io.dump(estimator, path)
    _make_canonical(path)
    (folder / "types.json").write_text(json.dumps(_types(path)))


def load(folder: Path) -> Any:
    """The estimator of `model.skops`.

    Raises:
        ArtefactError: the file cannot be read, or holds a type that nobody reviewed.
    """
    import skops.io

    path = folder / "model.skops"
    try:
        return skops.io.load(path, trusted=_types(path))
    except ArtefactError:
        raise
    except Exception as error:  # a damaged archive raises whatever its reader meets first
        raise ArtefactError(f"{path.name} cannot be read ({type(error).__name__}); train again") from error


def _types(path: Path) -> list[str]:
    import skops.io

    needed = sorted(skops.io.get_untrusted_types(file=path))
    foreign = [name for name in needed if name not in REVIEWED]
    if foreign:
        raise ArtefactError(
            f"{path.name} needs types that nobody reviewed: {', '.join(foreign)}; see adapters/skops.py"
        )
    return needed


def _make_canonical(path: Path) -> None:
    """Replace what differs between two writings of the same estimator: addresses in memory, random names, times, and
    the order of sets."""
    with zipfile.ZipFile(path) as archive:
        state = json.loads(archive.read("schema.json"))
        members = {name: archive.read(name) for name in archive.namelist() if name != "schema.json"}
    _sort_sets(state)
    numbers: dict[int, int] = {}
    names: dict[str, str] = {}
    _rename(state, numbers, names)
    with zipfile.ZipFile(path, "w") as archive:
        for name, renamed in names.items():
            archive.writestr(zipfile.ZipInfo(renamed), members[name])
        archive.writestr(zipfile.ZipInfo("schema.json"), json.dumps(state, indent=1))


def _rename(state: Any, numbers: dict[int, int], names: dict[str, str]) -> None:
    """Ids and file names become numbers, in the order in which they are met."""
    if isinstance(state, list):
        for item in state:
            _rename(item, numbers, names)
    if isinstance(state, dict):
        if isinstance(state.get("_stop_words_id"), dict):  # the address at which scikit-learn checked a list of words
            state["_stop_words_id"]["content"] = "0"
        if isinstance(state.get("__id__"), int):
            state["__id__"] = numbers.setdefault(state["__id__"], len(numbers) + 1)
        if "__loader__" in state and isinstance(state.get("file"), str):
            suffix = Path(state["file"]).suffix
            state["file"] = names.setdefault(state["file"], f"{len(names) + 1}{suffix}")
        for item in state.values():
            _rename(item, numbers, names)


def _sort_sets(state: Any) -> None:
    """The members of sets of plain values in order; others are left as they came."""
    if isinstance(state, list):
        for item in state:
            _sort_sets(item)
    if isinstance(state, dict):
        if state.get("__loader__") == "SetNode" and all(
            one.get("__loader__") == "JsonNode" for one in state["content"]
        ):
            state["content"].sort(key=lambda one: json.dumps(one["content"]))
        for item in state.values():
            _sort_sets(item)
