"""Which scored rows a release takes: the selection of `rise_ops.selection` on a table of values."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rise_ops.scoring import ranks_of
from rise_ops.selection import best_rows, rows_above
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from storage.corpus import Row
from tasks.release_config import ReleaseConfig, Threshold, TopK
from tasks.row_checks import RowCheck


class RowReader(Protocol):
    """Rows."""

    def rows(self, positions: Sequence[int]) -> list[Row]: ...
    def signatures(self, positions: Sequence[int]) -> np.ndarray: ...


@dataclass(frozen=True)
class Selection:
    """Selection."""

    selected: pa.Table
    dropped: pa.Table
    report: dict[str, Any]


def select_rows(
    candidates: pa.Table, config: ReleaseConfig, reader: RowReader, checks: Sequence[RowCheck] = ()
) -> Selection:
    """Select."""
    selected = _select(candidates, config.select)
    rows = reader.rows(selected.column("position").to_pylist())
    for check in checks:
        check.faults(rows)
    n = len(selected)
    z = pa.array(np.zeros(n, np.float32))
    selected = (
        selected.append_column("percentile", z)
        .append_column("z", z)
        .append_column("false_discovery", z)
    )
    s = pa.string()
    d = pa.table(
        {
            "row_id": pa.array([], s),
            "score": pa.array([], pa.float32()),
            "place": pa.array([], pa.int64()),
            "position": pa.array([], pa.int64()),
            "reason": pa.array([], s),
            "detail": pa.array([], s),
        }
    )
    return Selection(selected, d, {})


def row_id_ranks(row_ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """Return each row's rank among the row ids in the order of their UTF-8 bytes, uint32."""
    order = pc.sort_indices(row_ids).to_numpy(zero_copy_only=False)
    return ranks_of(order.astype(np.int64))


def _select(values: pa.Table, select: Any) -> pa.Table:
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
