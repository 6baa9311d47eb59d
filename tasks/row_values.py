"""What a row is worth for a query set: its scores for the single queries, made one value.

The mean is stored with the scores. Everything else is read from the full score matrix, block by
block; memory is bounded by the values and, for ranks, by a few queries' columns at a time.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from rise_ops.scoring import sort_keys
from rise_ops.values import without_length
from storage.errors import NotFoundError
from storage.queries import QuerySet
from storage.scores import Scores
from tasks.release_config import (
    Aggregate,
    MaxOfQueries,
    MeanOfQueries,
    QueryGroups,
    RankFusion,
    ReleaseConfig,
)
from tasks.selection_problem import row_id_ranks

COLUMN_BYTES = 2**28
"""Memory for the columns of the matrix that are ranked at once."""


def row_values(scores: Scores, query_set: QuerySet, config: ReleaseConfig) -> NDArray[np.float32]:
    """Return the value of every scored row, float32 [rows], in the order of the index.

    Args:
        scores: Stored scores; with their matrix unless the mean is asked for.
        query_set: The queries that were scored.
        config: Its ``aggregate`` and ``length_correction`` are used.

    Raises:
        NotFoundError: The matrix is needed and was not kept.
        ValueError: A group names a label that no query has.
    """
    values = _aggregated(scores, query_set, config.aggregate)
    if config.length_correction == "regression":
        values = without_length(values, scores.values().column("n_positions").to_numpy())
    return values


def _aggregated(scores: Scores, query_set: QuerySet, aggregate: Aggregate) -> NDArray[np.float32]:
    if isinstance(aggregate, MeanOfQueries):
        stored: NDArray[np.float32] = scores.values().column("value").to_numpy()
        return stored
    _require_matrix(scores, aggregate)
    if isinstance(aggregate, MaxOfQueries):
        return _by_block(scores, lambda block: block.max(axis=1))
    if isinstance(aggregate, RankFusion):
        return _fused(scores, aggregate.constant)
    groups = _groups(query_set, aggregate)
    within = np.max if aggregate.within == "max" else np.mean

    def weighted(block: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.zeros(len(block))
        for columns, weight in groups:
            total += weight * within(block[:, columns], axis=1)
        return total

    return _by_block(scores, weighted)


def _require_matrix(scores: Scores, aggregate: Aggregate) -> None:
    if scores.manifest["matrix"] is None:
        raise NotFoundError(
            f"the aggregate {aggregate.kind!r} needs the scores of single queries, but scores "
            f"{scores.ref.scores_id} were made without the full matrix. Score again with "
            "full_matrix set, or use the aggregate 'mean'."
        )


def _groups(query_set: QuerySet, aggregate: QueryGroups) -> list[tuple[NDArray[np.int64], float]]:
    """Return the queries of each group, by place, and its weight."""
    labels = query_set.queries().column("label").to_pylist()
    missing = sorted(set(aggregate.weights) - set(labels))
    if missing:
        known = sorted({label for label in labels if label is not None})
        raise ValueError(
            f"weights name the labels {missing}, which no query of {query_set.ref.name!r} has; "
            f"its labels are {known[:20]}. Set label_field of the queries, or correct the weights."
        )
    return [
        (np.array([place for place, one in enumerate(labels) if one == label]), weight)
        for label, weight in aggregate.weights.items()
    ]


def _by_block(
    scores: Scores, value: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> NDArray[np.float32]:
    return np.concatenate(
        [value(block.astype(np.float64)).astype(np.float32) for block in _blocks(scores)]
    )


def _blocks(scores: Scores) -> Iterator[NDArray[np.float32]]:
    shape = scores.manifest["matrix"]
    for block in range(-(-shape["n_rows"] // shape["block_rows"])):
        yield scores.matrix_block(block)


def _fused(scores: Scores, constant: int) -> NDArray[np.float32]:
    """Return the sums over queries of 1 / (constant + rank); 0 for rows without positions.

    Only rows with positions have ranks, from 1; ties break by row id.
    """
    table = scores.values()
    ranked = np.flatnonzero(table.column("n_positions").to_numpy() > 0)
    id_ranks = row_id_ranks(table.column("row_id"))[ranked]
    n_queries = int(scores.manifest["matrix"]["n_queries"])
    at_once = max(1, COLUMN_BYTES // (4 * max(1, table.num_rows)))
    sums = np.zeros(table.num_rows, np.float64)
    for start in range(0, n_queries, at_once):
        columns = np.concatenate([block[:, start : start + at_once] for block in _blocks(scores)]).T
        for column in columns:
            order = np.argsort(sort_keys(np.ascontiguousarray(column[ranked]), id_ranks))
            sums[ranked[order]] += 1.0 / (constant + np.arange(1, len(ranked) + 1))
    return sums.astype(np.float32)
