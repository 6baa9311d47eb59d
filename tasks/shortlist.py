"""Search in two stages: codes choose a shortlist for each query, float rows decide on it.

Codes of all rows are read, float rows only where they are on a shortlist. A row that is scored
again is multiplied at its own place in its block, so it gets the bits that a search of float rows
alone gives it: with every row on the shortlist both searches find the same. Values, which every
row has, stay those of the codes.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rise_ops.scoring import NO_ROW, QueryPanel, query_panel, scores_in_place
from storage.blocks import PLAIN_CODE
from storage.signatures import SignatureIndex
from tasks.block_graph import BlockTasks, Keys, one_product_thread, run_blocks
from tasks.codes import index_panel
from tasks.config import RuntimeConfig
from tasks.progress import Progress
from tasks.scoring_graph import Search, SearchResult, best_keys, search, unscorable


@dataclass(frozen=True)
class Shortlisted:
    """The rows of a block that are on a shortlist.

    Attributes:
        rows: int64 [n], ascending positions in the block.
        ranks: uint32 [n], their ranks among all row ids.
        chosen: bool [n_queries, n], whose shortlists they are on; those of opponents follow.
    """

    rows: NDArray[np.int64]
    ranks: NDArray[np.uint32]
    chosen: NDArray[np.bool_]


def find_rows(
    plan: Search,
    signatures: NDArray[np.float32],
    ranks: NDArray[np.uint32],
    runtime: RuntimeConfig,
    progress: Progress,
    eligible: NDArray[np.bool_] | None = None,
) -> SearchResult:
    """Search an index in one stage or, where the plan has a shortlist, in two.

    Args:
        plan: What to compute.
        signatures: float32 [n_queries, n_numbers], made in the index's space, not rotated.
        ranks: uint32 [n_rows], each row's rank among the row ids.
        runtime: Scheduler and number of workers.
        progress: Receives one step a block, with a shortlist two.
        eligible: See `search`.

    Raises:
        ValueError: The signatures do not fit the index, or it keeps no floats for a shortlist.
        CorruptionError: A block is missing, damaged or not finite; names the block.
        ConnectionError: The Dask scheduler at the given address does not answer.
    """
    index = SignatureIndex.open(plan.index)
    panel = index_panel(index, signatures)
    if plan.shortlist is None:
        return search(plan, panel, ranks, runtime, progress, eligible)
    check_shortlist(index, plan.shortlist)
    n_blocks = index.count_blocks(len(ranks))
    progress.start(total=2 * n_blocks, unit="blocks")
    going_on = _GoingOn(progress)
    first = search(replace(plan, top_k=plan.shortlist), panel, ranks, runtime, going_on, eligible)
    parts = shortlisted(first.keys, ranks, index.block_rows)
    if not parts:
        return first
    tasks = BlockTasks(
        rescore_block,
        plan,
        query_panel(signatures.astype(np.float32, copy=False)),
        list(parts),
        list(parts.values()),
        plan.top_k,
    )
    keys, _ = run_blocks(tasks, runtime, going_on)
    progress.advance(n_blocks - len(parts))
    return replace(first, keys=keys)


def check_shortlist(index: SignatureIndex, shortlist: int) -> None:
    """Refuse a shortlist of an index that has no floats beside its codes."""
    if index.float_numbers is not None:
        return
    has = (
        "keeps float16 rows alone, which are searched whole"
        if index.code == PLAIN_CODE
        else f"keeps {index.code} codes alone"
    )
    raise ValueError(
        f"shortlist is {shortlist}, but index {index.ref.index!r} {has}. Leave shortlist out, or "
        "build an index of code sign or int8 with signature.keep_floats: true."
    )


def shortlisted(keys: Keys, ranks: NDArray[np.uint32], block_rows: int) -> dict[int, Shortlisted]:
    """Return what each block, by number, has on the shortlists.

    Args:
        keys: uint64 [n_queries, any], `NO_ROW` where rows ran out.
        ranks: uint32 [n_rows], each row's rank among the row ids.
        block_rows: Rows a block.
    """
    queries, places = np.nonzero(keys != NO_ROW)
    position_at = np.empty(len(ranks), np.int64)
    position_at[ranks] = np.arange(len(ranks))
    positions = position_at[keys[queries, places].astype(np.uint32)]
    blocks = positions // block_rows
    order = np.argsort(blocks, kind="stable")
    found = {}
    for pairs in np.split(order, np.flatnonzero(np.diff(blocks[order])) + 1) if len(order) else []:
        rows, column = np.unique(positions[pairs], return_inverse=True)
        chosen = np.zeros((len(keys), len(rows)), np.bool_)
        chosen[queries[pairs], column] = True
        block = int(rows[0]) // block_rows
        found[block] = Shortlisted(rows - block * block_rows, ranks[rows], chosen)
    return found


def rescore_block(
    plan: Search, panel: QueryPanel, block: int, part: Shortlisted
) -> tuple[Keys, None]:
    """Score one block's shortlisted rows by their floats: the task of the second stage."""
    floats = SignatureIndex.open(plan.index).read_floats(block, part.rows)
    with one_product_thread():
        try:
            scores = scores_in_place(floats, part.rows, panel)
        except ValueError as error:
            raise unscorable(plan.index, block, error) from error
    return best_keys(scores[:-1], part.ranks, part.chosen, plan), None


class _GoingOn:
    """Progress of a part of some work: it moves the bar and does not begin it anew."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def start(self, *, total: int, unit: str) -> None:
        """Ignore."""

    def advance(self, n_units: int) -> None:
        self._progress.advance(n_units)
