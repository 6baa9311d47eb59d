"""The Dask graph of a search: one task a block, a tree that merges their top rows.

The graph is the same for every scheduler, and every task multiplies with one BLAS thread and
fixed shapes, so threads, a local cluster and a cluster elsewhere give the same bits.
"""

import functools
import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rise_ops.scoring import merge_keys
from tasks.config import RuntimeConfig
from tasks.dask_client import CONNECT_SECONDS, local_client, remote_client
from tasks.progress import Progress

if TYPE_CHECKING:
    from distributed import Client
    from threadpoolctl import ThreadpoolController

MERGE_FAN_IN = 8
"""Partial results merged by one task."""

BLAS_THREADS = 1
"""Threads of one product; the tasks are what runs in parallel."""

Keys = NDArray[np.uint64]


@dataclass(frozen=True)
class BlockTasks:
    """What is done with each of some blocks.

    Attributes:
        task: ``task(plan, queries, block, part)`` returns the block's top keys, uint64 [n_queries,
            any], and anything else. It is a function of a module: schedulers send it by name.
        plan: The same for every block; small.
        queries: The same for every block; sent to each worker once.
        blocks: Numbers of the blocks, at least one.
        parts: What belongs to each of them.
        top_k: Keys kept of all blocks together, a query.
    """

    task: Callable[[Any, Any, int, Any], tuple[Keys, Any]]
    plan: Any
    queries: Any
    blocks: Sequence[int]
    parts: Sequence[Any]
    top_k: int


def run_blocks(
    tasks: BlockTasks, runtime: RuntimeConfig, progress: Progress
) -> tuple[Keys, list[Any]]:
    """Return the merged top keys, and whatever else the task of each block gave, in their order.

    Args:
        tasks: What to do.
        runtime: Scheduler and number of workers.
        progress: Receives one step a block.

    Raises:
        ConnectionError: The Dask scheduler at the given address does not answer.
    """
    if runtime.scheduler == "threads":
        return _on_threads(tasks, runtime, progress)
    with _client(runtime) as client:
        return _on_cluster(client, tasks, progress)


def worker_count(runtime: RuntimeConfig) -> int:
    """Return how many blocks are worked on at once: as configured, else one a core."""
    return runtime.workers or len(os.sched_getaffinity(0))


@contextmanager
def one_product_thread() -> Iterator[None]:
    """Let the calling task multiply with one thread.

    BLAS stays at one thread: in a Dask worker nobody else would hold it there, and another task
    may be multiplying when this one ends. Under `_one_blas_thread` this changes nothing, except
    where BLAS counts threads for each thread that calls it (OpenBLAS on OpenMP). OpenMP itself
    keeps a limit for every thread that calls it.
    """
    _pools("blas").limit(limits=BLAS_THREADS)  # not as a context: it is never taken back
    with _pools("openmp").limit(limits=1):
        yield


# --------------------------------------------------------------------------------- the graph


def _graph(tasks: BlockTasks, queries: Any, parts: Sequence[Any]) -> tuple[str, Any, list[Any]]:
    """Return what block tasks are called, the node of the merged keys and those of the rest."""
    from dask.delayed import delayed

    # a name of its own a run: a long-lived scheduler must not answer from an earlier run's keys
    name = f"{tasks.task.__name__}-{uuid.uuid4().hex}-"
    task = delayed(tasks.task, nout=2, pure=False)
    results = [
        task(tasks.plan, queries, block, part, dask_key_name=f"{name}{block}")
        for block, part in zip(tasks.blocks, parts, strict=True)
    ]
    merge = delayed(merge_keys, pure=False)
    level = [keys for keys, _ in results]
    while len(level) > 1:
        groups = [level[i : i + MERGE_FAN_IN] for i in range(0, len(level), MERGE_FAN_IN)]
        level = [merge(group, top_k=tasks.top_k) for group in groups]
    return name, level[0], [rest for _, rest in results]


def _on_threads(
    tasks: BlockTasks, runtime: RuntimeConfig, progress: Progress
) -> tuple[Keys, list[Any]]:
    from dask.base import compute
    from dask.callbacks import Callback
    from dask.delayed import delayed

    name, keys, rest = _graph(tasks, delayed(tasks.queries, traverse=False), tasks.parts)

    def count(key: Any, *_: Any) -> None:
        if str(key).startswith(name):
            progress.advance(1)

    with _one_blas_thread(), Callback(posttask=count):
        merged, others = compute(
            keys,
            rest,
            scheduler="threads",
            num_workers=worker_count(runtime),
            optimize_graph=False,
        )
    return merged, others


def _on_cluster(client: "Client", tasks: BlockTasks, progress: Progress) -> tuple[Keys, list[Any]]:
    from distributed import as_completed

    queries = client.scatter(tasks.queries, broadcast=True)
    _, keys, rest = _graph(tasks, queries, client.scatter(list(tasks.parts)))
    merged, *others = client.compute([keys, *rest], optimize_graph=False)
    for future in as_completed(others, loop=client.loop):
        future.result()  # the first damaged block ends the search
        progress.advance(1)
    return merged.result(), client.gather(others)


@contextmanager
def _client(runtime: RuntimeConfig) -> Iterator["Client"]:
    """Yield a client of the configured scheduler; a local cluster lives as long as the call."""
    if runtime.scheduler == "local":
        with local_client(worker_count(runtime)) as client:
            yield client
    else:
        with remote_client(runtime.scheduler, otherwise="use scheduler: threads") as client:
            _await_worker(client, runtime.scheduler)
            yield client


def _await_worker(client: "Client", address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except TimeoutError as error:
        raise ConnectionError(
            f"the Dask scheduler at {address} has had no worker for {CONNECT_SECONDS} s. Start "
            f"some (dask worker {address}), or use scheduler: threads."
        ) from error


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


@functools.cache
def _pools(user_api: str) -> "ThreadpoolController":
    """Return the pools of one kind in this process; looking for them takes a while."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api=user_api)
