"""Tombstones: rows of a corpus that must no longer be used, one published record a decision.

Batches never change, so a row is not deleted: a record says which rows are dead, why and since
when, and whoever scores or releases leaves them out. Records are only ever added, in order, each
a folder that exists whole or not at all. A record may also bar rows from being ingested (again).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from storage import rows as tables
from storage.catalog import batch_folders, open_store
from storage.files import short_id, waiting_lock
from storage.guards import corpus_guard
from storage.layout import (
    LOCK_FILE,
    TOMBSTONE_FILE,
    TOMBSTONE_FORMAT,
    tombstones_folder,
)
from storage.lease import Lease
from storage.manifests import describe_file, file_problems, read_manifest, write_manifest
from storage.refs import CorpusRef
from storage.roots import fetched
from storage.staged import StagedWriter

ROWS_FILE = "rows.parquet"

Kind = Literal["takedown", "changed", "withdrawn"]
"""Why a row is dead: somebody asked for it; a later row took its place; its source dropped it."""

TOMBSTONE_SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("content_hash", pa.string()),
        pa.field("batch_id", pa.string()),
        pa.field("position_in_batch", pa.int64()),
    ]
)
"""A dead row and its place; content and place are null where the corpus never had the row."""


@dataclass(frozen=True)
class Bars:
    """What a record keeps from being ingested from now on.

    Attributes:
        row_ids: Records that would get the id of one of its rows.
        content: Records with the content of one of its rows, whatever their id.
        sources: Records from sources of these names or patterns (``*`` matches ``/`` as well).
    """

    row_ids: bool = False
    content: bool = False
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record:
    """One decision.

    Attributes:
        record_id: Its id, from everything but the time.
        sequence: Its number in the order of decisions, from 1.
        kind: `Kind`.
        reason: For people, as it was given.
        time: When it was made, ISO 8601 in UTC, whole seconds.
        bars: What it keeps from being ingested.
        n_rows: Rows of the corpus that it names.
        folder: Where it is.
    """

    record_id: str
    sequence: int
    kind: Kind
    reason: str
    time: str
    bars: Bars
    n_rows: int
    folder: Path

    def rows(self) -> pa.Table:
        """Return its rows (TOMBSTONE_SCHEMA); `CorruptionError` when the file is damaged."""
        return tables.read_table(self.folder / ROWS_FILE)


class Tombstones:
    """The records of one corpus, as of opening; open again to see later ones."""

    def __init__(self, ref: CorpusRef) -> None:
        """Read the records; a corpus without any is as good as one with.

        Raises:
            CorruptionError: A record is damaged.
            FormatVersionError: A newer version of the program wrote one.
        """
        self.ref = ref
        self.records = [
            _record(sequence, record_id, fetched(folder))
            for sequence, record_id, folder in batch_folders(tombstones_folder(ref))
        ]

    @cached_property
    def rows(self) -> pa.Table:
        """All rows of all records: TOMBSTONE_SCHEMA and ``record``, the record's place in order."""
        parts = [
            record.rows().append_column("record", pa.array([place] * record.rows().num_rows))
            for place, record in enumerate(self.records)
        ]
        schema = TOMBSTONE_SCHEMA.append(pa.field("record", pa.int64()))
        return pa.concat_tables([schema.empty_table(), *parts])

    def rows_of(self, chosen: Sequence[bool]) -> pa.Table:
        """Return the lines of ``rows`` of some records, told by one bool a record."""
        places = pa.array(np.flatnonzero(chosen), pa.int64())
        return self.rows.filter(pc.is_in(self.rows.column("record"), places))

    def placed_in(self, batches: Collection[str]) -> pa.Table:
        """Return the lines of ``rows`` whose place is in one of these batches."""
        wanted = pa.array(sorted(set(batches)), pa.string())
        return self.rows.filter(pc.is_in(self.rows.column("batch_id"), wanted))

    def positions(self, starts: Mapping[str, int]) -> NDArray[np.int64]:
        """Return where the dead rows are when batches are laid end to end, ascending.

        Args:
            starts: First position of each batch that is looked at.
        """
        found = self.placed_in(starts)
        first = np.array([starts[batch] for batch in found["batch_id"].to_pylist()], np.int64)
        within = found.column("position_in_batch").to_numpy().astype(np.int64)
        return np.unique(first + within)

    def find(self, row_id: str) -> list[Record]:
        """Return the records that name a row, in order."""
        places = self.rows.filter(pc.equal(self.rows.column("row_id"), row_id)).column("record")
        return [self.records[place] for place in sorted(set(places.to_pylist()))]

    def at(self, batch_id: str, position_in_batch: int) -> list[Record]:
        """Return the records that name one place, in order."""
        here = self.placed_in([batch_id])
        mine = here.filter(pc.equal(here.column("position_in_batch"), position_in_batch))
        return [self.records[place] for place in sorted(set(mine.column("record").to_pylist()))]

    def verify(self, *, deep: bool = True) -> list[str]:
        """Compare every file with its record; one text for each problem."""
        return [
            problem
            for record in self.records
            for problem in file_problems(
                record.folder,
                read_manifest(record.folder / TOMBSTONE_FILE, TOMBSTONE_FORMAT)["files"],
                deep=deep,
            )
        ]


