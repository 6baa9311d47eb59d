"""In how few bytes can a signature be kept so that rows are still found by inner products?

Three codes. ``float16``: the numbers themselves. ``int8``: every number as a multiple of its row's
largest, in 127 steps. ``sign``: one bit a number; for a unit vector x with about Gaussian numbers
``sqrt(pi / 2) / sqrt(D) <q, sign(x)>`` estimates ``<q, x>`` (Charikar 2002, Plan and Vershynin
2013; queries that stay float: Dong, Charikar, Li 2008). Rows are coded, queries never are, so a
score stays linear in the query and a mean query works.

Numbers of a separable random sketch are structured (buckets that few coordinates hit, channels of
different weight). A rotation first spreads each over all of them: random signs and a Hadamard
transform, twice (Ailon and Chazelle 2009; twice: Yu et al. 2016, arXiv:1610.09072; before coding:
QuIP#, arXiv:2402.04396, RaBitQ, arXiv:2405.12497). It changes no inner product.
Source: METHOD.md, section "Codes".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float16, Float32, Int8, UInt8

Code = Literal["float16", "int8", "sign"]
"""How rows are kept; queries are float32 always."""

INT8_STEPS = 127
"""The largest int8 code; -128 is never used, so that storage can tell a row that is missing."""

_ROUNDS = 2
_SLICE_BYTES = 1 << 20
"""Rows are rotated so many bytes at a time: a butterfly goes over them once a level, in cache."""


@dataclass(frozen=True, eq=False)
class RowCodes:
    """Coded rows.

    Attributes:
        values: float16 [rows, numbers]; int8 [rows, numbers]; or uint8 [rows, numbers / 8], whose
            bit 7 - j of byte i is 1 where number 8 i + j is not negative; never all bits are 0.
        scales: What a row's codes (int8, or +1 and -1) are multiplied with to be its numbers,
            float32; 0 for a row of zeros. None with float16.
    """

    values: (
        Float16[np.ndarray, "rows numbers"]
        | Int8[np.ndarray, "rows numbers"]
        | UInt8[np.ndarray, "rows bytes"]
    )
    scales: Float32[np.ndarray, " rows"] | None

    @property
    def n_numbers(self) -> int:
        """Numbers a row."""
        return self.values.shape[1] * (8 if self.values.dtype == np.uint8 else 1)


def encode(signatures: Float32[np.ndarray, "rows numbers"], code: Code) -> RowCodes:
    """Code rows, each for itself: neighbours and order change nothing.

    Args:
        signatures: Finite; rotated before, where that is needed (see `Rotation`).
        code: How.

    Raises:
        ValueError: A number is not finite or too large, the code is unknown, or signs do not fill
            whole bytes.
    """
    if not np.isfinite(signatures).all():
        bad = int(np.flatnonzero(~np.isfinite(signatures).all(axis=1))[0])
        raise ValueError(f"row {bad} has a number that is not finite")
    if code == "float16":
        return RowCodes(_halves(signatures), None)
    if code == "int8":
        return _encode_int8(signatures)
    if code == "sign":
        return _encode_signs(signatures)
    raise ValueError(f"code must be 'float16', 'int8' or 'sign', got {code!r}")


def decode(codes: RowCodes) -> Float32[np.ndarray, "rows numbers"]:
    """Return the rows that codes stand for; scoring never needs them."""
    if codes.scales is None:
        return codes.values.astype(np.float32)
    return unpacked(codes.values).astype(np.float32) * codes.scales[:, None]


def unpacked(
    values: Int8[np.ndarray, "rows numbers"] | UInt8[np.ndarray, "rows bytes"],
) -> Int8[np.ndarray, "rows numbers"]:
    """Return int8 codes as they are, and sign bits as +1 and -1."""
    if values.dtype == np.int8:
        return values
    # eight signs are looked up at once: a third faster than unpackbits, and already signed
    signs = np.take(_SIGNS_OF_BYTE, values.astype(np.intp), mode="clip")
    return signs.view(np.int8)


def _halves(
    signatures: Float32[np.ndarray, "rows numbers"],
) -> Float16[np.ndarray, "rows numbers"]:
    largest = np.abs(signatures).max(initial=0.0)
    if largest > np.finfo(np.float16).max:
        raise ValueError(f"float16 cannot hold {largest}; scale the signatures to length 1")
    return signatures.astype(np.float16)


def _encode_int8(signatures: Float32[np.ndarray, "rows numbers"]) -> RowCodes:
    scales = np.abs(signatures).max(axis=1, initial=0.0) / np.float32(INT8_STEPS)
    # a row whose scale is not a normal float32 is a row of zeros: its codes could not be told apart
    scales[scales < np.finfo(np.float32).tiny] = 0.0
    divisors = np.where(scales > 0.0, scales, np.float32(np.inf))
    steps = np.rint(signatures / divisors[:, None])
    return RowCodes(np.clip(steps, -INT8_STEPS, INT8_STEPS).astype(np.int8), scales)


def _encode_signs(signatures: Float32[np.ndarray, "rows numbers"]) -> RowCodes:
    n_numbers = signatures.shape[1]
    if n_numbers % 8:
        raise ValueError(f"signs fill whole bytes, but {n_numbers} is not a multiple of 8")
    squares = np.einsum("rd,rd->r", signatures, signatures, dtype=np.float64)
    scales = np.sqrt(squares * (np.pi / 2.0 / n_numbers)).astype(np.float32)
    positive = signatures >= 0.0
    # A row without one bit is how storage tells a row that is missing. Where all numbers are
    # negative, the one nearest to zero passes for positive.
    bare = np.flatnonzero(~positive.any(axis=1))
    positive[bare, signatures[bare].argmax(axis=1)] = True
    return RowCodes(np.packbits(positive, axis=1), scales)


def _signs_of_byte() -> np.ndarray:
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    return (2 * bits.astype(np.int8) - 1).view(np.int64).ravel()


_SIGNS_OF_BYTE = _signs_of_byte()
"""The eight signs of every byte, as one 8-byte word each."""


# ---------------------------------------------------------------------------------- rotation


@dataclass(frozen=True, eq=False)
class Rotation:
    """Random signs and a Hadamard transform, twice; keeps inner products and lengths.

    Vectors are filled up with zeros to a power of two. The numbers that this adds are no waste:
    each is one more measurement of the same vector, and the error of sign bits falls with their
    number. A transform in smaller blocks needs no filling up, but leaves the channels of a
    signature in different blocks, with different weights, which one bit a number cannot show.

    Attributes:
        signs: +1 or -1, one line a round.
        n: Numbers of the vectors that are rotated.
    """

    signs: Int8[np.ndarray, "2 padded"]
    n: int

    @property
    def n_numbers(self) -> int:
        """Numbers of a rotated vector: the next power of two, 8 or more."""
        return int(self.signs.shape[1])

    def apply(
        self, vectors: Float32[np.ndarray, "rows numbers"]
    ) -> Float32[np.ndarray, "rows padded"]:
        """Rotate vectors, each for itself, by additions in a fixed order: the same bits anywhere.

        Raises:
            ValueError: Vectors have another length than the rotation is for.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.n:
            raise ValueError(f"expected vectors of {self.n} numbers, got {list(vectors.shape)}")
        rotated = np.zeros((len(vectors), self.n_numbers), np.float32)
        rotated[:, : self.n] = vectors
        size = max(1, _SLICE_BYTES // (4 * self.n_numbers))
        for start in range(0, len(rotated), size):
            part = rotated[start : start + size]
            for signs in self.signs:
                np.multiply(part, signs, out=part)
                _hadamard(part)
        return rotated

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return two arrays that hold the rotation by value.

        ``rotation_signs`` int8 [2, padded], ``rotation_n`` int32 [1].
        """
        return {"rotation_signs": self.signs, "rotation_n": np.array([self.n], np.int32)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Rotation":
        """Return the rotation that `to_arrays` gave.

        Raises:
            ValueError: An array is missing, or its values cannot be a rotation.
        """
        missing = [name for name in ("rotation_signs", "rotation_n") if name not in arrays]
        if missing:
            raise ValueError(f"the rotation lacks {missing}; found {sorted(arrays)}")
        signs, sizes = np.asarray(arrays["rotation_signs"]), np.asarray(arrays["rotation_n"])
        if signs.ndim != 2 or sizes.shape != (1,):
            raise ValueError(
                f"a rotation is signs [{_ROUNDS}, padded] and n [1], got {signs.shape} and "
                f"{sizes.shape}"
            )
        n = int(sizes[0])
        if n < 1 or signs.shape != (_ROUNDS, rotated_numbers(n)) or np.any(np.abs(signs) != 1):
            raise ValueError(
                f"expected +1 and -1 of shape {(_ROUNDS, rotated_numbers(max(n, 1)))} for vectors "
                f"of {n} numbers, got shape {signs.shape}"
            )
        return cls(signs.astype(np.int8), n)


def rotated_numbers(n: int) -> int:
    """Return how many numbers a rotated vector of ``n`` has: a power of two, whole bytes of bits.

    Args:
        n: Numbers before, 1 or more.
    """
    return max(8, 1 << (n - 1).bit_length())


def draw_rotation(n: int, *, seed: int) -> Rotation:
    """Draw a rotation of vectors of ``n`` numbers, from raw Philox words as sketch tables are.

    Args:
        n: Numbers, 1 or more.
        seed: Seed, 0 to 2^64 - 1.

    Raises:
        ValueError: ``n`` is below 1.
    """
    if n < 1:
        raise ValueError(f"a rotation needs vectors of 1 number or more, got {n}")
    padded = rotated_numbers(n)
    key = np.array([seed, _ROTATION_STREAM], dtype=np.uint64)
    words = np.random.Philox(key=key).random_raw(_ROUNDS * padded)
    signs = (1 - 2 * (words & np.uint64(1)).astype(np.int8)).reshape(_ROUNDS, padded)
    return Rotation(signs, n)


_ROTATION_STREAM = 0x526F74
"""Keeps the rotation's words apart from those of the sketch tables of the same seed."""


def _hadamard(rows: Float32[np.ndarray, "rows padded"]) -> None:
    """Apply the orthogonal Hadamard transform to each row, in place.

    Every level pairs neighbours and writes sums first, differences behind (Pease 1968): all
    levels then run over long lines, and the outcome is in the usual order.
    """
    n_numbers = rows.shape[1]
    half = n_numbers // 2
    source, target = rows, np.empty_like(rows)
    for _ in range(n_numbers.bit_length() - 1):
        left, right = source[:, 0::2], source[:, 1::2]
        np.add(left, right, out=target[:, :half])
        np.subtract(left, right, out=target[:, half:])
        source, target = target, source
    np.multiply(source, np.float32(1.0 / np.sqrt(n_numbers)), out=rows)
