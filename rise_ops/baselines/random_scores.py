"""What does chance give? A random score for every row and query."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32


def random_scores(
    row_texts: Sequence[str], query_texts: Sequence[str], *, seed: int
) -> Float32[np.ndarray, "rows queries"]:
    """Return independent uniform scores in [0, 1).

    Args:
        row_texts: One text a row; only their number matters.
        query_texts: One text a query; only their number matters.
        seed: Seed, 0 or more.
    """
    shape = (len(row_texts), len(query_texts))
    return np.random.default_rng(seed).random(shape, dtype=np.float32)
