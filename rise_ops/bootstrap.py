"""How sure is a mean over queries? The percentile bootstrap (Efron 1979), queries drawn anew."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

N_RESAMPLES = 2_000
LEVEL = 0.95
RESAMPLES_AT_ONCE = 256
"""Bounds the drawn indices in memory."""


@dataclass(frozen=True)
class Interval:
    """Ends of an interval."""

    low: float
    high: float


def interval_of(resampled: Float[np.ndarray, " resamples"], *, level: float = LEVEL) -> Interval:
    """Return the ends that hold the middle ``level`` of resampled values."""
    low, high = np.quantile(resampled, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(float(low), float(high))


def bootstrap_mean(
    per_query: Float[np.ndarray, " queries"],
    *,
    rng: np.random.Generator,
    n_resamples: int = N_RESAMPLES,
    level: float = LEVEL,
) -> Interval | None:
    """Return the interval of the mean; None with fewer than two values.

    Queries that share positives are not independent: then the interval speaks of further queries
    for the same rows, not of further tasks.

    Args:
        per_query: One value a query; NaN where it has none, left out.
        rng: Draws the resamples.
        n_resamples: How often the queries are drawn, 1 or more.
        level: Share of resampled means within, above 0 and below 1.

    Raises:
        ValueError: A parameter is outside its range.
    """
    if n_resamples < 1 or not 0.0 < level < 1.0:
        raise ValueError(f"got n_resamples={n_resamples} (least 1), level={level} (0 to 1).")
    values = np.asarray(per_query, dtype=np.float64)
    values = values[~np.isnan(values)]
    if values.size < 2:
        return None
    means = np.empty(n_resamples)
    for first in range(0, n_resamples, RESAMPLES_AT_ONCE):
        part = means[first : first + RESAMPLES_AT_ONCE]
        part[:] = values[rng.integers(values.size, size=(part.size, values.size))].mean(axis=1)
    return interval_of(means, level=level)
