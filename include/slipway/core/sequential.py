"""Statistics that may be looked at after every request without losing their error rates.

A rollout is looked at several times a second, so a test with a fixed sample would fail an equal version sooner
or later. These hold at all times at once: e-processes (Ville's inequality: one that is expected not to grow ever
exceeds 1/alpha with a probability of at most alpha) and bounds whose error rates add up over the looks.

NumPy and SciPy are imported where they are used: a rollback compares nothing and must not wait for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from math import exp, inf, log, sqrt

__all__ = ["Gap", "ks_distance", "share_above", "share_upper_bound", "spend", "total_variation", "worsening"]

_MIX = 0.5  # Jeffreys' weights


class Gap:
    """An estimate with the bounds between which it lies with a confidence that holds at every look."""

    def __init__(self, estimate: float, radius: float) -> None:
        self.estimate, self.radius = estimate, radius

    @property
    def lower(self) -> float:
        return self.estimate - self.radius

    @property
    def upper(self) -> float:
        return self.estimate + self.radius


def share_above(hits: int, trials: int, limit: float) -> float:
    """The e-value against "the share of hits is at most `limit`"; 1/alpha or more rejects it at any time.

    A mixture of likelihood ratios over all shares above the limit (Robbins 1970, one-sided beta mixture).

    >>> share_above(0, 1000, 0.01) < 1
    True
    >>> share_above(40, 1000, 0.01) > 1000
    True
    """
    from scipy.special import betainc, betaln

    if trials == 0 or limit >= 1:
        return 1.0
    if limit <= 0:
        return inf if hits else 1.0
    a, b = hits + _MIX, trials - hits + _MIX
    tail, prior_tail = 1 - betainc(a, b, limit), 1 - betainc(_MIX, _MIX, limit)
    if tail <= 0:
        return 0.0
    mixed = betaln(a, b) - betaln(_MIX, _MIX) + log(tail) - log(prior_tail)
    null = hits * log(limit) + (trials - hits) * log(1 - limit)
    return exp(min(mixed - null, 700.0))


def share_upper_bound(hits: int, trials: int, confidence: float = 0.99) -> float:
    """The largest share that so few hits leave possible (Clopper and Pearson 1934).

    >>> round(share_upper_bound(0, 921), 4)
    0.005
    """
    from scipy.special import betaincinv

    return 1.0 if hits >= trials else float(betaincinv(hits + 1, trials - hits, confidence))


def spend(alpha: float, look: int) -> float:
    """The error rate of the k-th look, k from 1; all together never spend more than `alpha`."""
    return alpha / (look * (look + 1))


def total_variation(new: Sequence[Hashable], old: Sequence[Hashable], alpha: float) -> Gap:
    """Half the sum of differences between two samples' class shares.

    Its deviation is bounded for each sample by Weissman et al. 2003: P(|p - q|_1 >= e) <= 2^k exp(-n e^2 / 2).
    """
    first, second = Counter(new), Counter(old)
    classes = first.keys() | second.keys()
    distance = sum(abs(first[c] / len(new) - second[c] / len(old)) for c in classes) / 2
    bits = len(classes) * log(2) + log(2 / alpha)
    return Gap(distance, sum(sqrt(bits / (2 * n)) for n in (len(new), len(old))))


def ks_distance(new: Sequence[float], old: Sequence[float], alpha: float) -> Gap:
    """The largest difference of two samples' distribution functions, bounded for each by Massart 1990 (DKW)."""
    import numpy as np

    first, second = np.sort(np.asarray(new, float)), np.sort(np.asarray(old, float))
    both = np.concatenate([first, second])
    cdfs = (np.searchsorted(side, both, side="right") / len(side) for side in (first, second))
    distance = float(np.max(np.abs(next(cdfs) - next(cdfs))))
    return Gap(distance, sum(sqrt(log(4 / alpha) / (2 * n)) for n in (len(new), len(old))))


def worsening(new: Sequence[float], old: Sequence[float] | None, alpha: float, scale: float) -> Gap:
    """Mean loss of `new` less that of `old` (of the pairs' differences when `old` is None), valid at every look.

    The mixture sequential probability ratio test with a normal mixture of variance scale^2 (Johari, Pekelis and
    Walsh 2015), turned into bounds. Variances are shrunk upwards, so that a few equal losses prove nothing.
    """
    import numpy as np

    losses = [np.asarray(side, float) for side in (new, old) if side is not None]
    estimate = float(losses[0].mean() - (losses[1].mean() if old is not None else 0.0))
    noise = sum((float(side.var()) + scale**2 / len(side)) / len(side) for side in losses)
    mixture = scale**2
    spread = 2 * noise * (noise + mixture) / mixture
    return Gap(estimate, sqrt(spread * (log(2 / alpha) + 0.5 * log((noise + mixture) / noise))))
