"""The cursor of an inbox: what was taken of which file, so that only news is read.

One small manifest a file, replaced atomically, and beside it a *listing*: the ids of the good rows
of the version that is in use, with what they were. Nothing here is needed to read the corpus; lost,
it costs reading the inbox again.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

from storage import rows as tables
from storage.catalog import open_store
from storage.errors import CorruptionError, NotFoundError
from storage.files import (
    digest,
    publish_file,
    remove_durably,
    remove_partials,
    short_id,
)
from storage.guards import inbox_guard
from storage.layout import (
    INBOX_FILE_FORMAT,
    INBOX_NOTE_FORMAT,
    check_name,
    inbox_folder,
)
from storage.lease import Lease
from storage.manifests import read_manifest, write_manifest
from storage.refs import CorpusRef
from storage.roots import fetched

State = Literal["taking", "taken", "refused", "duplicate"]
"""What became of the newest bytes: somebody began to take them and may have been killed; their rows
are in use; they were refused; another file has the same bytes."""

DEPARTED_NOTE = "departed"

LISTING_SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
    ]
)
"""A good row of a file, and what tells its versions apart; in order of ``row_id``."""


@dataclass(frozen=True)
class CursorEntry:
    """What is known of one file.

    Attributes:
        name: The file as the user named it; also ``source`` of its rows.
        state: What became of the newest bytes.
        sha256: Of the newest bytes that were looked at.
        n_bytes: Their number.
        mtime_ns: Modification time of the file then.
        settings: Digest of how it was read; other settings read it again.
        batches: Batches that came of it, in order.
        listing: File name of the listing; empty when no version was ever in use.
        reason: Why it was refused, or which file has the same bytes.
        report: Where to look: rejected records.
        stale: It must be read again: a row of it, that a later file had replaced, is wanted.
        gone: The file is no longer there; its rows are still in use.
    """

    name: str
    state: State
    sha256: str
    n_bytes: int
    mtime_ns: int
    settings: str
    batches: tuple[str, ...] = ()
    listing: str = ""
    reason: str = ""
    report: str = ""
    stale: bool = False
    gone: bool = False


class Cursor:
    """The entries of one corpus's inbox, by name of the file."""

    def __init__(self, ref: CorpusRef) -> None:
        """Read every entry; an inbox that was never read has none.

        Raises:
            CorruptionError: An entry is damaged. Deleted, its file is read again.
            FormatVersionError: A newer version of the program wrote it.
        """
        self.ref = ref
        self._folder = inbox_folder(ref)
        self._entries = self._read()
        self._lease: Lease | None = None

    @contextmanager
    def taking(self) -> Iterator[None]:
        """Hold the lease of whoever takes files, and clear what killed ones left.

        Raises:
            BusyError: Somebody else takes files.
        """
        open_store(self.ref.root, create=True)
        with inbox_guard(self.ref).hold() as lease:
            self._lease = lease
            try:
                self._clear()
                yield
            finally:
                self._lease = None

    @property
    def entries(self) -> dict[str, CursorEntry]:
        """Every entry by name, in the order of names, which is the order of files."""
        return dict(sorted(self._entries.items()))

    def get(self, name: str) -> CursorEntry | None:
        """Return the entry of a file; None for one that was never looked at."""
        return self._entries.get(name)

    def put(self, entry: CursorEntry) -> None:
        """Replace the entry of a file."""
        if entry.state not in get_args(State):
            raise ValueError(f"a state is one of {get_args(State)}, got {entry.state!r}.")
        if entry == self._entries.get(entry.name):
            return
        self._check()
        write_manifest(self._entry_path(entry.name), INBOX_FILE_FORMAT, asdict(entry))
        before = self._entries.get(entry.name)
        self._entries[entry.name] = entry
        if before is not None and before.listing and before.listing != entry.listing:
            remove_durably(self._folder / "listings" / before.listing)

    @property
    def departed(self) -> frozenset[str]:
        """Files without an entry whose rows live on, because other files have them too."""
        return frozenset((self.note(DEPARTED_NOTE) or {"names": ()})["names"])

    def forget(self, name: str, *, outlived: bool) -> None:
        """Delete the entry of a file and its listing.

        Args:
            name: The file.
            outlived: Rows that came with it live on; its name joins `departed`.
        """
        self._check()
        names = self.departed | {name} if outlived else self.departed - {name}
        if names != self.departed:
            self.write_note(DEPARTED_NOTE, {"names": sorted(names)})
        entry = self._entries.pop(name)
        remove_durably(self._entry_path(name))
        if entry.listing:
            remove_durably(self._folder / "listings" / entry.listing)

    def write_listing(self, name: str, rows: pa.Table) -> str:
        """Write a listing (LISTING_SCHEMA) and return its file name, for the entry."""
        table = tables.conform(rows, LISTING_SCHEMA, what=f"listing of {name}").sort_by("row_id")
        content = digest([column.to_pylist() for column in table.columns])
        file_name = f"{short_id(name)}-{content[:16]}.parquet"
        path = self._folder / "listings" / file_name
        if not path.is_file():
            publish_file(path, lambda partial: tables.write_table(partial, table))
        return file_name

    def listing(self, name: str) -> pa.Table:
        """Return the good rows of the version of a file that is in use (LISTING_SCHEMA).

        Raises:
            CorruptionError: The listing is missing or damaged.
        """
        entry = self._entries.get(name)
        if entry is None or not entry.listing:
            return LISTING_SCHEMA.empty_table()
        return tables.read_table(self._folder / "listings" / entry.listing)

    def holders(self, row_ids: Collection[str], *, but: str) -> dict[str, dict[str, str]]:
        """Return which other files list rows: row id to file name to version, in order of names.

        Args:
            row_ids: Which rows.
            but: A file that does not count.
        """
        found: dict[str, dict[str, str]] = {row_id: {} for row_id in row_ids}
        wanted = pa.array(sorted(found), pa.string())
        for entry in self.entries.values() if len(wanted) else ():
            if entry.name == but or not entry.listing:
                continue
            listing = self.listing(entry.name)
            mine = listing.filter(pc.is_in(listing.column("row_id"), wanted))
            for line in mine.to_pylist():
                found[line["row_id"]][entry.name] = line["version"]
        return found

    def note(self, name: str) -> dict[str, Any] | None:
        """Return what `write_note` noted last under a name; None when it is absent or damaged."""
        try:
            return read_manifest(self._note_path(name), INBOX_NOTE_FORMAT)
        except (NotFoundError, CorruptionError):
            return None  # a hint: losing it costs work that finds nothing to do

    def write_note(self, name: str, value: dict[str, Any]) -> None:
        """Note something beside the entries, in place of what was noted before."""
        if self.note(name) != value:
            write_manifest(self._note_path(name), INBOX_NOTE_FORMAT, value)

    def _clear(self) -> None:
        """Read the entries anew, and clear what killed processes left."""
        self._entries = self._read()
        for folder in (self._folder, self._folder / "files", self._folder / "listings"):
            remove_partials(folder)
        named = {entry.listing for entry in self._entries.values()}
        for path in (self._folder / "listings").glob("*.parquet"):
            if path.name not in named:
                remove_durably(path)

    def _check(self) -> None:
        if self._lease is not None:  # else nobody takes files: an entry is put there by hand
            self._lease.check()

    def _read(self) -> dict[str, CursorEntry]:
        files = fetched(self._folder) / "files"
        found = [_read_entry(path) for path in sorted(files.glob("*.json"))]
        return {entry.name: entry for entry in found}

    def _entry_path(self, name: str) -> Path:
        return self._folder / "files" / f"{short_id(name)}.json"

    def _note_path(self, name: str) -> Path:
        return self._folder / f"{check_name(name, what='note')}.json"


def _read_entry(path: Path) -> CursorEntry:
    body = read_manifest(path, INBOX_FILE_FORMAT)
    known = {field.name for field in fields(CursorEntry)}
    values = {key: value for key, value in body.items() if key in known}
    return CursorEntry(**{**values, "batches": tuple(values["batches"])})
