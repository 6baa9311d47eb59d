"""The Dask graph of a search: one task a block, a tree that merges the top rows.

A block task opens the index by its reference, reads one shard, multiplies, and keeps the top
keys and the values of its rows: memory is bounded by the blocks in flight, not by the index.
The graph is the same for every scheduler, and every task multiplies with one BLAS thread and
fixed shapes, so threads, a local cluster and a cluster elsewhere give the same bits.
"""

import functools
import os
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rise_ops.codes import RowCodes
from rise_ops.integer_scoring import IntegerPanel, code_scores, integer_panel
from rise_ops.scoring import SLICE_ROWS, QueryPanel, block_scores, merge_keys, top_keys
from storage.blocks import PLAIN_CODE
from storage.errors import CorruptionError
from storage.refs import IndexRef
from storage.scores import StagedMatrix
from storage.signatures import SignatureIndex
from tasks.config import RuntimeConfig
from tasks.progress import Progress

if TYPE_CHECKING:
    from distributed import Client
    from threadpoolctl import ThreadpoolController

MERGE_FAN_IN = 8
"""Partial results merged by one task."""

ORDERING_BYTES = 40
"""Bytes a score takes while the best are found: 4 as number, 8 as key, and temporary copies."""

BLAS_THREADS = 1
"""Threads of one product; the tasks are what runs in parallel."""

CONNECT_SECONDS = 20
"""How long an existing Dask scheduler may take to answer."""


@dataclass(frozen=True)
class Search:
    """What is computed over every block of an index.

    Attributes:
        index: The index; each task opens it for itself.
        top_k: Rows kept a query.
        matrix: Receives all scores, block by block, or None.
        opponents: Keep the ``top_k`` rows of lowest score too.
    """

    index: IndexRef
    top_k: int
    matrix: StagedMatrix | None = None
    opponents: bool = False


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
    """Run ``plan`` over the rows that have a rank, with the scheduler that ``runtime`` names.

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
    slices = [
        BlockRows(ranks[start:stop], None if eligible is None else eligible[start:stop])
        for start, stop in bounds
    ]
    # made once, not in every task: queries in integers, where rows are
    queries = panel if index.code == PLAIN_CODE else integer_panel(panel)
    progress.start(total=len(bounds), unit="blocks")
    if runtime.scheduler == "threads":
        keys, parts = _on_threads(plan, queries, slices, runtime, progress)
    else:
        with _client(runtime) as client:
            keys, parts = _on_cluster(client, plan, queries, slices, progress)
    return SearchResult(
        keys=keys,
        values=np.concatenate([part.values for part in parts]),
        n_positions=np.concatenate([part.n_positions for part in parts]),
    )


def block_bounds(n_rows: int, block_rows: int) -> list[tuple[int, int]]:
    """Return the ``[start, stop)`` row positions of every block."""
    return [(start, min(start + block_rows, n_rows)) for start in range(0, n_rows, block_rows)]


def predicted_bytes(index: SignatureIndex, n_queries: int, runtime: RuntimeConfig) -> int:
    """Return the memory that the blocks in flight take together, in bytes, before any is read.

    Reading holds a shard three times: as stored, chunk by chunk with checked sums, and as one
    array. Scoring holds it once, with a slice of rows as they are multiplied and, for every score
    of the block, its key and the copies that ordering makes. Values, ranks and row ids of the
    whole index (tens of bytes a row) come on top, in the calling process.
    """
    shard = index.block_rows * index.row_bytes
    widened = SLICE_ROWS * index.n_numbers * np.dtype(np.float32).itemsize
    ordering = index.block_rows * (n_queries + 1) * ORDERING_BYTES
    return worker_count(runtime) * max(3 * shard, shard + widened + ordering)


def worker_count(runtime: RuntimeConfig) -> int:
    """Return how many blocks are worked on at once: as configured, else one a core."""
    return runtime.workers or len(os.sched_getaffinity(0))


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
    _limit_blas_for_good()
    # OpenMP, which the integer product uses, keeps a limit for every thread that calls it
    with _openmp_pools().limit(limits=1):
        scores = _finite_scores(plan.index, block, codes, queries)
    if plan.matrix is not None:
        plan.matrix.write_block(block, np.ascontiguousarray(scores[:-1].T))
    eligible = n_positions > 0
    if rows.eligible is not None:
        eligible = eligible & rows.eligible
    keys = top_keys(scores[:-1], rows.ranks, eligible, top_k=plan.top_k)
    if plan.opponents:
        lowest = top_keys(-scores[:-1], rows.ranks, eligible, top_k=plan.top_k)
        keys = np.concatenate([keys, lowest])
    return keys, BlockValues(scores[-1].copy(), n_positions)


def _finite_scores(
    index: IndexRef, block: int, codes: RowCodes, queries: QueryPanel | IntegerPanel
) -> NDArray[np.float32]:
    try:
        if isinstance(queries, IntegerPanel):
            return code_scores(codes, queries)
        return block_scores(codes.values, queries)
    except ValueError as error:
        raise CorruptionError(
            f"block {block} of index {index.index!r} in {index.root} cannot be scored: {error}. "
            "Run `rise verify`, delete the block's record and build the index again."
        ) from error


# --------------------------------------------------------------------------------- the graph


def _graph(plan: Search, queries: Any, slices: Sequence[Any]) -> tuple[Any, list[Any]]:
    """Return the node of the merged keys and the nodes of every block's values."""
    from dask.delayed import delayed

    # a name of its own a run: a long-lived scheduler must not answer from an earlier run's keys
    run = uuid.uuid4().hex
    task = delayed(score_block, nout=2, pure=False)
    results = [
        task(plan, queries, block, rows, dask_key_name=f"score_block-{run}-{block}")
        for block, rows in enumerate(slices)
    ]
    merge = delayed(merge_keys, pure=False)
    level = [keys for keys, _ in results]
    while len(level) > 1:
        groups = [level[i : i + MERGE_FAN_IN] for i in range(0, len(level), MERGE_FAN_IN)]
        level = [merge(group, top_k=plan.top_k) for group in groups]
    return level[0], [values for _, values in results]


