"""One file of an inbox on its way into a corpus: what it adds, changes and drops.

Which rows are alive follows from the files' newest good versions alone: of a row that several
files hold, the version of the file whose name comes last counts. Every step may be interrupted: the
cursor is told what is about to happen before the first tombstone, and reads such a file again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from storage.cursor import LISTING_SCHEMA, Cursor, CursorEntry
from storage.refs import CorpusRef
from storage.tombstones import TOMBSTONE_SCHEMA, Bars, Kind, TombstoneWriter
from tasks.candidates import Claimed, KnownRows, Standing
from tasks.inbox import Reading, still_there
from tasks.living_ledger import LivingLedger, LivingRow, ledger_state


class FileChanged(ValueError):  # noqa: N818 - it is left to the next run, nothing is wrong
    """A file changed while it was read; nothing of it was taken."""


@dataclass
class Inbox:
    """A cursor with the living rows beside it, read again only when somebody else changed them."""

    ref: CorpusRef
    cursor: Cursor
    settings: str
    overlapping: bool
    """Several files can hold one row: ids come from a field, not from the file's name."""
    _ledger: LivingLedger | None = None

    def ledger(self, *, fresh: bool = True) -> LivingLedger:
        """Return the living rows as they are now, or, not fresh, as they were last."""
        if self._ledger is None or (fresh and self._ledger.state != ledger_state(self.ref)):
            self._ledger = LivingLedger(self.ref)
        return self._ledger

    def expect(self, dead: Sequence[LivingRow], came: Sequence[LivingRow], batch: str) -> None:
        """Take in what is just being committed, rather than read the corpus again.

        The caller holds the corpus's lease. If anything else happens, the state differs from what
        is expected here, and the corpus is read again.
        """
        batches, records = ledger_state(self.ref)
        state = ((*batches, batch) if batch else batches, records)
        rows = {row.row_id: row for row in came}
        self.ledger(fresh=False).follow([row.row_id for row in dead], rows, state=state)

    def in_use(self, name: str) -> dict[str, str]:
        """Return the listing of a file; after an interruption, what lives of it as well."""
        entry = self.cursor.get(name)
        listing = dict(zip(*self.cursor.listing(name).to_pydict().values(), strict=True))
        if entry is not None and entry.listing and entry.state != "taking":
            return listing
        ledger = self.ledger()
        ids = [*listing, *(row_id for row_id in ledger.ids_of(name) if row_id not in listing)]
        return {row.row_id: version_of(row) for row in ledger.find(ids) if row is not None}


@dataclass
class FileRevision:
    """A file that is read into a batch (`tasks.revision.Revision`).

    Attributes:
        n_changed: Rows that it gives other content.
        n_withdrawn: Rows that it no longer has.
        n_superseded: Records of which a later file has another version.
    """

    inbox: Inbox
    reading: Reading
    n_changed: int = 0
    n_withdrawn: int = 0
    n_superseded: int = 0
    _versions: dict[str, str] = field(default_factory=dict)
    _kept: list[LivingRow] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.reading.file.name

    @property
    def entry(self) -> CursorEntry:
        """What the cursor had of the file; for a new one, with its bytes."""
        found = self.inbox.cursor.get(self.name)
        return found or CursorEntry(self.name, "taking", "", 0, 0, self.inbox.settings)

    @property
    def identity(self) -> Mapping[str, Any]:
        """The batches that came of the file before: equal bytes that return are another batch."""
        before = self.inbox.ledger().batches_of(self.name)
        return {"after": list(before)} if before else {}

    def begin(self) -> KnownRows:
        """Start afresh with the rows that are there now."""
        self.inbox.ledger()
        self._versions, self._kept = {}, []
        self.n_superseded = 0
        return self

    def standings(self, claimed: Sequence[Claimed]) -> list[Standing]:
        """Return how each record stands to the rows; other content replaces earlier files'."""
        there = self.inbox.ledger(fresh=False).find([one.row_id for one in claimed])
        other = [
            one.row_id
            for one, row in zip(claimed, there, strict=True)
            if row is not None and version_of(row) != version_of(one)
        ]
        later = self._held_later(other)
        found = [_standing(one, row, later) for one, row in zip(claimed, there, strict=True)]
        for one, standing in zip(claimed, found, strict=True):
            if standing in ("known", "superseded"):
                self._versions[one.row_id] = version_of(one)
        self.n_superseded += found.count("superseded")
        return found

    def locations(self, row_ids: Sequence[str]) -> dict[str, str]:
        """Nothing is in conflict: other content is another version."""
        del row_ids
        return {}

    def keep(self, rows: pa.Table) -> None:
        """Note rows that passed the gate."""
        names = ["row_id", "content_hash", "label", "source"]
        for line in rows.select(names).to_pylist():
            row = LivingRow(**line, batch_id="", position_in_batch=len(self._kept))
            self._kept.append(row)
            self._versions[row.row_id] = version_of(row)

    def require_same_bytes(self) -> None:
        """Raise `FileChanged` unless size and time are those of the bytes that were identified."""
        if not still_there(self.reading.file):
            raise FileChanged(f"{self.name} changed while it was read; it is left to the next run.")

    def accept(self, batch_id: str | None) -> None:
        """Say what is about to happen, then give tombstones to what is changed or dropped."""
        inbox, entry = self.inbox, self.entry
        dropped = [row_id for row_id in inbox.in_use(self.name) if row_id not in self._versions]
        withdrawn, stale = _withdrawn(inbox, self.name, dropped)
        changed = [row for row in inbox.ledger().find([one.row_id for one in self._kept]) if row]
        chain = [*self.identity.get("after", ()), *([batch_id] if batch_id else [])]
        self._kept = [replace(row, batch_id=batch_id or "") for row in self._kept]
        inbox.cursor.put(self._seen(replace(entry, state="taking", batches=tuple(chain))))
        _mark_stale(inbox.cursor, stale)
        give_tombstones(inbox.ref, changed, kind="changed", where=self.name)
        give_tombstones(inbox.ref, withdrawn, kind="withdrawn", where=self.name)
        self.n_changed, self.n_withdrawn = len(changed), len(withdrawn)
        inbox.expect([*changed, *withdrawn], self._kept, batch_id or "")

    def finish(self) -> None:
        """Note that the file was taken; the batch is committed."""
        inbox = self.inbox
        columns = {"row_id": list(self._versions), "version": list(self._versions.values())}
        listing = inbox.cursor.write_listing(self.name, pa.table(columns, schema=LISTING_SCHEMA))
        inbox.cursor.put(self._seen(replace(self.entry, state="taken", listing=listing)))

    def refuse(self, reason: str, report: str) -> None:
        """Note that the newest bytes were refused; what was in use of the file stays in use."""
        inbox, entry = self.inbox, self.entry
        listing = entry.listing
        if inbox.cursor.get(self.name) is not None and entry.state == "taking":
            rows = inbox.in_use(self.name)  # an interrupted version may be in use
            columns = {"row_id": list(rows), "version": list(rows.values())}
            table = pa.table(columns, schema=LISTING_SCHEMA)
            listing = inbox.cursor.write_listing(self.name, table)
        noted = replace(entry, state="refused", listing=listing)
        inbox.cursor.put(replace(self._seen(noted), reason=reason, report=report))

    def _seen(self, entry: CursorEntry) -> CursorEntry:
        file = self.reading.file
        return replace(
            entry,
            sha256=self.reading.sha256,
            n_bytes=file.n_bytes,
            mtime_ns=file.mtime_ns,
            settings=self.inbox.settings,
            reason="",
            report="",
            stale=False,
            gone=False,
        )

    def _held_later(self, row_ids: Sequence[str]) -> set[str]:
        if not self.inbox.overlapping or not row_ids:
            return set()
        holders = self.inbox.cursor.holders(row_ids, but=self.name)
        return {row_id for row_id, names in holders.items() if any(n > self.name for n in names)}


