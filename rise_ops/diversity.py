"""Rows that are worth having and unlike one another: two rules, both greedy, ties by value.

Maximal marginal relevance (Carbonell and Goldstein 1998) takes the row of highest
``(1 - w) relevance - w (largest cosine with a taken row)``.

Facility location (Nemhauser, Wolsey and Fisher 1978) takes the row that adds most to
``(1 - w) (relevance of the taken) / scale + w (mean over candidates of the largest cosine with a
taken row, 0 at least)``. This is monotone and submodular, so greedy reaches 1 - 1/e of the best
possible, if only the number of rows is bounded. A row's gain only falls, so a gain that was
computed earlier bounds it from above, and most rows need not be computed again (Minoux 1978).
"""

import heapq
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float16, Float32, Float64, Int64

TILE_ROWS = 1_024
"""Candidates widened and multiplied at once."""


@runtime_checkable
class Ranker(Protocol):
    """Says which candidate comes next, given what was taken."""

    def best(self) -> int | None:
        """Return the best candidate that is neither taken nor dropped, None at the end."""

    def take(self, candidate: int) -> None:
        """Learn that it was taken."""

    def drop(self, candidate: int) -> None:
        """Learn that it was dropped."""


def relevance(values: Float32[np.ndarray, " candidates"]) -> Float64[np.ndarray, " candidates"]:
    """Return preferred values scaled to 0 to 1 over the candidates; all 1 if they are equal."""
    wide = values.astype(np.float64)
    low, high = wide.min(), wide.max()
    return (wide - low) / (high - low) if high > low else np.ones(len(wide))


def all_cosines(
    vectors: Float16[np.ndarray, "candidates numbers"],
) -> Float32[np.ndarray, "candidates candidates"]:
    """Return the cosine of every pair of vectors of length 1, tile by tile."""
    n = len(vectors)
    cosines = np.empty((n, n), np.float32)
    for row in range(0, n, TILE_ROWS):
        left = vectors[row : row + TILE_ROWS].astype(np.float32)
        for column in range(0, row + 1, TILE_ROWS):
            right = vectors[column : column + TILE_ROWS].astype(np.float32)
            tile = left @ right.T
            cosines[row : row + TILE_ROWS, column : column + TILE_ROWS] = tile
            cosines[column : column + TILE_ROWS, row : row + TILE_ROWS] = tile.T
    return cosines


class MarginalRelevance:
    """Maximal marginal relevance; candidates come in order of value."""

    def __init__(
        self,
        relevance: Float64[np.ndarray, " candidates"],
        cosines: Float32[np.ndarray, "candidates candidates"],
        *,
        weight: float,
    ) -> None:
        """Start with nothing taken.

        Args:
            relevance: 0 to 1, descending.
            cosines: Of all pairs.
            weight: Weight of diversity, 0 to 1.
        """
        self._relevance, self._cosines, self._weight = relevance, cosines, weight
        self.nearest = np.full(len(cosines), -1.0, np.float32)
        self._open = np.ones(len(cosines), bool)
        self._n_taken = 0

    def best(self) -> int | None:
        """Return the best open candidate; the first has nothing to be unlike."""
        if not self._open.any():
            return None
        likeness = self.nearest.astype(np.float64) if self._n_taken else 0.0
        scores = (1 - self._weight) * self._relevance - self._weight * likeness
        return int(np.argmax(np.where(self._open, scores, -np.inf)))

    def take(self, candidate: int) -> None:
        """Compare all with the taken row."""
        self._open[candidate] = False
        self._n_taken += 1
        np.maximum(self.nearest, self._cosines[candidate], out=self.nearest)

    def drop(self, candidate: int) -> None:
        """Leave it out."""
        self._open[candidate] = False


class FacilityLocation:
    """Lazy greedy on value and coverage; candidates come in order of value."""

    def __init__(
        self,
        relevance: Float64[np.ndarray, " candidates"],
        cosines: Float32[np.ndarray, "candidates candidates"],
        *,
        weight: float,
        scale: float,
    ) -> None:
        """Compute every first gain.

        Args:
            relevance: 0 to 1, descending.
            cosines: Of all pairs.
            weight: Weight of coverage, 0 to 1.
            scale: Relevance of the selection without diversity, above 0.
        """
        n = len(relevance)
        self._cosines = cosines
        self._modular = (1 - weight) * relevance / scale
        self._per_candidate = weight / n
        self.covered = np.zeros(n, np.float32)
        self._open = np.ones(n, bool)
        self.objective = 0.0
        self.n_evaluations = n
        self._gains = np.array([self.gain(candidate) for candidate in range(n)])
        self._heap = [(-gain, candidate) for candidate, gain in enumerate(self._gains.tolist())]
        heapq.heapify(self._heap)
        self._n_taken = 0
        self._computed_at = np.zeros(n, np.int64)

    def gain(self, candidate: int) -> float:
        """Return what taking the candidate now would add to the objective."""
        added = np.maximum(self._cosines[candidate] - self.covered, 0)
        return float(self._modular[candidate] + self._per_candidate * added.sum(dtype=np.float64))

    def best(self) -> int | None:
        """Return the open candidate of highest gain; of equal ones that of higher value."""
        while self._heap:
            _, candidate = self._heap[0]
            if not self._open[candidate]:
                heapq.heappop(self._heap)
            elif self._computed_at[candidate] == self._n_taken:
                return candidate
            else:
                self._gains[candidate] = self.gain(candidate)
                self._computed_at[candidate] = self._n_taken
                self.n_evaluations += 1
                heapq.heapreplace(self._heap, (-self._gains[candidate], candidate))
        return None

    def take(self, candidate: int) -> None:
        """Cover what the row covers."""
        self.objective += self.gain(candidate)
        self._open[candidate] = False
        self._n_taken += 1
        np.maximum(self.covered, self._cosines[candidate], out=self.covered)

    def drop(self, candidate: int) -> None:
        """Leave it out."""
        self._open[candidate] = False

    def upper_bound(
        self,
        candidates: Bool[np.ndarray, " candidates"],
        tokens: Int64[np.ndarray, " candidates"],
        *,
        max_rows: int | None,
        max_tokens: int | None,
    ) -> float:
        """Return what no selection within the bounds can exceed, given what was taken.

        Coverage is submodular, so that of any set T is at most coverage(taken) plus the sum of what
        T's rows would add to it now; their relevance adds up as it is. The largest such sums that
        fit bound every selection; under a budget fractions of rows may count.

        Args:
            candidates: Those that may be in a selection at all, the taken ones too.
            tokens: Of each candidate.
            max_rows: Rows that a selection may have.
            max_tokens: Tokens that it may have.
        """
        rows = np.flatnonzero(candidates)
        gains = np.array([self.gain(row) for row in rows.tolist()])
        n = len(self.covered)
        covered = self._per_candidate * n * float(self.covered.mean(dtype=np.float64))
        if max_tokens is None:
            return covered + float(np.sort(gains)[::-1][:max_rows].sum())
        lengths = np.maximum(tokens[rows], 1)
        order = np.argsort(-gains / lengths, kind="stable")
        used = np.minimum(np.cumsum(lengths[order]), max_tokens)
        shares = np.diff(used, prepend=0) / lengths[order]
        return covered + float((shares * gains[order]).sum())
