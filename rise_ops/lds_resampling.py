"""How far an LDS would be another one: for other subsets and queries, and for scores of other rows.

A resample draws subsets and queries together, as queries share their subsets: what one subset does
to all of them is one draw. It is told by how often each was drawn; ranks in a resample are those of
the drawn subsets, equal ones (a subset drawn twice) sharing the mean of theirs.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata

NUMBERS_AT_ONCE = 2_000_000
"""Bounds the foretold losses of shuffled scores in memory, 8 bytes each, some five times over."""
STEPS = 2**30
"""Scores of a query are told apart in so many steps between its lowest and highest."""

Foretold = Float[np.ndarray, "methods subsets queries"]


def whole_scores(scores: Float[np.ndarray, "*rest rows queries"]) -> Float[np.ndarray, "..."]:
    """Return a query's scores as whole numbers from 0, so that equal sums over rows are equal.

    Sums of fractions differ in their last digits by the order of the rows, and ranks would tell
    them apart. Subsets are of one size, so that moving and stretching scores moves no rank.
    """
    wide = scores.astype(np.float64)
    low = wide.min(-2, keepdims=True)
    spread = wide.max(-2, keepdims=True) - low
    return np.rint((wide - low) / np.where(spread > 0, spread, 1.0) * STEPS)


def drawn_counts(n: int, n_resamples: int, *, rng: np.random.Generator) -> Int[np.ndarray, "..."]:
    """Return how often each of ``n`` is in a resample of ``n``, int64 [resamples, n]."""
    return rng.multinomial(n, np.full(n, 1.0 / n), size=n_resamples)


def resampled_correlations(
    foretold: Foretold,
    losses: Float[np.ndarray, "subsets queries"],
    counts: Int[np.ndarray, "resamples subsets"],
) -> Iterator[Float[np.ndarray, "methods resamples"]]:
    """Yield, query by query, the rank correlations of foretold and real over the drawn subsets.

    Args:
        foretold: Of each method, subset and query; higher: a lower loss.
        losses: What came.
        counts: How often a resample holds a subset.
    """
    weights = counts.T.astype(np.float32)
    for query in range(losses.shape[1]):
        left = _centered_ranks(foretold[:, :, query], weights)
        right = _centered_ranks(-losses[None, :, query], weights)
        products = (left * (right * weights)).sum(1)
        lengths = np.sqrt((left**2 * weights).sum(1) * (right**2 * weights).sum(1))
        yield np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)


def shuffled_correlations(
    scores: Float[np.ndarray, "methods rows queries"],
    subsets: Bool[np.ndarray, "subsets rows"],
    losses: Float[np.ndarray, "subsets queries"],
    orders: Int[np.ndarray, "shuffles rows"],
) -> Float[np.ndarray, "methods shuffles"]:
    """Return the LDS of scores that were given to other rows, the same ones for all methods.

    Args:
        scores: As `whole_scores` gives them.
        subsets: Whether a row is in a subset.
        losses: Of each query after each subset.
        orders: Of each shuffle, the row that gets a row's scores.
    """
    n_methods, n_rows, n_queries = scores.shape
    columns = scores.transpose(1, 0, 2).reshape(n_rows, -1)
    real = _unit(rankdata(-losses.T, axis=-1))
    members = subsets.astype(np.float64)
    at_once = max(1, NUMBERS_AT_ONCE // (len(subsets) * columns.shape[1]))
    parts = []
    for first in range(0, len(orders), at_once):
        moved = members[:, orders[first : first + at_once]].transpose(1, 0, 2)
        foretold = (moved @ columns).transpose(0, 2, 1)
        shape = (len(foretold), n_methods, n_queries, len(subsets))
        ranks = _unit(rankdata(foretold, axis=-1)).reshape(shape)
        parts.append(np.einsum("bmqs,qs->mb", ranks, real) / n_queries)
    return np.concatenate(parts, axis=1)


def _centered_ranks(
    values: Float[np.ndarray, "methods subsets"], weights: Float[np.ndarray, "subsets resamples"]
) -> Float[np.ndarray, "methods subsets resamples"]:
    """Return twice the ranks among the drawn, less their mean: how many lie below less above."""
    below = np.sign(values[:, :, None] - values[:, None, :]).astype(np.float32)
    return np.asarray(below @ weights)


def _unit(ranks: Float[np.ndarray, "*rest items"]) -> Float[np.ndarray, "*rest items"]:
    """Return ranks (from 1) about their mean, of length 1; zeros where all are equal."""
    centered = ranks - (ranks.shape[-1] + 1) / 2
    lengths = np.sqrt((centered**2).sum(-1, keepdims=True))
    return np.divide(centered, lengths, out=np.zeros_like(centered), where=lengths > 0)
