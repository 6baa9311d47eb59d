"""A corpus: batches of canonical rows, each published whole, in the order of their commit.

A row's place in the corpus is its place in the batches laid end to end; batches are only ever
appended, so a place never changes. Reading touches only the columns and row groups it needs.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storage import rows as tables
from storage.catalog import batch_folders, open_store
from storage.errors import NotFoundError, StorageError
from storage.files import remove_folder, remove_partials
from storage.guards import corpus_guard
from storage.layout import (
    BATCH_FILE,
    BATCH_FORMAT,
    REFUSED_FILE,
    REFUSED_FORMAT,
    batches_folder,
    check_name,
    corpus_folder,
    refused_folder,
)
from storage.lease import Lease
from storage.manifests import describe_file, file_problems, read_manifest, write_manifest
from storage.refs import BatchRef, CorpusRef
from storage.roots import fetched
from storage.staged import StagedWriter

REJECTED_FILE = "rejected.parquet"


@dataclass(frozen=True)
class Row:
    """One canonical row.

    Args:
        row_id: Stable id, unique among the rows without a tombstone; a changed row comes in again
            under its id, and its newest place is the one that counts.
        text: The whole text.
        prompt_chars: Leading characters of ``text`` that are the prompt.
        label: Kept for evaluation; may be absent.
        source: File or dataset that the row came from.
        source_line: Line of the file or number of the record, from 1.
        content_hash: Hash of the content alone.
        n_tokens: Tokens of ``text``.
    """

    row_id: str
    text: str
    prompt_chars: int
    label: str | None
    source: str
    source_line: int
    content_hash: str
    n_tokens: int


@dataclass(frozen=True)
class RowLocation:
    """Where a row is: its batch, its position there and in the whole corpus, from 0."""

    batch_id: str
    position_in_batch: int
    position: int
    row: Row


@dataclass(frozen=True)
class _Part:
    """One Parquet file of rows: its batch, and the rows before it in batch and corpus."""

    path: Path
    batch_id: str
    n_rows: int
    start_in_batch: int
    start: int


class Corpus:
    """The committed rows of one corpus, as of opening; open it again to see later batches."""

    def __init__(self, ref: CorpusRef) -> None:
        """Open a corpus.

        Raises:
            NotFoundError: It has no committed batch.
            FormatVersionError: A newer version wrote it.
        """
        open_store(ref.root)
        self.ref = ref
        self._folders = {name: fetched(path) for name, path in _batch_folders(ref).items()}
        self._files: dict[str, list[dict[str, Any]]] = {}
        if not self._folders:
            raise NotFoundError(
                f"the store {ref.root} has no corpus {ref.corpus!r}. "
                "`rise ls` lists what it has; ingest some rows first."
            )

    @staticmethod
    def batches(ref: CorpusRef) -> list[BatchRef]:
        """Return the committed batches in the order of their commit; empty when there are none."""
        return [BatchRef(ref.root, ref.corpus, batch_id) for batch_id in _batch_folders(ref)]

    @cached_property
    def n_rows(self) -> int:
        """Rows of all batches."""
        return sum(part.n_rows for part in self._parts(None))

    def manifest(self, batch_id: str) -> dict[str, Any]:
        """Return the manifest of a batch; `NotFoundError` when the corpus has no such batch."""
        return read_manifest(self._folder(batch_id) / BATCH_FILE, BATCH_FORMAT)

    def folder(self, batch_id: str) -> Path:
        """Return the folder of a batch, where ``quality/`` is."""
        return fetched(self._folder(batch_id), reports=True)

    def rejected(self, batch_id: str) -> pa.Table:
        """Return the quarantine of a batch (REJECTED_SCHEMA)."""
        return tables.read_table(self._folder(batch_id) / REJECTED_FILE)

    def row_ids(self, batches: Sequence[str] | None = None) -> pa.Table:
        """Return ``row_id`` and ``content_hash`` of every row, in corpus order.

        Args:
            batches: Only these batches, laid end to end in this order; None is all of them.
        """
        columns = ["row_id", "content_hash"]
        return pa.concat_tables(self.iter_tables(batches=batches, columns=columns))

    def iter_tables(
        self, *, batches: Sequence[str] | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """Yield the rows in corpus order, one small table a row group."""
        names = None if columns is None else list(columns)
        for part in self._parts(batches):
            with tables.opened(part.path) as file:
                for group in range(file.num_row_groups):
                    yield file.read_row_group(group, columns=names)

    def rows(self, start: int, stop: int, *, batches: Sequence[str] | None = None) -> list[Row]:
        """Return the rows at positions [start, stop), reading only the row groups they are in.

        Raises:
            ValueError: The range leaves the corpus.
        """
        parts = self._parts(batches)
        n_rows = sum(part.n_rows for part in parts)
        if not 0 <= start <= stop <= n_rows:
            raise ValueError(
                f"corpus {self.ref.corpus!r} has rows 0 to {n_rows - 1}, got [{start}, {stop})."
            )
        found: list[Row] = []
        for part in parts:
            first, last = max(start - part.start, 0), min(stop - part.start, part.n_rows)
            if first < last:
                found += _to_rows(tables.read_positions(part.path, range(first, last)))
        return found

    def columns(self, names: Sequence[str], *, batches: Sequence[str] | None = None) -> pa.Table:
        """Return whole columns of every row, in corpus order; nothing else is read."""
        parts = self._parts(batches)
        return pa.concat_tables([tables.read_table(part.path, columns=names) for part in parts])

    def take(
        self,
        positions: Sequence[int],
        *,
        batches: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """Return rows (ROW_SCHEMA), or some columns of them, by position in the order asked for.

        Every row group is read once at most, however the positions lie.

        Raises:
            ValueError: A position is not in the corpus.
        """
        wanted = pa.array(positions, pa.int64())
        order = pc.sort_indices(wanted)
        ascending: list[int] = wanted.take(order).to_pylist()
        parts = self._parts(batches)
        n_rows = sum(part.n_rows for part in parts)
        if ascending and not 0 <= ascending[0] <= ascending[-1] < n_rows:
            raise ValueError(
                f"corpus {self.ref.corpus!r} has rows 0 to {n_rows - 1}, got positions from "
                f"{ascending[0]} to {ascending[-1]}."
            )
        empty = tables.ROW_SCHEMA.empty_table()
        found = [empty.select(columns or empty.schema.names)]
        for part in parts:
            first = bisect_left(ascending, part.start)
            last = bisect_left(ascending, part.start + part.n_rows)
            local = [position - part.start for position in ascending[first:last]]
            if local:
                found.append(tables.read_positions(part.path, local, columns=columns))
        return pa.concat_tables(found).take(pc.sort_indices(order))

    def rows_at(
        self, positions: Sequence[int], *, batches: Sequence[str] | None = None
    ) -> list[Row]:
        """Return rows by position, in the order asked for, as `take` does."""
        return _to_rows(self.take(positions, batches=batches))

    def rows_by_id(
        self, row_ids: Sequence[str], *, batches: Sequence[str] | None = None
    ) -> dict[str, Row]:
        """Return rows by id, in the order asked for; of a changed row its newest version.

        Args:
            row_ids: Which.
            batches: Only these batches: rows as they were when there were no others; None is all.

        Raises:
            NotFoundError: An id is not in the corpus.
        """
        return {row_id: place.row for row_id, place in self._locate(row_ids, batches).items()}

    def locate(self, row_id: str) -> RowLocation:
        """Return where a row is, the newest place if it changed.

        Raises:
            NotFoundError: The corpus has no such row.
        """
        return self._locate([row_id], None)[row_id]

    def places(self, row_id: str) -> list[RowLocation]:
        """Return every place of a row, of its newest version first; empty when there is none."""
        found = []
        for part in reversed(self._parts(None)):
            at = tables.find_values(part.path, "row_id", [row_id])
            found += _locations(part, sorted(at.values()))
        return found

    def find_source(self, source: str, line: int) -> list[RowLocation]:
        """Return the rows that came from one line of one source; empty when there are none."""
        found = []
        for part in self._parts(None):
            positions = tables.find_equal(part.path, {"source": source, "source_line": line})
            found += _locations(part, positions)
        return found

    def verify(self, *, deep: bool = True) -> list[str]:
        """Compare every file with its batch's manifest; one text for each problem."""
        problems = []
        for batch_id, folder in self._folders.items():
            try:
                files = self.manifest(batch_id)["files"]
            except StorageError as error:
                problems.append(str(error))
            else:
                problems += file_problems(folder, files, deep=deep)
        return problems

    def _locate(
        self, row_ids: Sequence[str], batches: Sequence[str] | None
    ) -> dict[str, RowLocation]:
        places: dict[str, RowLocation] = {}
        for part in reversed(self._parts(batches)):
            wanted = [row_id for row_id in row_ids if row_id not in places]
            if not wanted:
                break
            positions = sorted(tables.find_values(part.path, "row_id", wanted).values())
            places.update({place.row.row_id: place for place in _locations(part, positions)})
        missing = [row_id for row_id in row_ids if row_id not in places]
        if missing:
            raise NotFoundError(
                f"corpus {self.ref.corpus!r} has no row {missing[0]!r} "
                f"({len(missing)} of {len(row_ids)} ids are missing). Check the id, or ingest "
                "the rows."
            )
        return {row_id: places[row_id] for row_id in row_ids}

    def _folder(self, batch_id: str) -> Path:
        if batch_id not in self._folders:
            raise NotFoundError(
                f"corpus {self.ref.corpus!r} has no batch {batch_id!r}. "
                "`rise ls` lists the batches; ingest it first."
            )
        return self._folders[batch_id]

    def _parts(self, batches: Sequence[str] | None) -> list[_Part]:
        parts, start = [], 0
        for batch_id in self._folders if batches is None else batches:
            start_in_batch = 0
            for entry in self._row_files(batch_id):
                path, n_rows = self._folder(batch_id) / entry["name"], int(entry["rows"])
                parts.append(_Part(path, batch_id, n_rows, start_in_batch, start))
                start_in_batch, start = start_in_batch + n_rows, start + n_rows
        return parts

    def _row_files(self, batch_id: str) -> list[dict[str, Any]]:
        if batch_id not in self._files:
            files = self.manifest(batch_id)["files"]
            self._files[batch_id] = [entry for entry in files if entry["name"].startswith("rows-")]
        return self._files[batch_id]


