"""What of a row's value is not just its length?"""

import numpy as np
from jaxtyping import Float32, Int32


def without_length(
    values: Float32[np.ndarray, " rows"], n_positions: Int32[np.ndarray, " rows"]
) -> Float32[np.ndarray, " rows"]:
    """Return values less what the log of the row's length foretells of them.

    ``value - slope (log n - mean of log n)`` with the slope of least squares over rows that have
    positions: their mean stays, and no linear trend in log length is left.

    Args:
        values: Of every row.
        n_positions: Predicted positions of each row; rows without any keep their value.
    """
    has = n_positions > 0
    if not has.any():
        return values
    lengths = np.log(n_positions[has].astype(np.float64))
    lengths -= lengths.mean()
    spread = float((lengths**2).sum())
    if spread <= 1e-12 * len(lengths):  # all alike, but for rounding
        return values
    wide = values[has].astype(np.float64)
    slope = float((lengths * (wide - wide.mean())).sum()) / spread
    corrected = values.copy()
    corrected[has] = (wide - slope * lengths).astype(np.float32)
    return corrected
