"""The rows that a selection chooses from, as the store has them: columns first, texts on demand."""

from typing import cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rise_ops.codes import Code, RowCodes, decode
from storage.corpus import Corpus, Row
from storage.errors import CorruptionError
from storage.refs import CorpusRef, IndexRef
from storage.scores import Scores
from storage.signatures import SignatureIndex

COLUMNS = ("n_tokens", "source", "label")
"""What a table of candidates takes from the corpus."""


def candidate_table(scores: Scores, values: NDArray[np.float32] | None = None) -> pa.Table:
    """Return one line a scored row: what `tasks.selection.select_rows` chooses from.

    Args:
        scores: Stored scores.
        values: Each row's value (`tasks.row_values`); None: those stored.

    Raises:
        CorruptionError: The corpus does not hold the rows that were scored.
    """
    stored = scores.values()
    corpus = Corpus(CorpusRef(scores.ref.root, scores.manifest["corpus"]))
    columns = corpus.columns(COLUMNS, batches=scores.manifest["batches"])
    if columns.num_rows != stored.num_rows:
        raise CorruptionError(
            f"scores {scores.ref.scores_id} cover {stored.num_rows} rows, but their batches hold "
            f"{columns.num_rows}. Run `rise verify`, then score again."
        )
    table = stored if values is None else stored.set_column(1, "value", pa.array(values))
    for name in COLUMNS:
        table = table.append_column(name, columns.column(name))
    return table


class StoredRows:
    """Reads texts and signatures of scored rows by their line in the table of candidates."""

    def __init__(self, scores: Scores) -> None:
        """Open corpus and index.

        Raises:
            NotFoundError: The corpus or the index is gone.
        """
        root = scores.ref.root
        self._batches = list(scores.manifest["batches"])
        self._corpus = Corpus(CorpusRef(root, scores.manifest["corpus"]))
        self._index = SignatureIndex.open(IndexRef(root, scores.manifest["index"]))
        self.code = cast(Code, self._index.code)

    def rows(self, positions: NDArray[np.int64]) -> list[Row]:
        """Return rows in the order asked for."""
        return self._corpus.rows_at(positions.tolist(), batches=self._batches)

    def signatures(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return signatures in the order asked for, float32 [n, n_numbers]; codes are decoded."""
        found = np.empty((len(positions), self._index.n_numbers), np.float32)
        blocks = positions // self._index.block_rows
        for block in np.unique(blocks).tolist():
            lines = np.flatnonzero(blocks == block)
            local = positions[lines] - block * self._index.block_rows
            values, _ = self._index.read_block(block)
            scales = self._index.read_scales(block)
            codes = RowCodes(values[local], None if scales is None else scales[local])
            found[lines] = decode(codes)
        return found