class BatchWriter(StagedWriter):
    """Writes one batch; holds the corpus's lease from entering to leaving the ``with`` block.

    Without `commit` or `refuse` nothing stays.
    """

    def __init__(self, ref: CorpusRef, batch_id: str) -> None:
        """Name the batch; `BusyError` and errors of the disk come on entering."""
        self.ref = BatchRef(ref.root, ref.corpus, check_name(batch_id, what="batch id"))
        super().__init__(ref.root, batches_folder(ref) / batch_id)
        self._corpus = ref
        self._parts: list[tuple[Path, int]] = []
        self._rejected: list[pa.Table] = []

    def add(self, table: pa.Table) -> None:
        """Add rows (ROW_SCHEMA) as one part; that their ids are new is the caller's care.

        Raises:
            ValueError: The table has other columns or types, or nulls where none may be.
        """
        part = self.staging / f"rows-{len(self._parts):05d}.parquet"
        what = f"batch {self.ref.batch_id}, rows"
        tables.write_table(part, tables.conform(table, tables.ROW_SCHEMA, what=what))
        self._parts.append((part, table.num_rows))

    def reject(self, table: pa.Table) -> None:
        """Add records (REJECTED_SCHEMA) to the quarantine."""
        what = f"batch {self.ref.batch_id}, rejected records"
        self._rejected.append(tables.conform(table, tables.REJECTED_SCHEMA, what=what))

    def commit(self, manifest: Mapping[str, Any]) -> BatchRef:
        """Publish the batch as the last one of the corpus; return the earlier one if it exists.

        Args:
            manifest: What the caller wants to keep; ``n_rows``, ``n_rejected``, ``sequence``
                and ``files`` are added.
        """
        done = find_batch(self._corpus, self.ref.batch_id)
        if done is not None:
            return done
        batches = batches_folder(self._corpus)
        sequence = 1 + max((number for number, _, _ in batch_folders(batches)), default=0)
        self._write(BATCH_FILE, BATCH_FORMAT, {**manifest, "sequence": sequence})
        self._publish(batches / f"{sequence:04d}-{self.ref.batch_id}")
        return self.ref

    def refuse(self, manifest: Mapping[str, Any]) -> Path:
        """Publish only quarantine and quality report, under ``refused/``; return the folder.

        An earlier refusal of the same batch is replaced. The corpus does not change.
        """
        for part, _ in self._parts:
            part.unlink()
        self._parts = []
        self._write(REFUSED_FILE, REFUSED_FORMAT, manifest)
        final = refused_folder(self.ref)
        final.parent.mkdir(parents=True, exist_ok=True)
        self._lease.check()
        if final.exists():
            # A kill between the two steps loses an old report, never rows.
            remove_folder(final)
        self._publish(final)
        return final

    def _hold(self) -> AbstractContextManager[Lease]:
        return corpus_guard(self._corpus).hold()

    def _begin(self) -> None:
        remove_partials(corpus_folder(self._corpus) / "refused")

    def _write(self, file_name: str, kind: str, manifest: Mapping[str, Any]) -> None:
        rejected = pa.concat_tables([tables.REJECTED_SCHEMA.empty_table(), *self._rejected])
        path = self.staging / REJECTED_FILE
        tables.write_table(path, rejected)
        files = [
            describe_file(part, folder=self.staging, n_rows=n_rows)
            for part, n_rows in [*self._parts, (path, rejected.num_rows)]
        ]
        body = {
            **manifest,
            "n_rows": sum(n_rows for _, n_rows in self._parts),
            "n_rejected": rejected.num_rows,
            "files": files,
        }
        write_manifest(self.staging / file_name, kind, body)


def find_batch(ref: CorpusRef, batch_id: str) -> BatchRef | None:
    """Return a committed batch, None when the corpus has none of that id."""
    found = BatchRef(ref.root, ref.corpus, check_name(batch_id, what="batch id"))
    return found if batch_id in _batch_folders(ref) else None


def _batch_folders(ref: CorpusRef) -> dict[str, Path]:
    """Return ``{batch_id: folder}`` in the order of commit."""
    return {batch_id: folder for _, batch_id, folder in batch_folders(batches_folder(ref))}


def _to_rows(table: pa.Table) -> list[Row]:
    return [Row(**row) for row in table.to_pylist()]


def _locations(part: _Part, positions: Sequence[int]) -> list[RowLocation]:
    if not positions:
        return []
    found = _to_rows(tables.read_positions(part.path, positions))
    return [
        RowLocation(part.batch_id, part.start_in_batch + place, part.start + place, row)
        for place, row in zip(positions, found, strict=True)
    ]
