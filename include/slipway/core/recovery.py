"""Whether a retrain that drift asked for heals: comes back to what the champion reached before the loss.

Labels that are wrong can make a challenger look better than the champion, but where no feature tells which are wrong,
no model explains them: on such rows both stay far below what the champion reached at its own gate. A challenger that
contradicts older rows has to be shown to heal, by a bound; for any other the value itself is enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slipway.core.metrics import GREATER_IS_BETTER

__all__ = ["Healing", "Recovery", "heal"]


@dataclass(frozen=True)
class Recovery:
    """What a challenger has to come back to.

    Attributes:
        baseline: the champion's metric on the held-out rows of its own gate.
        band: the largest relative worsening of it that is no loss (`RetrainPolicy.loss_band`).
        proof: the bound of the worsening has to lie within the band, not only its value.
    """

    baseline: float
    band: float
    proof: bool = True


@dataclass(frozen=True)
class Healing:
    """The loss that a challenger leaves, as a share of the baseline, and how large it may be; positive is worse."""

    loss: float
    bound: float
    healed: bool
    said: str


def heal(metric: str, value: float, drawn: NDArray[np.float64], level: float, wanted: Recovery) -> Healing:
    """Judge the challenger's `value` on fresh rows.

    Args:
        drawn: the metric in each resample of these rows.
        level: the quantile that bounds it from the bad side, see `resample.lower_level`.
    """
    sign, scale = (1.0 if GREATER_IS_BETTER[metric] else -1.0), max(abs(wanted.baseline), 1e-12)
    losses = sign * (wanted.baseline - drawn[np.isfinite(drawn)]) / scale
    loss = sign * (wanted.baseline - value) / scale
    bound = float(np.quantile(losses, 1 - level)) if losses.size else math.nan
    healed = (bound if wanted.proof else loss) <= wanted.band  # nan never heals
    said = (
        f"{'not shown to' if wanted.proof else 'does not'} heal: {metric} {value:.6g} on fresh rows is {loss:.1%} "
        f"worse than the {wanted.baseline:.6g} of the champion's own gate, at most {bound:.1%}, "
        f"{wanted.band:.1%} allowed; look at the labels"
    )
    return Healing(loss, bound, healed, said)