def withdraw_file(inbox: Inbox, name: str) -> int:
    """Give tombstones to the rows of a file that no other file has; the caller holds the lease.

    Returns:
        Number of rows that were withdrawn.
    """
    withdrawn, stale = _withdrawn(inbox, name, list(inbox.in_use(name)))
    _mark_stale(inbox.cursor, stale)
    give_tombstones(inbox.ref, withdrawn, kind="withdrawn", where=name)
    inbox.expect(withdrawn, [], "")
    return len(withdrawn)


def version_of(row: LivingRow | Claimed) -> str:
    """Return what tells versions of a row apart: its content, and its label if it has one."""
    return row.content_hash if row.label is None else f"{row.content_hash} {row.label}"


def give_tombstones(ref: CorpusRef, rows: Iterable[LivingRow], *, kind: Kind, where: str) -> None:
    """Record rows as dead, all in one record; none for no rows. The caller holds the lease."""
    lines = [{name: getattr(row, name) for name in TOMBSTONE_SCHEMA.names} for row in rows]
    if not lines:
        return
    reason = {"changed": "has other content in", "withdrawn": "is no longer in"}[kind]
    with TombstoneWriter(ref, held=True) as writer:
        table = pa.Table.from_pylist(lines, schema=TOMBSTONE_SCHEMA)
        writer.commit(table, kind=kind, reason=f"{reason} {where}", time=this_moment(), bars=Bars())


def this_moment() -> str:
    """Return the time, ISO 8601 in UTC, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _standing(claimed: Claimed, row: LivingRow | None, later: set[str]) -> Standing:
    if row is None:
        return "new"
    if version_of(row) == version_of(claimed):
        return "known"
    return "superseded" if claimed.row_id in later else "changed"


def _withdrawn(inbox: Inbox, name: str, row_ids: Sequence[str]) -> tuple[list[LivingRow], set[str]]:
    """Return which of the rows that a file dropped die, and which files must be read again.

    A row lives on where the last of the other files that hold it has the very version that lives;
    where it has another one, that version comes in again with that file. Rows that came in by other
    ways than the inbox are left alone.
    """
    held = inbox.cursor.holders(row_ids, but=name) if inbox.overlapping and row_ids else {}
    mine = {name, *inbox.cursor.entries, *inbox.cursor.departed}
    withdrawn: list[LivingRow] = []
    stale: set[str] = set()
    for row in inbox.ledger().find(row_ids):
        if row is None or row.source not in mine:
            continue
        others = held.get(row.row_id, {})
        last = max(others, default=None)
        if last is not None and others[last] == version_of(row):
            continue
        withdrawn.append(row)
        stale |= set() if last is None else {last}
    return withdrawn, stale


def _mark_stale(cursor: Cursor, names: Iterable[str]) -> None:
    for name in sorted(names):
        entry = cursor.get(name)
        if entry is not None:
            cursor.put(replace(entry, stale=True))
