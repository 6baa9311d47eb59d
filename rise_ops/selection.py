"""Which rows are selected by their values: the best k, or all above a threshold.

Ties break by row id, so the same values always select the same rows in the same order. A row
without positions has no value to speak of and is never selected. A selection that cannot be
made as asked is an error, not a smaller selection.
"""

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt32

from rise_ops.scoring import sort_keys


def best_rows(
    values: Float32[np.ndarray, " rows"],
    ranks: UInt32[np.ndarray, " rows"],
    eligible: Bool[np.ndarray, " rows"],
    *,
    top_k: int,
) -> Int64[np.ndarray, " selected"]:
    """Return the positions of the ``top_k`` rows of highest value, best first.

    Args:
        values: float32 [n_rows], finite.
        ranks: uint32 [n_rows], each row's rank among the row ids; breaks ties.
        eligible: bool [n_rows], false for rows without positions.
        top_k: Rows to select, at least 1.

    Raises:
        ValueError: ``top_k`` is below 1 or exceeds the eligible rows.
    """
    n_eligible = int(eligible.sum())
    if not 1 <= top_k <= n_eligible:
        raise ValueError(
            f"top_k is {top_k} but {n_eligible} of {len(values)} rows can be selected; "
            f"choose top_k between 1 and {n_eligible}."
        )
    return _in_order(values, ranks, np.flatnonzero(eligible))[:top_k]


def rows_above(
    values: Float32[np.ndarray, " rows"],
    ranks: UInt32[np.ndarray, " rows"],
    eligible: Bool[np.ndarray, " rows"],
    *,
    min_score: float,
) -> Int64[np.ndarray, " selected"]:
    """Return the positions of all rows whose value is at least ``min_score``, best first.

    Args:
        values: float32 [n_rows], finite.
        ranks: uint32 [n_rows], each row's rank among the row ids; breaks ties.
        eligible: bool [n_rows], false for rows without positions.
        min_score: Least value, compared in float64.

    Raises:
        ValueError: No row reaches the threshold.
    """
    chosen = np.flatnonzero(eligible & (values.astype(np.float64) >= min_score))
    if len(chosen) == 0:
        raise ValueError(_nothing_reaches(values[eligible], min_score))
    return _in_order(values, ranks, chosen)


def _in_order(
    values: Float32[np.ndarray, " rows"],
    ranks: UInt32[np.ndarray, " rows"],
    chosen: Int64[np.ndarray, " selected"],
) -> Int64[np.ndarray, " selected"]:
    return chosen[np.argsort(sort_keys(values[chosen], ranks[chosen]))]


def _nothing_reaches(values: Float32[np.ndarray, " rows"], min_score: float) -> str:
    if len(values) == 0:
        return (
            f"min_score is {min_score} but no row has positions, so none can be selected; "
            "check which positions the index reads."
        )
    return (
        f"min_score is {min_score} but the highest of {len(values)} values is "
        f"{float(values.max()):.6g}, so nothing is selected; lower min_score."
    )
