"""How unusual is a score among random rows: percentile, robust z, false discoveries.

The *null* is what random rows score. Some of them may truly matter, and those push only the upper
end up; the null of the upper tail is therefore the lower half, mirrored about the median (Efron
2004 calls such a null empirical; counting by a mirror: Barber and Candes 2015). It is right where
unrelated rows score symmetrically about the median, and too small where they are skewed upwards.
Source: METHOD.md, section "What a score means".
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float64, Int64

MAD_TO_DEVIATION = 1.4826
"""Standard deviations of a Gaussian in a median absolute deviation."""

TAIL_ROWS = 64
"""Farthest mirrored rows to which the exponential tail is fitted; a quarter of them at most."""


@dataclass(frozen=True, eq=False)
class NullScores:
    """What random rows score.

    Attributes:
        sample: Their scores, ascending, float64 [sampled], at least one.
    """

    sample: Float64[np.ndarray, " sampled"]

    @classmethod
    def of(cls, scores: Float[np.ndarray, " sampled"]) -> "NullScores":
        """Take the scores of random rows, in any order.

        Raises:
            ValueError: There is none.
        """
        if len(scores) == 0:
            raise ValueError("expected the scores of at least one random row, got none")
        return cls(np.sort(scores.astype(np.float64)))

    @cached_property
    def median(self) -> float:
        """Middle of the scores."""
        return float(np.median(self.sample))

    @cached_property
    def deviation(self) -> float:
        """Standard deviation of a Gaussian with the same median absolute deviation.

        Where more than half of the scores are equal: that with the same mean absolute deviation.
        """
        distances = np.abs(self.sample - self.median)
        robust = MAD_TO_DEVIATION * float(np.median(distances))
        return robust if robust > 0 else float(np.sqrt(np.pi / 2) * distances.mean())

    def percentile(self, scores: Float[np.ndarray, " scores"]) -> Float64[np.ndarray, " scores"]:
        """Return the share of random rows that score less, equal ones by half; 0 to 100."""
        wide = scores.astype(np.float64)
        below = np.searchsorted(self.sample, wide, "left")
        up_to = np.searchsorted(self.sample, wide, "right")
        return 50.0 * (below + up_to) / len(self.sample)

    def z(self, scores: Float[np.ndarray, " scores"]) -> Float64[np.ndarray, " scores"]:
        """Return distances from the median in robust standard deviations; 0 if all are equal."""
        distances = scores.astype(np.float64) - self.median
        return distances / self.deviation if self.deviation > 0 else np.zeros(len(scores))

    def chance(self, scores: Float[np.ndarray, " scores"]) -> Float64[np.ndarray, " scores"]:
        """Return how probable it is that an unrelated row scores at least this; above 0.

        Counts of mirrored rows, with one added above and below the line; beyond the farthest
        TAIL_ROWS an exponential tail with their mean excess continues them.
        """
        n_sampled = len(self.sample)
        mirrored = self._mirrored
        above = scores.astype(np.float64) - self.median
        farther = len(mirrored) - np.searchsorted(mirrored, above, "left")
        # below the median, what is not in the lower tail
        nearer = n_sampled - (len(mirrored) - np.searchsorted(mirrored, -above, "right"))
        counted = (1.0 + np.where(above > 0, farther, nearer)) / (n_sampled + 1.0)
        n_tail = max(1, min(TAIL_ROWS, len(mirrored) // 4))
        start = float(mirrored[-n_tail])
        excess = float((mirrored[-n_tail:] - start).mean())
        beyond = above > max(start, 0.0)
        if excess == 0:
            return counted
        tail = np.exp(-(np.where(beyond, above, start) - start) / excess)
        at_start = (1.0 + n_tail) / (n_sampled + 1.0)
        return np.where(beyond, at_start * tail, counted)

    def false_discovery(
        self,
        scores: Float[np.ndarray, " scores"],
        ranks: Int64[np.ndarray, " scores"],
        *,
        n_rows: int,
    ) -> Float64[np.ndarray, " scores"]:
        """Estimate which share of the rows up to each one is there by chance.

        Args:
            scores: Scores of the best rows, descending.
            ranks: Each one's rank among all rows, from 1, ascending.
            n_rows: All rows.

        Returns:
            0 to 1, never falling down the list: the least share at which the row is let in.
        """
        expected = n_rows * self.chance(scores)
        shares = np.minimum(1.0, expected / ranks)
        return np.minimum.accumulate(shares[::-1])[::-1]

    @cached_property
    def _mirrored(self) -> Float64[np.ndarray, " half"]:
        """Distances of the lower half from the median, ascending."""
        return (self.median - self.sample[: (len(self.sample) + 1) // 2])[::-1]
