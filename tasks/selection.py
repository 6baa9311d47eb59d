"""Which scored rows a release takes: the selection of `rise_ops.selection` on a table of values."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rise_ops.scoring import ranks_of
from rise_ops.selection import best_rows, rows_above
from tasks.release_config import Threshold, TopK


def row_id_ranks(row_ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return each row's rank among the row ids in the order of their UTF-8 bytes, uint32."""
    order = pc.sort_indices(row_ids).to_numpy(zero_copy_only=False)
    return ranks_of(order.astype(np.int64))


def select_rows(values: pa.Table, select: TopK | Threshold) -> pa.Table:
    """Return the selected rows, best first.

    Args:
        values: Columns row_id, value (float32) and n_positions (int32), one line a row.
        select: How many rows, or the least value.

    Returns:
        Columns row_id, score (float32), rank (int32, from 1) and position (int64), the row's
        line in ``values``.

    Raises:
        ValueError: More rows are asked for than have positions, or no row reaches the
            threshold; the message has both numbers.
    """
    scores = values.column("value").to_numpy()
    eligible = values.column("n_positions").to_numpy() > 0
    ranks = row_id_ranks(values.column("row_id"))
    if isinstance(select, TopK):
        chosen = best_rows(scores, ranks, eligible, top_k=select.top_k)
    else:
        chosen = rows_above(scores, ranks, eligible, min_score=select.min_score)
    return pa.table(
        {
            "row_id": values.column("row_id").take(chosen).combine_chunks(),
            "score": scores[chosen],
            "rank": np.arange(1, len(chosen) + 1, dtype=np.int32),
            "position": chosen,
        }
    )
