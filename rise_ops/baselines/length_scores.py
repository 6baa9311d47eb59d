"""How far does it get to prefer long rows? Every other method is read beside this one."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32


def length_scores(
    row_lengths: Sequence[int], *, n_queries: int
) -> Float32[np.ndarray, "rows queries"]:
    """Return each row's length as its score for every query.

    Args:
        row_lengths: In tokens, words or characters.
        n_queries: Queries.
    """
    lengths = np.asarray(row_lengths, dtype=np.float32)
    return np.repeat(lengths[:, None], n_queries, axis=1)
