"""Which rows score highest: exact inner products and an exact, mergeable top-k.

A score is the inner product of a row's signature with a query's; a row's *value* is its inner
product with the mean query signature (METHOD.md, sections 2 and 4). Rows come in blocks of
float16. A block is widened to float32 slice by slice in a buffer that stays in cache, by torch,
because NumPy's own float16 cast takes longer than the matrix product that needs it. On processors
with AVX-512 the product is oneDNN's: twice as fast as OpenBLAS and MKL on an AMD EPYC, for which
they chose their AVX2 kernels.

The top-k of a block is kept as *keys*: one unsigned integer a row, made of the score and of the
row's rank among all row ids. Keys of different rows differ, so "the k smallest keys" is a set
that no order of merging can change, and ties break by row id.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float16, Float32, Int64, UInt32, UInt64
from torch import Tensor

SLICE_ROWS = 128
"""Rows widened at once: 1 MiB of float32 at 2,048 numbers. Measured best or within 5 % of it
from 352 to 24,576 numbers; see benchmarks/search.py."""

NO_ROW = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
"""Key that stands for "no row here": larger than the key of any row."""

MAX_ROWS = 2**32 - 1
"""Ranks take 32 bits of a key."""


@dataclass(frozen=True)
class QueryPanel:
    """The vectors that every block is multiplied with.

    Attributes:
        vectors: float32 [n_queries + 1, n_numbers]; the last one is the mean of the others.
    """

    vectors: Float32[np.ndarray, "vectors numbers"]

    @property
    def n_queries(self) -> int:
        """Number of queries, the mean not counted."""
        return len(self.vectors) - 1

    @property
    def n_numbers(self) -> int:
        """Length of a signature."""
        return int(self.vectors.shape[1])


def query_panel(signatures: Float32[np.ndarray, "queries numbers"]) -> QueryPanel:
    """Append the mean query signature, which makes values, to the query signatures.

    The mean is taken in float64 and not normalised again: its length says how much the
    queries agree.

    Args:
        signatures: Query signatures, at least one.

    Raises:
        ValueError: There is no query, or a number is not finite.

    Source: METHOD.md, section 2, valuation.
    """
    if len(signatures) == 0:
        raise ValueError("expected at least one query signature, got none")
    if not np.isfinite(signatures).all():
        bad = int(np.flatnonzero(~np.isfinite(signatures).all(axis=1))[0])
        raise ValueError(f"the signature of query {bad} has a number that is not finite")
    mean = signatures.mean(axis=0, dtype=np.float64).astype(np.float32)
    return QueryPanel(np.concatenate([signatures, mean[None, :]]))


def block_scores(
    block: Float16[np.ndarray, "rows numbers"], panel: QueryPanel
) -> Float32[np.ndarray, "vectors rows"]:
    """Return the inner products of a block of rows with the panel.

    Every slice is multiplied at full size, the last one too: a row's bits then depend on its
    place in the block, never on how many rows follow it.

    Args:
        block: float16 [n_rows, n_numbers], C-contiguous.
        panel: The queries and their mean.

    Returns:
        float32 [n_queries + 1, n_rows]; the last line holds the rows' values.

    Raises:
        ValueError: Lengths differ, or a row has a number that is not finite.
    """
    if block.ndim != 2 or block.shape[1] != panel.n_numbers:
        raise ValueError(
            f"expected rows of {panel.n_numbers} numbers, as the queries have, "
            f"got a block of shape {list(block.shape)}"
        )
    vectors, products = _tensor(panel.vectors), _fastest_products()
    scores = np.empty((len(panel.vectors), len(block)), np.float32)
    widened = torch.zeros((SLICE_ROWS, panel.n_numbers))
    for start in range(0, len(block), SLICE_ROWS):
        rows = block[start : start + SLICE_ROWS]
        widened[: len(rows)].copy_(_tensor(rows))
        scores[:, start : start + SLICE_ROWS] = products(vectors, widened)[:, : len(rows)]
    _refuse_not_finite(block, scores, np.arange(len(block)))
    return scores


def scores_in_place(
    rows: Float16[np.ndarray, "rows numbers"], places: Int64[np.ndarray, " rows"], panel: QueryPanel
) -> Float32[np.ndarray, "vectors rows"]:
    """Return the scores of a few rows of a block, with the bits that `block_scores` gives them.

    Each row is multiplied at the place that it has in its slice, whatever lies at the others: rows
    of several slices share a product where their places differ.

    Args:
        rows: float16 [n_rows, n_numbers].
        places: int64 [n_rows], ascending positions of the rows in their block.
        panel: The queries and their mean.

    Raises:
        ValueError: A row has a number that is not finite.
    """
    vectors, products = _tensor(panel.vectors), _fastest_products()
    scores = np.empty((len(panel.vectors), len(rows)), np.float32)
    widened = torch.zeros((SLICE_ROWS, panel.n_numbers))
    slots = places % SLICE_ROWS
    turns = _occurrences(slots)
    for turn in range(int(turns.max(initial=-1)) + 1):
        chosen = np.flatnonzero(turns == turn)
        slot = torch.from_numpy(slots[chosen])
        widened[slot] = _tensor(rows[chosen]).float()
        scores[:, chosen] = products(vectors, widened)[:, slot]
    _refuse_not_finite(rows, scores, places)
    return scores


def _occurrences(values: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Return for each value how many equal ones come before it."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    counts = np.empty(len(values), np.int64)
    counts[order] = np.arange(len(values)) - np.searchsorted(ordered, ordered)
    return counts


def _fastest_products() -> Callable[[Tensor, Tensor], Tensor]:
    return onednn_products if _onednn_is_faster() else plain_products


def onednn_products(
    vectors: Float32[Tensor, "vectors numbers"], rows: Float32[Tensor, "rows numbers"]
) -> Float32[Tensor, "vectors rows"]:
    """Return inner products by oneDNN, to which torch sends float32 products only when told to."""
    return torch.ops.mkldnn._linear_pointwise(vectors, rows, None, "none", [], "")


def plain_products(
    vectors: Float32[Tensor, "vectors numbers"], rows: Float32[Tensor, "rows numbers"]
) -> Float32[Tensor, "vectors rows"]:
    """Return the same by the BLAS of NumPy, up to the rounding of float32 sums."""
    return torch.from_numpy(vectors.numpy() @ rows.numpy().T)


@functools.cache
def _onednn_is_faster() -> bool:
    """Tell whether torch has oneDNN, and the processor the instructions where it wins."""
    return (
        torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _tensor(array: np.ndarray) -> Tensor:
    # torch wants arrays that could be written to; those that came over a network cannot
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _refuse_not_finite(
    rows: Float16[np.ndarray, "rows numbers"],
    scores: Float32[np.ndarray, "vectors rows"],
    places: Int64[np.ndarray, " rows"],
) -> None:
    # a number that is not finite makes every score of its row NaN or infinite, and those are fewer
    suspects = np.flatnonzero(~np.isfinite(scores).all(axis=0))
    bad = suspects[~np.isfinite(rows[suspects]).all(axis=1)]
    if len(bad):
        raise ValueError(f"row {places[bad[0]]} of the block has a number that is not finite")


def ranks_of(order: Int64[np.ndarray, " rows"]) -> UInt32[np.ndarray, " rows"]:
    """Return each row's rank from the order that sorts the row ids.

    Args:
        order: int64 [n_rows]; ``order[0]`` is the position of the smallest row id.

    Raises:
        ValueError: More rows than a key can tell apart.
    """
    if len(order) > MAX_ROWS:
        raise ValueError(f"{len(order)} rows, but ranks go up to {MAX_ROWS}; split the index")
    ranks = np.empty(len(order), np.uint32)
    ranks[order] = np.arange(len(order), dtype=np.uint32)
    return ranks


def sort_keys(
    scores: Float32[np.ndarray, "*queries rows"], ranks: UInt32[np.ndarray, " rows"]
) -> UInt64[np.ndarray, "*queries rows"]:
    """Return integers whose ascending order is: higher score first, then smaller rank.

    Args:
        scores: float32 [..., n_rows], finite.
        ranks: uint32 [n_rows], all different.
    """
    # adding 0 turns -0.0 into 0.0, which compares equal and must tie
    bits = (scores + np.float32(0.0)).view(np.uint32)
    descending = np.where(bits >> np.uint32(31), bits, ~bits & np.uint32(0x7FFF_FFFF))
    return (descending.astype(np.uint64) << np.uint64(32)) | ranks


def top_keys(
    scores: Float32[np.ndarray, "queries rows"],
    ranks: UInt32[np.ndarray, " rows"],
    eligible: Bool[np.ndarray, " rows"] | Bool[np.ndarray, "queries rows"],
    *,
    top_k: int,
) -> UInt64[np.ndarray, "queries kept"]:
    """Return the keys of the best ``top_k`` rows of a block, a query a line.

    Args:
        scores: float32 [n_queries, n_rows], finite.
        ranks: uint32 [n_rows], each row's rank among all row ids of the index.
        eligible: bool [n_rows], or for each query [n_queries, n_rows]; rows without positions are
            not and never appear.
        top_k: Rows wanted a query, at least 1.

    Returns:
        uint64 [n_queries, min(top_k, n_rows)], ascending, `NO_ROW` where rows run out.
    """
    if top_k >= scores.shape[1]:
        return _smallest(np.where(eligible, sort_keys(scores, ranks), NO_ROW), top_k)
    # keys only of rows that reach the k-th best score: few, unless many tie there
    scores = np.where(eligible, scores, np.float32(-np.inf))
    least = np.partition(scores, -top_k, axis=1)[:, -top_k, None]
    keys = _packed_keys(scores, ranks, (scores >= least) & eligible)
    return _smallest(_at_least(keys, top_k), top_k)


def _packed_keys(
    scores: Float32[np.ndarray, "queries rows"],
    ranks: UInt32[np.ndarray, " rows"],
    chosen: Bool[np.ndarray, "queries rows"],
) -> UInt64[np.ndarray, "queries most_chosen"]:
    """Return the keys of each query's chosen rows, `NO_ROW` behind them."""
    counts = chosen.sum(axis=1)
    queries, rows = np.nonzero(chosen)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    keys = np.full((len(scores), counts.max(initial=0)), NO_ROW)
    keys[queries, places] = sort_keys(scores[queries, rows], ranks[rows])
    return keys


