"""Stage: the blocks of an index, one after another here or side by side in other processes.

A block's bytes follow from its rows, the index's config and the kind of device, and it is written
by the same atomic path wherever that happens, so it does not matter who does it, or how often.
"""

import gc
import time
from dataclasses import dataclass, replace

import numpy as np

from rise_ops.codes import encode
from storage.corpus import Corpus
from storage.files import digest
from storage.signatures import SignatureIndex
from tasks.backbone import model_is_loaded, resolve_device
from tasks.calibration import encoded_rows
from tasks.codes import stored_rotation
from tasks.index_identity import forget_space, index_space
from tasks.index_plan import BlockReport, IndexPlan
from tasks.index_statistics import block_statistics
from tasks.memory import require_memory
from tasks.progress import NO_PROGRESS, Progress
from tasks.sketching import sketch_rows
from tasks.workers import THIS_PROCESS, Spread, Work, Workers


@dataclass(frozen=True)
class Sketched:
    """What was done for the blocks of a plan.

    Attributes:
        reports: One a block, in the plan's order.
        warnings: Blocks that were begun more than once, because a worker was lost.
    """

    reports: list[BlockReport]
    warnings: tuple[str, ...] = ()


def sketch_blocks(
    plan: IndexPlan, workers: Workers = THIS_PROCESS, *, progress: Progress = NO_PROGRESS
) -> Sketched:
    """Sketch the missing blocks; each is stored as soon as it is done.

    Args:
        plan: From `plan_index`.
        workers: Who does it.
        progress: Told of rows, from all of them.

    Raises:
        ValueError: A row cannot be sketched; the message names block and row.
        MemoryError: One window alone does not fit into memory.
        WorkersLostError: A block takes every worker with it, or there are none.
        ConnectionError: The workers' scheduler does not answer, or went away.
    """
    what = f"index {plan.ref.index!r}, block"
    if workers.alone:
        return Sketched(
            workers.spread(Work(sketch_block, plan, plan.blocks, what), progress).results
        )
    if plan.blocks and not workers.elsewhere:
        _make_room()
    work = Work(sketch_block_elsewhere, plan.to_send(), plan.blocks, what)
    return _sketched(workers.spread(work, progress), plan)


def sketch_block_elsewhere(
    plan: IndexPlan, block: int, *, progress: Progress = NO_PROGRESS
) -> BlockReport:
    """Sketch one block in a worker process, which asks for its memory before it loads the model."""
    if not model_is_loaded():
        device = resolve_device(plan.runtime.device)
        dtype = SignatureIndex.open(plan.ref).identity["space"]["dtype"]
        require_memory(plan.config, plan.runtime, device=device, dtype=dtype)
    return sketch_block(plan, block, progress=progress)


def sketch_block(plan: IndexPlan, block: int, *, progress: Progress = NO_PROGRESS) -> BlockReport:
    """Sketch the rows of one block and store it; safe to run in another process.

    Args:
        plan: From `plan_index`.
        block: Number of the block.
        progress: Told of rows.

    Raises:
        ValueError: A row cannot be sketched; the message names block and row. Nothing is stored.
        MemoryError: One window alone does not fit into memory.
        MismatchError: The model is not the one that the index was planned with.
        LeaseLostError: Another build has taken over; nothing is stored.
    """
    started = time.monotonic()
    index = SignatureIndex.open(plan.ref)
    device = resolve_device(plan.runtime.device)
    space = index_space(index, plan.config.model, device=device)
    size = plan.config.block_rows
    rows = Corpus(plan.corpus).rows(
        block * size, min((block + 1) * size, plan.n_rows), batches=plan.batches
    )
    token_rows = encoded_rows(rows, plan.config)
    signatures, n_positions = sketch_rows(
        token_rows,
        space,
        plan.runtime,
        row_ids=[row.row_id for row in rows],
        where=f"index {plan.ref.index!r}, block {block}",
        progress=progress,
    )
    n_tokens = sum(len(row.ids) for row in token_rows)
    rotation = stored_rotation(index)
    signature = plan.config.signature
    plan.fence.check()
    codes = encode(signatures if rotation is None else rotation.apply(signatures), signature.code)
    index.write_block(
        block,
        codes.values,
        n_positions,
        scales=codes.scales,
        floats=encode(signatures, "float16").values if signature.keep_floats else None,
        rows_digest=digest([[row.row_id, row.content_hash] for row in rows]),
        n_tokens=n_tokens,
    )
    block_statistics(index, block)
    return BlockReport(
        block=block,
        n_rows=len(rows),
        n_tokens=n_tokens,
        n_empty=int(np.count_nonzero(n_positions == 0)),
        seconds=time.monotonic() - started,
    )


def _make_room() -> None:
    """Free what calibration and drift have loaded here: the processes of this machine need it."""
    forget_space()
    gc.collect()
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _sketched(spread: Spread, plan: IndexPlan) -> Sketched:
    reports = [
        replace(report, worker=worker, device=device or plan.device)
        for report, (worker, device) in zip(spread.results, spread.places, strict=True)
    ]
    warnings = tuple(
        f"block {block} was begun {times} times: the workers that had begun it were lost"
        for block, times in spread.again.items()
    )
    return Sketched(reports, warnings)
