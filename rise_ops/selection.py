"""In which order rows come: by value, ties by row id.

The same values always give the same order. A row without positions has no value to speak of and is
never in it.
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt32

from rise_ops.scoring import sort_keys

Prefer = Literal["highest", "lowest"]


def value_order(
    values: Float32[np.ndarray, " rows"],
    ranks: UInt32[np.ndarray, " rows"],
    eligible: Bool[np.ndarray, " rows"],
    *,
    prefer: Prefer,
) -> Int64[np.ndarray, " eligible"]:
    """Return the positions of the eligible rows, preferred values first.

    Args:
        values: float32 [n_rows], finite.
        ranks: uint32 [n_rows], each row's rank among the row ids; breaks ties, lower first.
        eligible: bool [n_rows], false for rows that cannot be selected.
        prefer: Highest or lowest values first.
    """
    rows = np.flatnonzero(eligible)
    return rows[np.argsort(sort_keys(preference(values[rows], prefer), ranks[rows]))]


def preference(
    values: Float32[np.ndarray, " rows"], prefer: Prefer
) -> Float32[np.ndarray, " rows"]:
    """Return values that are higher the more a row is preferred."""
    return values if prefer == "highest" else -values


def reaches(
    values: Float32[np.ndarray, " rows"], limit: float, prefer: Prefer
) -> Bool[np.ndarray, " rows"]:
    """Tell which values are at least ``limit``, or with lowest preferred at most; in float64."""
    wide = values.astype(np.float64)
    return wide >= limit if prefer == "highest" else wide <= limit