def _on_threads(
    plan: Search,
    queries: QueryPanel | IntegerPanel,
    slices: Sequence[BlockRows],
    runtime: RuntimeConfig,
    progress: Progress,
) -> tuple[NDArray[np.uint64], list[BlockValues]]:
    from dask.base import compute
    from dask.callbacks import Callback
    from dask.delayed import delayed

    def count(key: Any, *_: Any) -> None:
        if str(key).startswith("score_block-"):
            progress.advance(1)

    keys, parts = _graph(plan, delayed(queries, traverse=False), slices)
    with _one_blas_thread(), Callback(posttask=count):
        merged, values = compute(
            keys,
            parts,
            scheduler="threads",
            num_workers=worker_count(runtime),
            optimize_graph=False,
        )
    return merged, values


def _on_cluster(
    client: "Client",
    plan: Search,
    queries: QueryPanel | IntegerPanel,
    slices: Sequence[BlockRows],
    progress: Progress,
) -> tuple[NDArray[np.uint64], list[BlockValues]]:
    from distributed import as_completed

    panel = client.scatter(queries, broadcast=True)
    keys, parts = _graph(plan, panel, client.scatter(list(slices)))
    merged, *values = client.compute([keys, *parts], optimize_graph=False)
    for future in as_completed(values, loop=client.loop):
        future.result()  # the first damaged block ends the search
        progress.advance(1)
    return merged.result(), client.gather(values)


@contextmanager
def _client(runtime: RuntimeConfig) -> Iterator["Client"]:
    """Yield a client of the configured scheduler; a local cluster lives as long as the call."""
    # read once, when distributed is imported, here and in workers; a failed task is not worth a
    # log entry beside the error that it raises here
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "critical")
    from distributed import Client, LocalCluster

    if runtime.scheduler == "local":
        with (
            LocalCluster(
                n_workers=worker_count(runtime),
                threads_per_worker=1,
                dashboard_address=None,
                # without a dashboard it still serves HTTP: on a free port, not the usual one
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
            ) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            yield client
        return
    try:
        client = Client(runtime.scheduler, set_as_default=False, timeout=CONNECT_SECONDS)
    except OSError as error:
        raise ConnectionError(
            f"no Dask scheduler answers at {runtime.scheduler} within {CONNECT_SECONDS} s "
            f"({error}). Start one, or use scheduler: threads."
        ) from error
    with client:
        yield client


# ----------------------------------------------------------------------------------- threads

_ONE_SEARCH = threading.Lock()


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Hold this process at one BLAS thread; searches on threads wait for one another.

    The number of BLAS threads decides how a product is cut and so its last bits. It belongs to
    the whole process, and threadpoolctl lets one thread at a time change it: the thread that
    waits for the search, not its tasks, which come and go.
    """
    from threadpoolctl import threadpool_limits

    with _ONE_SEARCH, threadpool_limits(limits=BLAS_THREADS, user_api="blas"):
        yield


def _limit_blas_for_good() -> None:
    """Put a task's process at one BLAS thread and leave it there.

    In a Dask worker nobody else would: another task may be multiplying when this one ends.
    Under `_one_blas_thread` this changes nothing, except where BLAS counts threads for each
    thread that calls it (OpenBLAS on OpenMP).
    """
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=BLAS_THREADS, user_api="blas")


@functools.cache
def _openmp_pools() -> "ThreadpoolController":
    """Return the OpenMP pools of this process; looking for them takes a while."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="openmp")
