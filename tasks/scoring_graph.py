"""A search: every row of an index against some queries, block by block.

A block task opens the index by its reference, reads one shard, multiplies, and keeps the top
keys and the values of its rows: memory is bounded by the blocks in flight, not by the index.
`tasks.block_graph` spreads the tasks and merges what they find.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rise_ops.codes import RowCodes
from rise_ops.integer_scoring import IntegerPanel, code_scores, integer_panel
from rise_ops.scoring import SLICE_ROWS, QueryPanel, block_scores, top_keys
from storage.blocks import PLAIN_CODE
from storage.errors import CorruptionError
from storage.refs import IndexRef
from storage.scores import StagedMatrix
from storage.signatures import SignatureIndex
from tasks.block_graph import MERGE_FAN_IN, BlockTasks, one_product_thread, run_blocks, worker_count
from tasks.config import RuntimeConfig
from tasks.progress import Progress

ORDERING_BYTES = 40
"""Bytes a score takes while the best are found: 4 as number, 8 as key, and temporary copies."""

KEY_BYTES = 8
FLOAT16_BYTES = 2


@dataclass(frozen=True)
class Search:
    """What is computed over every block of an index.

    Attributes:
        index: The index; each task opens it for itself.
        top_k: Rows kept a query.
        matrix: Receives all scores, block by block, or None.
        opponents: Keep the ``top_k`` rows of lowest score too, behind those of highest.
        shortlist: Rows a query that codes choose and float rows decide on; None: codes decide.
    """

    index: IndexRef
    top_k: int
    matrix: StagedMatrix | None = None
    opponents: bool = False
    shortlist: int | None = None


@dataclass(frozen=True)
class BlockRows:
    """The rows of a block that are searched.

    Attributes:
        ranks: uint32 [n_rows], each row's rank among all row ids.
        eligible: bool [n_rows], rows that may be among the best; None: all of them.
    """

    ranks: NDArray[np.uint32]
    eligible: NDArray[np.bool_] | None


@dataclass(frozen=True)
class BlockValues:
    """Values and position counts of one block's rows: float32 [n_rows] and int32 [n_rows]."""

    values: NDArray[np.float32]
    n_positions: NDArray[np.int32]


@dataclass(frozen=True)
class SearchResult:
    """Merged top keys, uint64 [n_queries, top_k]; values and positions in corpus order.

    With opponents, keys of the negated scores follow: uint64 [2 n_queries, top_k].
    """

    keys: NDArray[np.uint64]
    values: NDArray[np.float32]
    n_positions: NDArray[np.int32]


def search(
    plan: Search,
    panel: QueryPanel,
    ranks: NDArray[np.uint32],
    runtime: RuntimeConfig,
    progress: Progress,
    eligible: NDArray[np.bool_] | None = None,
) -> SearchResult:
    """Search the rows that have a rank, as they are coded, with the scheduler of ``runtime``.

    A shortlist is no matter of this stage: see `tasks.shortlist`.

    Rows that another process commits meanwhile are left out: the caller does not know them.

    Args:
        plan: What to compute.
        panel: Query signatures and their mean, as the index's code wants them (`tasks.codes`).
        ranks: uint32 [n_rows], each row's rank among the row ids.
        runtime: Scheduler and number of workers.
        progress: Receives one step a block.
        eligible: bool [n_rows], rows that may be among the best. Others still get a value, and
            rows without positions never are. None: all rows.

    Raises:
        CorruptionError: A block is missing, damaged or not finite; names the block.
        ConnectionError: The Dask scheduler at the given address does not answer.
    """
    index = SignatureIndex.open(plan.index)
    bounds = block_bounds(len(ranks), index.block_rows)
    rows = [
        BlockRows(ranks[start:stop], None if eligible is None else eligible[start:stop])
        for start, stop in bounds
    ]
    # made once, not in every task: queries in integers, where rows are
    queries = panel if index.code == PLAIN_CODE else integer_panel(panel)
    progress.start(total=len(bounds), unit="blocks")
    tasks = BlockTasks(score_block, plan, queries, range(len(bounds)), rows, plan.top_k)
    keys, parts = run_blocks(tasks, runtime, progress)
    return SearchResult(
        keys=keys,
        values=np.concatenate([part.values for part in parts]),
        n_positions=np.concatenate([part.n_positions for part in parts]),
    )