def is_source(source: str, glob: str) -> bool:
    """Tell whether a source has this name, or a name of this pattern."""
    return source == glob or fnmatchcase(source, glob)


class BarredRows:
    """What the records of a corpus keep from being ingested."""

    def __init__(self, tombstones: Tombstones) -> None:
        """Collect what is barred."""
        self.sources = [glob for record in tombstones.records for glob in record.bars.sources]
        self._row_ids: set[str] = set()
        self._content: set[str] = set()
        for record in tombstones.records:
            rows = record.rows()
            if record.bars.row_ids:
                self._row_ids.update(rows.column("row_id").to_pylist())
            if record.bars.content:
                self._content.update(rows.column("content_hash").drop_null().to_pylist())
        self._known: dict[str, bool] = {}

    def bars_source(self, source: str) -> bool:
        """Tell whether nothing from a source may come in."""
        if source not in self._known:
            self._known[source] = any(is_source(source, glob) for glob in self.sources)
        return self._known[source]

    def bars(self, row_id: str, content_hash: str) -> bool:
        """Tell whether a row may not come in."""
        return row_id in self._row_ids or content_hash in self._content


class TombstoneWriter(StagedWriter):
    """Writes one record; holds the corpus's lease within the ``with`` block, or its caller does."""

    def __init__(self, ref: CorpusRef, *, held: bool = False) -> None:
        """Name the corpus; `BusyError` and errors of the disk come on entering.

        Args:
            ref: The corpus.
            held: The caller holds the corpus's lease, as whoever writes a batch does.
        """
        super().__init__(ref.root, tombstones_folder(ref) / "record")
        self.ref = ref
        self._held = held

    def commit(self, rows: pa.Table, *, kind: Kind, reason: str, time: str, bars: Bars) -> Record:
        """Publish the record as the last one of the corpus.

        Args:
            rows: TOMBSTONE_SCHEMA.
            kind: Why the rows are dead.
            reason: For people.
            time: ISO 8601 in UTC, whole seconds.
            bars: What may not be ingested from now on.

        Raises:
            ValueError: Unknown kind, or the table has other columns.
        """
        if kind not in get_args(Kind):
            raise ValueError(f"a tombstone is one of {get_args(Kind)}, got {kind!r}.")
        table = tables.conform(rows, TOMBSTONE_SCHEMA, what="tombstones")
        tables.write_table(self.staging / ROWS_FILE, table)
        folder = tombstones_folder(self.ref)
        sequence = 1 + max((number for number, _, _ in batch_folders(folder)), default=0)
        described = describe_file(self.staging / ROWS_FILE, folder=self.staging)
        body = {"kind": kind, "reason": reason, "bars": asdict(bars), "sequence": sequence}
        record_id = short_id({**body, "rows": described["sha256"]})
        n_rows = len(table) - table.column("batch_id").null_count
        body = {**body, "time": time, "n_rows": n_rows, "files": [described]}
        write_manifest(self.staging / TOMBSTONE_FILE, TOMBSTONE_FORMAT, body)
        final = folder / f"{sequence:04d}-{record_id}"
        with no_new_records(self.ref):
            self._publish(final)
        return _record(sequence, record_id, final)

    def _hold(self) -> AbstractContextManager[Lease]:
        guard = corpus_guard(self.ref)
        return nullcontext(guard.held()) if self._held else guard.hold()


@contextmanager
def no_new_records(ref: CorpusRef) -> Iterator[None]:
    """Keep records from being added, for a moment: what is published meanwhile knows them all."""
    with waiting_lock(tombstones_folder(ref) / LOCK_FILE):
        yield


def all_tombstones(root: str, corpora: Sequence[str]) -> list[Tombstones]:
    """Return the tombstones of several corpora of a store."""
    open_store(root)
    return [Tombstones(CorpusRef(root, corpus)) for corpus in corpora]


def _record(sequence: int, record_id: str, folder: Path) -> Record:
    body: dict[str, Any] = read_manifest(folder / TOMBSTONE_FILE, TOMBSTONE_FORMAT)
    bars = body["bars"]
    return Record(
        record_id=record_id,
        sequence=sequence,
        kind=body["kind"],
        reason=body["reason"],
        time=body["time"],
        bars=Bars(bars["row_ids"], bars["content"], tuple(bars["sources"])),
        n_rows=body["n_rows"],
        folder=folder,
    )
