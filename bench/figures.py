"""Statistics of samples: pure, and robust against a machine that does other things as well."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, median, pstdev

__all__ = ["difference", "percentile", "ratio_of_medians", "spread", "trimmed"]


def percentile(samples: Sequence[float], percent: float) -> float:
    """The nearest rank; ValueError for no samples or a percentage that is none."""
    if not samples or not 0 < percent <= 100:
        raise ValueError(f"percentile {percent} of {len(samples)} samples")
    ordered = sorted(samples)
    return ordered[math.ceil(percent / 100 * len(ordered)) - 1]


def ratio_of_medians(samples: Sequence[float], against: Sequence[float]) -> float:
    """How many times the other's median this one's is."""
    return median(samples) / median(against)


def trimmed(samples: Sequence[float], share: float = 0.05) -> list[float]:
    """The samples without the lowest and the highest `share` of them (at least one stays)."""
    cut = min(int(len(samples) * share), (len(samples) - 1) // 2)
    return sorted(samples)[cut : len(samples) - cut]


def spread(samples: Sequence[float]) -> float:
    """The coefficient of variation: standard deviation by mean."""
    return pstdev(samples) / fmean(samples)


def difference(one: Sequence[float], other: Sequence[float]) -> float:
    """The median of the differences of samples that were taken together, pair by pair."""
    return median(a - b for a, b in zip(one, other, strict=True))
