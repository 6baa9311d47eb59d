"""How far two collections of rows lie apart: in order, in distribution, in what they are made of.

Each measure is a number without dimension, or None where there is nothing to measure.
"""

from collections.abc import Hashable, Mapping

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray


def rank_correlation(
    before: Float[np.ndarray, " rows"], after: Float[np.ndarray, " after"]
) -> float | None:
    """Return Spearman's correlation of two values of the same rows; ties share their mean rank.

    Args:
        before: One value a row.
        after: The other value of the same row.

    Returns:
        -1 (order reversed) to 1 (same order); None for fewer than 2 rows, or where all values of
        one side are equal.

    Raises:
        ValueError: The lengths differ.
    """
    if len(before) != len(after):
        raise ValueError(f"expected two values a row, got {len(before)} and {len(after)} values.")
    if len(before) < 2 or np.ptp(before) == 0 or np.ptp(after) == 0:
        return None
    return float(np.corrcoef(_mean_ranks(before), _mean_ranks(after))[0, 1])


def distribution_distance(
    before: Float[np.ndarray, " before"], after: Float[np.ndarray, " after"]
) -> float | None:
    """Return the Kolmogorov-Smirnov distance: the widest gap between two cumulative shares.

    Returns:
        0 (the same distribution) to 1 (they do not overlap); None where a side is empty.
    """
    if len(before) == 0 or len(after) == 0:
        return None
    first, second = np.sort(before), np.sort(after)
    places = np.concatenate([first, second])
    shares = [np.searchsorted(side, places, side="right") / len(side) for side in (first, second)]
    return float(np.abs(shares[0] - shares[1]).max())


def mix_distance(before: Mapping[Hashable, int], after: Mapping[Hashable, int]) -> float | None:
    """Return the total variation between two mixes: the share that would have to change kind.

    Args:
        before: Number of rows of each kind.
        after: The same of the other side.

    Returns:
        0 (the same shares) to 1 (no kind in common); None where a side is empty.
    """
    totals = sum(before.values()), sum(after.values())
    if not all(totals):
        return None
    kinds = before.keys() | after.keys()
    gaps = [abs(before.get(k, 0) / totals[0] - after.get(k, 0) / totals[1]) for k in kinds]
    return min(sum(sorted(gaps)) / 2, 1.0)


def _mean_ranks(values: Float[np.ndarray, " n"]) -> NDArray[np.float64]:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[place]
    return ranks
