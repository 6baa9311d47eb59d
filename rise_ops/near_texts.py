"""Has a text like this one been taken? By MinHash digests, in bands.

Broder 1997 (MinHash); Indyk and Motwani 1998 (bands). Two digests agree in a number with the
probability of the texts' Jaccard index; of ``n`` numbers the standard error is
sqrt(J (1 - J) / n). Rows that agree in one band at least are compared whole. Nearly all rows share
no band with any other; they are told apart for a whole block at once.
"""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, UInt32, UInt64

from rise_ops.shingles import mixed

MISSED = 1e-3
"""Most pairs exactly as similar as asked for that may share no band; more similar ones: fewer."""


def band_width(threshold: float, n_numbers: int) -> int:
    """Return the widest band with which at most MISSED pairs at the threshold share none."""
    width = 1
    while width < n_numbers:
        wider = width + 1
        if (1.0 - threshold**wider) ** (n_numbers // wider) > MISSED:
            break
        width = wider
    return width


class NearTexts:
    """The rows taken so far, by their digests."""

    def __init__(self, threshold: float, n_numbers: int) -> None:
        """Start empty.

        Args:
            threshold: Least similarity, above 0 to 1.
            n_numbers: Numbers of a digest.
        """
        self._least = int(np.ceil(threshold * n_numbers - 1e-9))
        self._n_numbers = n_numbers
        self._width = band_width(threshold, n_numbers)
        self._known_keys = np.zeros(0, np.uint64)
        self._known_rows = np.zeros(0, np.int32)
        self._known_digests: list[tuple[int, UInt32[np.ndarray, "taken numbers"]]] = []
        self._n_taken = 0
        self._row_of_taken: list[int] = []
        self._start_block(np.zeros(0, np.int64), np.zeros((0, n_numbers), np.uint32))

    def start_block(
        self, rows: Int64[np.ndarray, " block"], digests: UInt32[np.ndarray, "block numbers"]
    ) -> None:
        """Get rows ready to be asked about; rows of earlier blocks no longer are.

        Args:
            rows: Their numbers.
            digests: Theirs.
        """
        self._close_block()
        self._start_block(rows, digests)

    def like(self, row: int) -> tuple[int, float] | None:
        """Return the taken row most similar to a row of the block, and how similar; None if below.

        Of equally similar ones the one taken first.
        """
        at = self._at[row]
        if not self._has_shared[at]:
            return None
        found: set[int] = set()
        for key in self._shared_keys(at):
            found.update(self._here.get(key, ()))
            low = int(np.searchsorted(self._known_keys, np.uint64(key), "left"))
            high = int(np.searchsorted(self._known_keys, np.uint64(key), "right"))
            found.update(self._known_rows[low:high].tolist())
        if not found:
            return None
        taken = sorted(found)
        agreeing = (self._digests_of_taken(taken) == self._digests[at]).sum(axis=1)
        best = int(np.argmax(agreeing))
        if agreeing[best] < self._least:
            return None
        return self._row_of_taken[taken[best]], float(agreeing[best]) / self._n_numbers

    def take(self, row: int) -> None:
        """Count a row of the block among the taken."""
        at = self._at[row]
        self._taken_here.append(at)
        self._row_of_taken.append(row)
        if self._has_shared[at]:
            for key in self._shared_keys(at):
                self._here.setdefault(key, []).append(self._n_taken)
        self._n_taken += 1

    def _start_block(
        self, rows: Int64[np.ndarray, " block"], digests: UInt32[np.ndarray, "block numbers"]
    ) -> None:
        self._at = {row: at for at, row in enumerate(rows.tolist())}
        self._digests = digests
        self._keys = self._band_keys(digests)
        self._is_shared = _repeats(self._keys) | _among(self._keys, self._known_keys)
        self._has_shared: list[bool] = self._is_shared.any(axis=1).tolist()
        self._here: dict[int, list[int]] = {}
        self._taken_here: list[int] = []

    def _shared_keys(self, at: int) -> list[int]:
        keys: list[int] = self._keys[at][self._is_shared[at]].tolist()
        return keys

    def _digests_of_taken(self, taken: Sequence[int]) -> UInt32[np.ndarray, "some numbers"]:
        """Return digests of taken rows, numbered in the order of taking."""
        here = self._n_taken - len(self._taken_here)
        lines = []
        for number in taken:
            if number >= here:
                lines.append(self._digests[self._taken_here[number - here]])
            else:
                place = bisect_right(self._known_digests, number, key=lambda part: part[0]) - 1
                first, digests = self._known_digests[place]
                lines.append(digests[number - first])
        return np.stack(lines)

    def _close_block(self) -> None:
        """Sort the band keys of the rows that were taken in among the known ones."""
        if not self._taken_here:
            return
        first = self._n_taken - len(self._taken_here)
        self._known_digests.append((first, self._digests[self._taken_here]))
        keys = self._keys[self._taken_here]
        numbers = np.arange(first, self._n_taken, dtype=np.int32)
        all_keys = np.concatenate([self._known_keys, keys.ravel()])
        all_rows = np.concatenate([self._known_rows, np.repeat(numbers, keys.shape[1])])
        order = np.argsort(all_keys, kind="stable")
        self._known_keys, self._known_rows = all_keys[order], all_rows[order]

    def _band_keys(
        self, digests: UInt32[np.ndarray, "block numbers"]
    ) -> UInt64[np.ndarray, "block bands"]:
        """Return a number for every band of every row; equal bands have equal numbers."""
        n_bands = self._n_numbers // self._width
        bands = digests[:, : n_bands * self._width].reshape(len(digests), n_bands, self._width)
        keys = np.broadcast_to(np.arange(n_bands, dtype=np.uint64), bands.shape[:2])
        for number in range(self._width):
            keys = mixed(keys + bands[:, :, number])
        return np.ascontiguousarray(keys)


def _repeats(keys: UInt64[np.ndarray, "block bands"]) -> np.ndarray:
    """Tell which keys occur more than once."""
    flat = keys.ravel()
    order = np.argsort(flat)
    equal = flat[order[1:]] == flat[order[:-1]]
    found = np.zeros(len(flat), bool)
    found[order[1:][equal]] = True
    found[order[:-1][equal]] = True
    return found.reshape(keys.shape)


def _among(
    keys: UInt64[np.ndarray, "block bands"], known: UInt64[np.ndarray, " known"]
) -> np.ndarray:
    """Tell which keys are among sorted ones."""
    if len(known) == 0:
        return np.zeros(keys.shape, bool)
    at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return known[at] == keys
