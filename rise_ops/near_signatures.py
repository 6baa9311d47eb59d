"""Has a row with nearly this signature been taken? By the cosine, of all pairs.

Signatures longer than KEPT_NUMBERS are projected to so many by random signs (Johnson and
Lindenstrauss 1984; signs: Achlioptas 2003): a cosine ``c`` is then off by about
``(1 - c^2) / sqrt(KEPT_NUMBERS)``, 0.004 at 0.95. The first PREFIX_NUMBERS of them leave out
pairs that lie far below the threshold, five standard errors; the rest are compared whole.

Sign codes keep angles, not cosines: of two Gaussian vectors at cosine ``c`` the signs are at
``2 / pi asin(c)``, and the threshold is moved there.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float16, Float32, Int32, Int64

from rise_ops.codes import Code

KEPT_NUMBERS = 512
PREFIX_NUMBERS = 128
STANDARD_ERRORS = 5.0
"""By how many a pair may lie below the threshold in the prefix and still be compared whole."""

TAKEN_ROWS = 16_384
LOOKED_ROWS = 2_048
"""Rows that are multiplied with at once; the walk looks at as many at most, but for diversity."""

PAIRS = 16_384
"""Pairs that are compared whole at once, where few are close."""

MANY_CLOSE = 0.02
"""Share of close pairs from which all are compared whole, as one product: that is faster."""

SEED = 0x5164

_Near = tuple[float, int]


class Shortener:
    """Makes signatures of any length short vectors with nearly the same cosines."""

    def __init__(self, n_numbers: int, n_kept: int = KEPT_NUMBERS) -> None:
        """Draw the signs; raw bits of PCG64, which no release of NumPy may change.

        Args:
            n_numbers: Numbers of a signature; if no more than kept, nothing is drawn.
            n_kept: Numbers kept, a multiple of 64.
        """
        self._signs: Float32[np.ndarray, "numbers kept"] | None = None
        if n_numbers > n_kept:
            words = np.random.PCG64(SEED).random_raw(n_numbers * n_kept // 64)
            bits = np.unpackbits(words.astype("<u8").view(np.uint8)).reshape(n_numbers, n_kept)
            self._signs = bits.astype(np.float32) * 2 - 1

    def shorten(
        self, signatures: Float32[np.ndarray, "rows numbers"]
    ) -> Float16[np.ndarray, "rows kept"]:
        """Return vectors of length 1, zeros for zeros."""
        vectors = signatures if self._signs is None else signatures @ self._signs
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float16)


def threshold_of_code(threshold: float, code: Code) -> float:
    """Return the cosine of codes that stands for a cosine of signatures."""
    return float(2 / np.pi * np.arcsin(threshold)) if code == "sign" else threshold


class NearSignatures:
    """The rows taken so far, by their shortened signatures."""

    def __init__(self, threshold: float, n_kept: int) -> None:
        """Start empty.

        Args:
            threshold: Least cosine, above 0 to 1; half a float16 step below it counts as equal.
            n_kept: Numbers of a shortened signature.
        """
        self._least = np.float32(threshold - 2e-3 * (1 - threshold) - 5e-4)
        self._n_prefix = PREFIX_NUMBERS if n_kept > PREFIX_NUMBERS * 2 else n_kept
        slack = STANDARD_ERRORS * (1 - threshold**2) / np.sqrt(self._n_prefix)
        self._least_of_prefix = self._least - np.float32(slack if n_kept > self._n_prefix else 0)
        self._taken = np.zeros((0, n_kept), np.float16)
        self._prefixes = np.zeros((0, self._n_prefix), np.float32)
        self._taken_rows: list[int] = []
        self._near: list[_Pairs] = []

    def look(
        self, rows: Int64[np.ndarray, " some"], vectors: Float16[np.ndarray, "some kept"]
    ) -> None:
        """Compare rows with all taken ones and with one another."""
        self._rows, self._vectors = rows, vectors
        self._near = []
        self._has_near = np.zeros(len(rows), bool)
        own = _unit(vectors[:, : self._n_prefix].astype(np.float32))
        self._own_prefixes = own
        n_taken = len(self._taken_rows)
        for start in range(0, n_taken, TAKEN_ROWS):
            stop = min(start + TAKEN_ROWS, n_taken)
            close = own @ self._prefixes[start:stop].T >= self._least_of_prefix
            self._compare(close, self._taken[start:stop], self._taken_rows[start:stop])
        for start in range(0, len(rows), LOOKED_ROWS):
            stop = start + LOOKED_ROWS
            close = own @ own[start:stop].T >= self._least_of_prefix
            np.fill_diagonal(close[start:stop], val=False)
            self._compare(close, vectors[start:stop], rows[start:stop].tolist())

    def like(self, row: int, is_taken: Bool[np.ndarray, " all_rows"]) -> tuple[int, float] | None:
        """Return the taken row nearest to a row that was looked at, and the cosine.

        Args:
            row: Its number.
            is_taken: Of every row whether it was taken, bool.
        """
        at = int(np.searchsorted(self._rows, row))
        if not self._has_near[at]:
            return None
        near = [found for pairs in self._near if (found := pairs.nearest(at, is_taken)) is not None]
        return (min(near)[1], -min(near)[0]) if near else None

    def take(self, row: int) -> None:
        """Count a row that was looked at among the taken."""
        at = int(np.searchsorted(self._rows, row))
        n_taken = len(self._taken_rows)
        if n_taken == len(self._taken):
            more = max(1024, n_taken)
            self._taken = np.concatenate(
                [self._taken, np.zeros((more, self._taken.shape[1]), np.float16)]
            )
            self._prefixes = np.concatenate(
                [self._prefixes, np.zeros((more, self._n_prefix), np.float32)]
            )
        self._taken[n_taken] = self._vectors[at]
        self._prefixes[n_taken] = self._own_prefixes[at]
        self._taken_rows.append(row)

    def _compare(
        self,
        close: Bool[np.ndarray, "looked others"],
        other_vectors: Float16[np.ndarray, "others kept"],
        other_rows: list[int],
    ) -> None:
        """Keep those of the close pairs whose whole vectors reach the threshold."""
        lines, others = np.nonzero(close)
        cosines = self._cosines(close, lines, others, other_vectors)
        near = cosines >= self._least
        self._has_near[lines[near]] = True
        rows = np.asarray(other_rows, np.int32)
        if near.any():
            lines = lines.astype(np.int32)
            self._near.append(_Pairs(lines[near], rows[others[near]], cosines[near]))

    def _cosines(
        self,
        close: Bool[np.ndarray, "looked others"],
        lines: Int64[np.ndarray, " pairs"],
        others: Int64[np.ndarray, " pairs"],
        other_vectors: Float16[np.ndarray, "others kept"],
    ) -> Float32[np.ndarray, " pairs"]:
        """Return the cosines of the close pairs, in the order of ``close``."""
        if len(lines) > MANY_CLOSE * close.size:
            return (self._vectors.astype(np.float32) @ other_vectors.astype(np.float32).T)[close]
        found = np.empty(len(lines), np.float32)
        for start in range(0, len(lines), PAIRS):
            part = slice(start, start + PAIRS)
            left = self._vectors[lines[part]].astype(np.float32)
            right = other_vectors[others[part]].astype(np.float32)
            found[part] = np.einsum("pk,pk->p", left, right)
        return found


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Near pairs: places among the rows looked at, ascending; the other rows; their cosines."""

    lines: Int32[np.ndarray, " pairs"]
    others: Int32[np.ndarray, " pairs"]
    cosines: Float32[np.ndarray, " pairs"]

    def nearest(self, line: int, is_taken: Bool[np.ndarray, " all_rows"]) -> _Near | None:
        """Return the nearest taken row, of equally near ones the first, behind minus the cosine."""
        # of the lines' own type: others would be copied to it, all of them, for every row
        first, last = np.searchsorted(self.lines, np.array([line, line + 1], np.int32))
        taken = is_taken[self.others[first:last]]
        if not taken.any():
            return None
        others, cosines = self.others[first:last][taken], self.cosines[first:last][taken]
        nearest = cosines.max()
        return -float(nearest), int(others[cosines == nearest].min())


def _unit(vectors: Float32[np.ndarray, "rows numbers"]) -> Float32[np.ndarray, "rows numbers"]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)
