"""What a row is worth: one number from its scores for the queries."""

import numpy as np

from storage.queries import QuerySet
from storage.scores import Scores
from tasks.release_config import ReleaseConfig


def row_values(scores: Scores, query_set: QuerySet, config: ReleaseConfig) -> np.ndarray:
    """Return the values of all rows of the index, float32 [rows]."""
    del query_set
    if config.aggregate.kind != "mean":
        raise NotImplementedError
    found: np.ndarray = scores.values().column("value").to_numpy()
    return found