def block_bounds(n_rows: int, block_rows: int) -> list[tuple[int, int]]:
    """Return the ``[start, stop)`` row positions of every block."""
    return [(start, min(start + block_rows, n_rows)) for start in range(0, n_rows, block_rows)]


def predicted_bytes(
    index: SignatureIndex, n_queries: int, runtime: RuntimeConfig, *, shortlist: int | None = None
) -> int:
    """Return the memory that the blocks in flight take together, in bytes, before any is read.

    A shard is held once, with a slice of rows as they are multiplied (twice: products may lay them
    out anew) and, for every score of the block, its key and the copies that ordering makes.
    Values, ranks and row ids of the whole index (tens of bytes a row) come on top, in the calling
    process. With a shortlist, its keys are held where they are merged, and then, instead of shards,
    float rows that are on it: the chunks that they lie in, and the rows themselves.
    """
    ordering = index.block_rows * (n_queries + 1) * ORDERING_BYTES
    first = index.block_rows * index.row_bytes + _widened_bytes(index.n_numbers) + ordering
    if shortlist is None or index.float_numbers is None:
        return worker_count(runtime) * first
    merged = 2 * MERGE_FAN_IN * n_queries * min(shortlist, index.n_rows) * KEY_BYTES
    floats = 2 * index.block_rows * index.float_numbers * FLOAT16_BYTES
    second = floats + _widened_bytes(index.float_numbers) + ordering
    return worker_count(runtime) * (merged + max(first, second))


def _widened_bytes(n_numbers: int) -> int:
    return 2 * SLICE_ROWS * n_numbers * np.dtype(np.float32).itemsize


def score_block(
    plan: Search, queries: QueryPanel | IntegerPanel, block: int, rows: BlockRows
) -> tuple[NDArray[np.uint64], BlockValues]:
    """Score one block: the task of the graph, run wherever the scheduler puts it."""
    index = SignatureIndex.open(plan.index)
    # rows behind those that have a rank were committed meanwhile
    n_rows = len(rows.ranks)
    signatures, n_positions = (part[:n_rows] for part in index.read_block(block))
    scales = index.read_scales(block)
    codes = RowCodes(signatures, None if scales is None else scales[:n_rows])
    with one_product_thread():
        scores = _finite_scores(plan.index, block, codes, queries)
    if plan.matrix is not None:
        plan.matrix.write_block(block, np.ascontiguousarray(scores[:-1].T))
    eligible = n_positions > 0
    if rows.eligible is not None:
        eligible &= rows.eligible
    keys = best_keys(scores[:-1], rows.ranks, eligible, plan)
    return keys, BlockValues(scores[-1].copy(), n_positions)


def _finite_scores(
    index: IndexRef, block: int, codes: RowCodes, queries: QueryPanel | IntegerPanel
) -> NDArray[np.float32]:
    try:
        if isinstance(queries, IntegerPanel):
            return code_scores(codes, queries)
        return block_scores(codes.values, queries)
    except ValueError as error:
        raise unscorable(index, block, error) from error


def best_keys(
    scores: NDArray[np.float32],
    ranks: NDArray[np.uint32],
    eligible: NDArray[np.bool_],
    plan: Search,
) -> NDArray[np.uint64]:
    """Return the keys of the highest rows of a block and, where asked for, of the lowest below.

    Args:
        scores: float32 [n_queries, n].
        ranks: uint32 [n].
        eligible: bool [n], or [n_queries, n]; with opponents their lines follow.
        plan: How many, and whether the lowest too.
    """
    highest, lowest = (
        np.split(eligible, 2) if eligible.ndim > 1 and plan.opponents else (eligible,) * 2
    )
    keys = top_keys(scores, ranks, highest, top_k=plan.top_k)
    if not plan.opponents:
        return keys
    return np.concatenate([keys, top_keys(-scores, ranks, lowest, top_k=plan.top_k)])


def unscorable(index: IndexRef, block: int, error: ValueError) -> CorruptionError:
    """Return the error of a block whose numbers cannot be scored."""
    return CorruptionError(
        f"block {block} of index {index.index!r} in {index.root} cannot be scored: {error}. "
        "Run `rise verify`, delete the block's record and build the index again."
    )
