"""Scores of coded rows, without decoding them: exact integer sums, so the same bits anywhere.

Rows are small integers already (+1 and -1, or int8). Queries become integers too: each one in
steps of a power of two, 2^-22 or less of its largest number, which is as fine as the last digits
of a float32 sum. Every sum of products is then exact, in whatever order and on whatever machine,
and one rounding at the end makes the float32 score. So no block size, scheduler or library can
change a bit.

Measured on one core with 8-bit dot-product instructions (AVX-512 VNNI; shared machine, best of 15
turns), seconds for 1,000,000 rows of 8,192 bits and 101 queries: this product 7 and unpacking 0.7;
float32 product of unpacked rows 15; float64 33; faiss-cpu RaBitQ 40; numkong's int8 product 50, its
Hamming distance 0.5 for each bit of a query's precision; NumPy's popcount 100 a bit; a table of 256
sums a byte and query 4,300. The integer product takes three passes, one a byte of the query.
"""

import functools
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int8, Int64
from torch import Tensor

from rise_ops.codes import INT8_STEPS, RowCodes, unpacked
from rise_ops.scoring import QueryPanel

QUERY_BITS = 22
"""A query's largest number is 2^21 to 2^22 steps; three bytes hold that with its sign."""

N_BYTES = 3

_LARGEST_BYTE = 128
MOST_NUMBERS = (2**31 - 1) // (_LARGEST_BYTE * INT8_STEPS)
"""Longest rows whose sums fit into 32 bits whatever the numbers: 132,104."""

_LEAST_NUMBERS = 2
"""torch 2.13 gives wrong int8 products of vectors of one number, right ones of all others tried."""

_SLICE_BYTES = 1 << 20
"""Rows unpacked and multiplied at once, as int8: they stay in cache."""


@dataclass(frozen=True, eq=False)
class IntegerPanel:
    """A `QueryPanel` in integers: query = step * number; the last query is the mean of the others.

    Attributes:
        numbers: Integers up to 2^22.
        digits: Their three bytes, each -128 to 127: number = low + 256 middle + 65536 high. All
            queries' low bytes come first, then the middle ones, then the high ones.
        steps: Step of each query, a power of two.
    """

    numbers: Float64[np.ndarray, "vectors numbers"]
    digits: Int8[np.ndarray, "three_times_vectors numbers"]
    steps: Float64[np.ndarray, " vectors"]

    @property
    def n_numbers(self) -> int:
        """Length of a signature."""
        return int(self.digits.shape[1])


def integer_panel(panel: QueryPanel) -> IntegerPanel:
    """Round each query to multiples of its step; nothing else on the way to a score rounds."""
    largest = np.abs(panel.vectors).max(axis=1, initial=0.0).astype(np.float64)
    # frexp: largest < 2^exponent, so that a number is at most 2^22 steps, after rounding as well
    steps = np.ldexp(1.0, np.frexp(largest)[1].astype(np.int32) - QUERY_BITS)
    numbers = np.rint(panel.vectors.astype(np.float64) / steps[:, None])
    return IntegerPanel(numbers, _bytes_of(numbers.astype(np.int64)), steps)


def code_scores(codes: RowCodes, panel: IntegerPanel) -> Float32[np.ndarray, "vectors rows"]:
    """Return the inner products of coded rows with the panel.

    ``sign``: scale * <q, +1 and -1>, with scale sqrt(pi / 2) |x| / sqrt(D). ``int8``:
    scale * <q, codes>. Each is exact for the panel's queries but for one rounding to float32.

    Args:
        codes: int8 or sign codes.
        panel: The queries and their mean.

    Returns:
        float32 [n_queries + 1, n_rows]; the last line holds the rows' values. Rows with scale 0
        score 0.

    Raises:
        ValueError: Rows are float16, or lengths differ, or a scale is not finite.
    """
    if codes.scales is None:
        raise ValueError("expected int8 or sign codes, got float16 rows; use block_scores")
    if codes.n_numbers != panel.n_numbers:
        raise ValueError(
            f"expected rows of {panel.n_numbers} numbers, as the queries have, got "
            f"{codes.n_numbers}"
        )
    if not np.isfinite(codes.scales).all():
        bad = int(np.flatnonzero(~np.isfinite(codes.scales))[0])
        raise ValueError(f"row {bad} of the block has a scale that is not finite")
    n_rows = len(codes.scales)
    panel = replace(panel, digits=np.require(panel.digits, requirements=["C", "W"]))
    scores = np.empty((len(panel.steps), n_rows), np.float32)
    factors = codes.scales.astype(np.float64)
    size = max(16, _SLICE_BYTES // panel.n_numbers)
    products = integer_products if _fast_is_right(panel.n_numbers) else plain_products
    for start in range(0, n_rows, size):
        part = slice(start, start + size)
        exact = products(panel, unpacked(codes.values[part]))
        exact *= panel.steps[:, None]
        np.multiply(exact, factors[part], out=scores[:, part], casting="same_kind")
    return scores


def integer_products(
    panel: IntegerPanel, rows: Int8[np.ndarray, "rows numbers"]
) -> Float64[np.ndarray, "vectors rows"]:
    """Return the inner products of the panel's integers with codes, byte by byte.

    Args:
        panel: Queries in integers.
        rows: Codes, -127 to 127; at most `MOST_NUMBERS` a row.
    """
    sums = torch._int_mm(_tensor(panel.digits), _tensor(rows).T).numpy()
    low, middle, high = sums.reshape(N_BYTES, -1, len(rows))
    exact = np.multiply(high, 256.0)
    exact += middle
    exact *= 256.0
    exact += low
    return exact


def plain_products(
    panel: IntegerPanel, rows: Int8[np.ndarray, "rows numbers"]
) -> Float64[np.ndarray, "vectors rows"]:
    """Return the same from a float64 product: its sums stay below 2^53 and are exact as well."""
    return panel.numbers @ rows.astype(np.float64).T


@functools.cache
def integer_products_are_exact() -> bool:
    """Tell whether this machine multiplies int8 fast and without saturating; asked once.

    Machines before VNNI add pairs of products in 16 bits, where they saturate: the largest codes
    are tried, not only the processor's word taken.
    """
    if not torch.cpu._is_vnni_supported():
        return False
    ends = np.array([[-1.0, 1.0]] * 128, np.float32).reshape(1, -1)
    panel = integer_panel(QueryPanel(np.concatenate([np.ones_like(ends), -ends, ends / 3])))
    rows = np.full((16, ends.size), INT8_STEPS, np.int8)
    rows[1::2] = -INT8_STEPS
    rows[2::3, ::2] = -INT8_STEPS
    return np.array_equal(integer_products(panel, rows), plain_products(panel, rows))


def _fast_is_right(n_numbers: int) -> bool:
    return _LEAST_NUMBERS <= n_numbers <= MOST_NUMBERS and integer_products_are_exact()


def _tensor(array: Int8[np.ndarray, "rows numbers"]) -> Int8[Tensor, "rows numbers"]:
    # torch wants arrays that could be written to; those that came over a network cannot
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _bytes_of(
    numbers: Int64[np.ndarray, "vectors numbers"],
) -> Int8[np.ndarray, "three_times_vectors numbers"]:
    digits = []
    for _ in range(N_BYTES):
        low = ((numbers + _LARGEST_BYTE) & 255) - _LARGEST_BYTE
        digits.append(low.astype(np.int8))
        numbers = (numbers - low) >> 8
    return np.concatenate(digits)