def _at_least(
    keys: UInt64[np.ndarray, "queries keys"], n_keys: int
) -> UInt64[np.ndarray, "queries padded"]:
    missing = max(0, n_keys - keys.shape[1])
    return np.pad(keys, ((0, 0), (0, missing)), constant_values=NO_ROW)


def merge_keys(
    parts: Sequence[UInt64[np.ndarray, "queries _"]], *, top_k: int
) -> UInt64[np.ndarray, "queries kept"]:
    """Merge the top keys of several blocks; any order and any nesting give the same answer.

    Args:
        parts: uint64 [n_queries, any] each, at least one.
        top_k: Rows wanted a query, at least 1.

    Returns:
        uint64 [n_queries, min(top_k, keys given)], ascending.
    """
    return _smallest(np.concatenate(parts, axis=1), top_k)


def _smallest(
    keys: UInt64[np.ndarray, "queries keys"], top_k: int
) -> UInt64[np.ndarray, "queries kept"]:
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    if top_k < keys.shape[1]:
        keys = np.partition(keys, top_k - 1, axis=1)[:, :top_k]
    return np.sort(keys, axis=1)


def split_keys(
    keys: UInt64[np.ndarray, "*keys"],
) -> tuple[UInt32[np.ndarray, "*keys"], Float32[np.ndarray, "*keys"]]:
    """Return the ranks and the scores that the keys of rows were made of.

    Raises:
        ValueError: A key stands for no row; drop those first.
    """
    if (keys == NO_ROW).any():
        raise ValueError("expected keys of rows only, got a key that stands for no row")
    descending = (keys >> np.uint64(32)).astype(np.uint32)
    negative = descending >> np.uint32(31)
    bits = np.where(negative, descending, ~descending & np.uint32(0x7FFF_FFFF))
    return keys.astype(np.uint32), bits.view(np.float32)
