"""What random rows score: the null that percentiles, z and false discoveries come from.

The sample is of rows with positions, the same for every query of an index. Of an index of more than
262,144 rows it comes from NULL_SPANS random spans of SPAN_ROWS rows, which bounds what is read;
rows that lie together in a corpus may be alike, so it then stands for fewer independent rows.
"""

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from rise_ops.codes import RowCodes
from rise_ops.integer_scoring import code_scores, integer_panel
from rise_ops.null_scores import NullScores
from rise_ops.scoring import QueryPanel, block_scores
from rise_ops.shingles import mixed
from storage.blocks import PLAIN_CODE
from storage.signatures import SignatureIndex

NULL_ROWS = 2_048
NULL_SPANS = 64
SPAN_ROWS = 4_096
"""A size of its own: the size of blocks is there for speed and must not decide the sample."""

SEED = 0


def null_positions(
    n_positions: NDArray[np.int32], *, n_rows: int = NULL_ROWS, seed: int = SEED
) -> NDArray[np.int64]:
    """Choose random rows of an index by position, ascending; all if there are no more.

    Args:
        n_positions: Predicted positions of every row; rows without any are never chosen.
        n_rows: Rows wanted.
        seed: Another seed, another sample.
    """
    rows = np.flatnonzero(n_positions > 0)
    n_spans = -(-len(n_positions) // SPAN_ROWS)
    spans = np.argsort(_hashes(np.arange(n_spans), seed + 1), kind="stable")[:NULL_SPANS]
    rows = rows[np.isin(rows // SPAN_ROWS, spans)]
    return np.sort(rows[np.argsort(_hashes(rows, seed), kind="stable")[:n_rows]])


def null_scores(
    index: SignatureIndex,
    panel: QueryPanel,
    positions: NDArray[np.int64],
    *,
    floats: bool = False,
) -> NDArray[np.float32]:
    """Return the scores of some rows, float32 [n_queries, rows].

    Args:
        index: The rows' signatures.
        panel: The queries, as the index's code wants them (`tasks.codes`); with ``floats`` not
            rotated.
        positions: Which rows, ascending.
        floats: Score the float rows beside the codes.

    Raises:
        CorruptionError: A block is missing or damaged; names it.
    """
    queries = panel if floats or index.code == PLAIN_CODE else integer_panel(panel)
    found = np.empty((panel.n_queries, len(positions)), np.float32)
    blocks = positions // index.block_rows
    # as in a search: the number of threads decides the last bits of a product
    with threadpool_limits(limits=1):
        for block in np.unique(blocks).tolist():
            lines = np.flatnonzero(blocks == block)
            local = positions[lines] - block * index.block_rows
            if floats:
                rows = RowCodes(index.read_floats(block, local), None)
            else:
                rows = _coded_rows(index, block, local)
            if isinstance(queries, QueryPanel):
                found[:, lines] = block_scores(rows.values, queries)[:-1]
            else:
                found[:, lines] = code_scores(rows, queries)[:-1]
    return found


def _coded_rows(index: SignatureIndex, block: int, local: NDArray[np.int64]) -> RowCodes:
    values, _ = index.read_block(block)
    scales = index.read_scales(block)
    return RowCodes(np.ascontiguousarray(values[local]), None if scales is None else scales[local])


def calibrated(
    scores: NDArray[np.float32], nulls: NDArray[np.float32], *, n_rows: int
) -> dict[str, NDArray[np.float32]]:
    """Return percentile, z and false discovery of the best rows of each query.

    Args:
        scores: float32 [n_queries, top_k], best first.
        nulls: float32 [n_queries, sampled], what random rows score.
        n_rows: Rows that the best were chosen from.

    Returns:
        Three arrays float32 [n_queries, top_k].
    """
    columns = {name: np.empty(scores.shape, np.float32) for name in CALIBRATED}
    ranks = np.arange(1, scores.shape[1] + 1)
    for query, (line, sample) in enumerate(zip(scores, nulls, strict=True)):
        null = NullScores.of(sample)
        columns["percentile"][query] = null.percentile(line)
        columns["z"][query] = null.z(line)
        columns["false_discovery"][query] = null.false_discovery(line, ranks, n_rows=n_rows)
    return columns


_ODD = 0x9E37_79B9_7F4A_7C15

CALIBRATED = ("percentile", "z", "false_discovery")
"""Columns that say how unusual a score is among random rows."""


def _hashes(numbers: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    return mixed(numbers.astype(np.uint64) + np.uint64(seed * _ODD % 2**64))
