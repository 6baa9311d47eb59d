"""One vector a row for the rows that were read, so that no row is read or sketched twice."""

import numpy as np
from numpy.typing import DTypeLike, NDArray


class RowMemory:
    """Vectors by place, for some of many rows; grows as rows come."""

    def __init__(self, n_rows: int, n_numbers: int, dtype: DTypeLike) -> None:
        """Know nothing of ``n_rows`` rows."""
        self._lines = np.full(n_rows, -1, np.int32)
        self._vectors = np.zeros((0, n_numbers), dtype)
        self._n_known = 0

    def unknown(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of the rows that have no vector yet."""
        return places[self._lines[places] < 0]

    def add(self, places: NDArray[np.int64], vectors: NDArray[np.generic]) -> None:
        """Remember vectors of unknown rows."""
        stop = self._n_known + len(places)
        if stop > len(self._vectors):
            grown = np.zeros((max(stop, 2 * self._n_known), vectors.shape[1]), self._vectors.dtype)
            grown[: self._n_known] = self._vectors[: self._n_known]
            self._vectors = grown
        self._vectors[self._n_known : stop] = vectors
        self._lines[places] = np.arange(self._n_known, stop)
        self._n_known = stop

    def of(self, places: NDArray[np.int64]) -> NDArray[np.generic]:
        """Return the vectors of known rows."""
        return self._vectors[self._lines[places]]
