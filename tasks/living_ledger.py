"""The rows of a corpus that are alive, by id: what a record that comes in is compared with.

Read once and then kept up to date by whoever adds batches and tombstones, because an inbox of a
thousand files must not read a corpus a thousand times. About 100 bytes a row.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.catalog import batch_folders
from storage.corpus import Corpus
from storage.layout import batches_folder, tombstones_folder
from storage.refs import CorpusRef
from storage.tombstones import Tombstones

COLUMNS = ("row_id", "content_hash", "label", "source")


@dataclass(frozen=True)
class LivingRow:
    """A row without a tombstone: what it is and where."""

    row_id: str
    content_hash: str
    label: str | None
    source: str
    batch_id: str
    position_in_batch: int


class LivingLedger:
    """The living rows of a corpus by id; none for a corpus that is not there."""

    def __init__(self, ref: CorpusRef) -> None:
        """Read ids, hashes, labels and sources of all rows.

        Raises:
            CorruptionError: A batch or a tombstone is damaged.
        """
        import pandas as pd

        self.state = ledger_state(ref)
        self._later: dict[str, LivingRow | None] = {}
        self._batches = list(self.state[0])
        self._batches_of: dict[str, list[str]] = {}
        corpus = Corpus(ref) if self._batches else None
        starts, n_rows = [], 0
        for batch in self._batches:
            starts.append(n_rows)
            n_rows += int(corpus.manifest(batch)["n_rows"]) if corpus else 0
        self._starts = np.array(starts, np.int64)
        living = np.ones(n_rows, np.bool_)
        places = Tombstones(ref).positions(dict(zip(self._batches, starts, strict=True)))
        living[places] = False
        self._positions = np.flatnonzero(living)
        self._rows = pa.table({name: pa.array([], pa.string()) for name in COLUMNS})
        if corpus is not None:
            columns = corpus.columns(COLUMNS)
            self._note_sources(columns.column("source"))
            self._rows = columns.filter(pa.array(living)).combine_chunks()
        self._ids = pd.Index(self._rows.column("row_id").to_pandas())

    def __len__(self) -> int:
        """Living rows."""
        known = self._ids.get_indexer(list(self._later)) if self._later else []
        came = sum(row is not None for row in self._later.values())
        return len(self._ids) - sum(int(place) >= 0 for place in known) + came

    def find(self, row_ids: Sequence[str]) -> list[LivingRow | None]:
        """Return the living row of each id; None where there is none."""
        if not row_ids:
            return []
        places = self._ids.get_indexer(list(row_ids))
        there = iter(self._at([int(place) for place in places if place >= 0]))
        found = [next(there) if place >= 0 else None for place in places]
        return [self._later.get(row_id, row) for row_id, row in zip(row_ids, found, strict=True)]

    def ids_of(self, source: str) -> list[str]:
        """Return the ids of the living rows that came from a source."""
        mine = pc.indices_nonzero(pc.equal(self._rows.column("source"), source))
        ids: list[str] = self._rows.column("row_id").take(mine).to_pylist()
        before = [row_id for row_id in ids if row_id not in self._later]
        return before + [
            row_id
            for row_id, row in self._later.items()
            if row is not None and row.source == source
        ]

    def batches_of(self, source: str) -> tuple[str, ...]:
        """Return the batches that hold rows of a source, dead ones too, in order of commit."""
        return tuple(self._batches_of.get(source, ()))

    def follow(
        self,
        dead: Iterable[str],
        came: Mapping[str, LivingRow],
        *,
        state: tuple[tuple[str, ...], tuple[str, ...]],
    ) -> None:
        """Take in what was just committed: rows that died, then rows that came."""
        self._later.update(dict.fromkeys(dead))
        self._later.update(came)
        for source, batch in dict.fromkeys((row.source, row.batch_id) for row in came.values()):
            self._batches_of.setdefault(source, []).append(batch)
        self.state = state

    def _note_sources(self, sources: pa.ChunkedArray) -> None:
        stops = [*self._starts[1:].tolist(), len(sources)]
        for batch, start, stop in zip(self._batches, self._starts.tolist(), stops, strict=True):
            for source in pc.unique(sources.slice(start, stop - start)).to_pylist():
                self._batches_of.setdefault(source, []).append(batch)

    def _at(self, places: Sequence[int]) -> list[LivingRow]:
        lines = self._rows.take(pa.array(places, pa.int64())).to_pylist()
        positions = self._positions[np.asarray(places, np.int64)]
        batches = np.searchsorted(self._starts, positions, side="right") - 1
        return [
            LivingRow(
                **line,
                batch_id=self._batches[batch],
                position_in_batch=int(position - self._starts[batch]),
            )
            for line, batch, position in zip(lines, batches, positions, strict=True)
        ]


def ledger_state(ref: CorpusRef) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return which batches and tombstones there are, by id: two ledgers of one state are equal."""
    folders = (batches_folder(ref), tombstones_folder(ref))
    batches, records = (tuple(id_ for _, id_, _ in batch_folders(folder)) for folder in folders)
    return batches, records
