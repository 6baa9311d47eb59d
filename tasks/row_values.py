"""Stand-in."""

import numpy as np
from numpy.typing import NDArray
from storage.queries import QuerySet
from storage.scores import Scores
from tasks.release_config import ReleaseConfig


def row_values(scores: Scores, query_set: QuerySet, config: ReleaseConfig) -> NDArray[np.float32]:
    """Return values."""
    return scores.values().column("value").to_numpy()
