"""The types that a skops file may hold besides those that skops itself trusts.

The pipeline has the same list (`slipway/adapters/skops.py`), and a test keeps the two equal; the reasons are there.
"""

from __future__ import annotations

__all__ = ["REVIEWED"]

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
