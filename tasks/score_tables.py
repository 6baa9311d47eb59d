"""What a search found, as tables: the rows of each query in order, and how unusual they are."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rise_ops.scoring import query_panel, split_keys
from storage.signatures import SignatureIndex
from tasks.codes import index_panel
from tasks.null_rows import calibrated, null_positions, null_scores
from tasks.scoring_graph import SearchResult


def random_scores(
    index: SignatureIndex,
    signatures: NDArray[np.float32],
    living: NDArray[np.bool_] | None,
    *,
    floats: bool = False,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return what random living rows score for each query, and which rows they are.

    Args:
        index: The rows.
        signatures: float32 [n_queries, n_numbers], not rotated.
        living: bool [n_rows], or None where every row is.
        floats: Score the float rows beside the codes, as a search with a shortlist does.
    """
    n_positions = index.n_positions()
    if living is not None:
        n_positions = np.where(living, n_positions[: len(living)], 0)
    positions = null_positions(n_positions)
    panel = query_panel(signatures) if floats else index_panel(index, signatures)
    return null_scores(index, panel, positions, floats=floats), positions


def count_able(found: SearchResult, living: NDArray[np.bool_] | None) -> int:
    """Return how many rows the best were chosen from."""
    able = found.n_positions > 0
    return int(np.count_nonzero(able if living is None else able & living))


def ranked_rows(
    keys: NDArray[np.uint64],
    ranks: NDArray[np.uint32],
    row_ids: pa.ChunkedArray,
    query_ids: Sequence[str],
) -> pa.Table:
    """Return one line a query and rank: query_id, rank (from 1), row_id, score."""
    row_id_places, scores = split_keys(keys)
    n_queries, top_k = keys.shape
    position_at = np.empty(len(ranks), np.int64)
    position_at[ranks] = np.arange(len(ranks))
    query_of = np.repeat(np.arange(n_queries), top_k)
    return pa.table(
        {
            "query_id": pa.array(query_ids, pa.string()).take(query_of),
            "rank": np.tile(np.arange(1, top_k + 1, dtype=np.int32), n_queries),
            "row_id": row_ids.take(position_at[row_id_places.ravel()]),
            "score": scores.ravel(),
        }
    )


def calibrated_rows(top_rows: pa.Table, nulls: NDArray[np.float32], *, n_rows: int) -> pa.Table:
    """Return the table with percentile, z and false discovery (TOP_ROWS_SCHEMA).

    Args:
        top_rows: The same number of rows for each query, in the order of ``nulls``.
        nulls: float32 [n_queries, sampled], what random rows score.
        n_rows: Rows that the best were chosen from.
    """
    scores = top_rows.column("score").to_numpy().reshape(len(nulls), -1)
    for name, column in calibrated(scores, nulls, n_rows=n_rows).items():
        top_rows = top_rows.append_column(name, pa.array(column.ravel()))
    return top_rows
