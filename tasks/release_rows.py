"""The rows that were scored, as the files of a release need them: by position.

A *position* is a row's place in the index, which is its place in the scored batches laid end to
end.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from storage.corpus import Corpus
from storage.errors import CorruptionError

ABOUT = ("row_id", "n_tokens", "source", "source_line", "label")
"""Columns that are held for every row: tens of bytes a row."""


@dataclass
class ScoredRows:
    """The rows of the scored batches, by position.

    Args:
        corpus: Where the rows are.
        batches: The batches that were scored, in the order of the index.
    """

    corpus: Corpus
    batches: Sequence[str]
    about: pa.Table = field(init=False)
    """ABOUT, a line a row."""

    def __post_init__(self) -> None:
        self.about = self.corpus.columns(ABOUT, batches=self.batches).combine_chunks()
        sizes = [int(self.corpus.manifest(batch)["n_rows"]) for batch in self.batches]
        self._starts = [0, *accumulate(sizes)]

    def __len__(self) -> int:
        """Rows that were scored."""
        return int(self.about.num_rows)

    def require_rows_of(self, values: pa.Table) -> None:
        """Raise `CorruptionError` unless the scores are of these rows, in this order."""
        if not values.column("row_id").equals(self.about.column("row_id")):
            raise CorruptionError(
                f"the scores are of {values.num_rows} rows, which are not the "
                f"{len(self)} rows of the batches {list(self.batches)} of corpus "
                f"{self.corpus.ref.corpus!r}. Run `rise verify`, then score again."
            )

    def lineage_ids(self, positions: NDArray[np.int64]) -> pa.Array:
        """Return ``<batch_id>:<position in batch>`` of each row."""
        batches = np.searchsorted(self._starts, positions, side="right") - 1
        within = positions - np.asarray(self._starts)[batches]
        names = zip(batches.tolist(), within.tolist(), strict=True)
        return pa.array([f"{self.batches[batch]}:{place}" for batch, place in names], pa.string())

    def row_ids(self) -> Iterator[tuple[str, pa.ChunkedArray]]:
        """Yield every batch with its row ids in order."""
        ids = self.about.column("row_id")
        for batch, start, stop in zip(self.batches, self._starts, self._starts[1:], strict=False):
            yield batch, ids.slice(start, stop - start)

    def take(self, positions: NDArray[np.int64], columns: Sequence[str] | None = None) -> pa.Table:
        """Return whole rows, or some columns of them, in the order asked for."""
        return self.corpus.take(positions.tolist(), batches=self.batches, columns=columns)
