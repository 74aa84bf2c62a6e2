"""skops: estimators as data. Loading restores only types that are named beforehand, so it executes no foreign code.

Besides the types that skops itself trusts, only those in `REVIEWED` are accepted. A type was reviewed when somebody
read that restoring it from a file runs nothing that the file decides; add one only after doing that.
"""

from __future__ import annotations

import json
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
    """Write `model.skops` and `types.json` (the reviewed types that it needs).

    Raises:
        ArtefactError: the estimator holds a type that nobody reviewed.
    """
    import skops.io

    path = folder / "model.skops"
    skops.io.dump(estimator, path)
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
