"""Stand-in: the mean alone."""

import numpy as np
from numpy.typing import NDArray

from storage.queries import QuerySet
from storage.scores import Scores
from tasks.release_config import ReleaseConfig


def row_values(scores: Scores, query_set: QuerySet, config: ReleaseConfig) -> NDArray[np.float32]:
    """Return each row's value, float32 [rows]."""
    del query_set, config
    values: NDArray[np.float32] = scores.values().column("value").to_numpy()
    return values
