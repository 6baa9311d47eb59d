"""The rows that were scored, as a release needs them: by position, few columns at a time.

A *position* is a row's place in the index, which is its place in the scored batches laid end to
end. Texts of rows are read when somebody asks for them, and then for the next thousands of rows
in the order of values too: those are far apart in the corpus, so that one pass over it fetches
many of them at the cost of a few.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rise_ops.codes import RowCodes, decode
from storage.corpus import Corpus, Row
from storage.errors import CorruptionError
from storage.signatures import SignatureIndex

ABOUT = ("row_id", "n_tokens", "source", "source_line", "label")
"""Columns that are held for every row: tens of bytes a row."""

READ_AHEAD = 32_768
"""Rows read at once in the order of values; about 32 MB at a kilobyte a row."""


@dataclass
class ScoredRows:
    """The rows of the scored batches, by position.

    Args:
        corpus: Where the rows are.
        batches: The batches that were scored, in the order of the index.
        index: Their signatures.
    """

    corpus: Corpus
    batches: Sequence[str]
    index: SignatureIndex
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

    def batch_of(self, position: int) -> str:
        """Return the id of the batch that a row came with."""
        return self.batches[bisect_right(self._starts, position) - 1]

    def row_ids(self) -> Iterator[tuple[str, pa.ChunkedArray]]:
        """Yield every batch with its row ids in order."""
        ids = self.about.column("row_id")
        for batch, start, stop in zip(self.batches, self._starts, self._starts[1:], strict=False):
            yield batch, ids.slice(start, stop - start)

    def take(self, positions: NDArray[np.int64], columns: Sequence[str] | None = None) -> pa.Table:
        """Return whole rows, or some columns of them, in the order asked for."""
        return self.corpus.take(positions.tolist(), batches=self.batches, columns=columns)

    def reader(self, order: NDArray[np.int64]) -> "ReadAhead":
        """Return a reader for somebody who asks for rows in about the given order."""
        return ReadAhead(self, order)


class ReadAhead:
    """Rows and signatures by position; a `RowReader` of the selection."""

    def __init__(self, rows: ScoredRows, order: NDArray[np.int64]) -> None:
        """Say in which order rows will be asked for; another order is only slower."""
        self.code = rows.index.code
        self._rows = rows
        self._order = order
        self._place = np.full(len(rows), len(order), np.int64)
        self._place[order] = np.arange(len(order))
        self._at: dict[int, int] = {}
        self._table: pa.Table | None = None

    def rows(self, positions: NDArray[np.int64]) -> list[Row]:
        """Return the rows at ``positions``, in their order."""
        wanted = positions.tolist()
        if any(position not in self._at for position in wanted):
            self._fetch(positions)
        if self._table is None or not wanted:
            return []
        lines = self._table.take(pa.array([self._at[position] for position in wanted]))
        return [Row(**line) for line in lines.to_pylist()]

    def signatures(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return signatures, float32 [n, n_numbers], as the index decodes them, not unrotated."""
        index = self._rows.index
        found = np.empty((len(positions), index.n_numbers), np.float32)
        blocks, places = np.divmod(positions, index.block_rows)
        for block in np.unique(blocks).tolist():
            here = np.flatnonzero(blocks == block)
            values, _ = index.read_block(block)
            scales = index.read_scales(block)
            local = places[here]
            codes = RowCodes(values[local], None if scales is None else scales[local])
            found[here] = decode(codes)
        return found

    def _fetch(self, wanted: NDArray[np.int64]) -> None:
        start = int(self._place[wanted].min())
        ahead = self._order[start : start + max(READ_AHEAD, len(wanted))]
        positions = np.unique(np.concatenate([wanted, ahead]))
        self._table = self._rows.take(positions)
        self._at = {position: place for place, position in enumerate(positions.tolist())}
