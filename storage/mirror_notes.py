"""What a mirror knows of its store: each object's tag, and that of the copy on disk.

A small SQLite file beside the mirror, shared by all processes of this machine. Lost, it costs
fetching again.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.objects import StoredObject

WAIT_SECONDS = 60.0
"""For another process that writes notes."""

_TABLES = """
CREATE TABLE IF NOT EXISTS objects (
    key TEXT PRIMARY KEY, n_bytes INTEGER, tag TEXT, mtime_ns INTEGER, copy TEXT, noted REAL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS looks (id INTEGER PRIMARY KEY CHECK (id = 0), started REAL);
"""


@dataclass(frozen=True)
class Note:
    """An object as the last listing had it.

    Attributes:
        seen: Size, tag and time.
        copy: Tag of the copy on disk; None where there is none.
        noted: When this machine last put or fetched it, seconds since the epoch.
    """

    seen: StoredObject
    copy: str | None
    noted: float

    @property
    def is_current(self) -> bool:
        """The copy on disk is of the object as it was seen last."""
        return self.copy == self.seen.tag


class MirrorNotes:
    """The notes of one mirror; every call is one transaction."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as file:
            file.executescript(_TABLES)

    def all(self, folder: str = "") -> dict[str, Note]:
        """Return the notes of everything below a folder, by key."""
        with self._open() as file:
            lines = file.execute(
                "SELECT key, n_bytes, tag, mtime_ns, copy, noted FROM objects "
                "WHERE key >= ? AND key < ?",
                _bounds(folder),
            ).fetchall()
        return _notes(lines)

    def outdated(self, folder: str) -> dict[str, Note]:
        """Return the notes below a folder whose copy on disk is not of the newest object."""
        with self._open() as file:
            lines = file.execute(
                "SELECT key, n_bytes, tag, mtime_ns, copy, noted FROM objects "
                "WHERE key >= ? AND key < ? AND copy IS NOT tag",
                _bounds(folder),
            ).fetchall()
        return _notes(lines)

    def get(self, key: str) -> Note | None:
        """Return the note of one object."""
        with self._open() as file:
            query = "SELECT n_bytes, tag, mtime_ns, copy, noted FROM objects WHERE key = ?"
            line = file.execute(query, (key,)).fetchone()
        return None if line is None else Note(StoredObject(*line[:3]), line[3], line[4])

    def put(self, notes: Mapping[str, Note]) -> None:
        """Replace the notes of some objects."""
        lines = [
            (key, note.seen.n_bytes, note.seen.tag, note.seen.mtime_ns, note.copy, note.noted)
            for key, note in notes.items()
        ]
        if lines:
            with self._open() as file:
                file.executemany("REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?)", lines)

    def forget(self, keys: Iterable[str]) -> None:
        """Delete the notes of some objects."""
        lines = [(key,) for key in keys]
        if lines:
            with self._open() as file:
                file.executemany("DELETE FROM objects WHERE key = ?", lines)

    def last_look(self) -> float:
        """Return when the last listing was begun, seconds since the epoch; 0 for never."""
        with self._open() as file:
            line = file.execute("SELECT started FROM looks").fetchone()
        return 0.0 if line is None else float(line[0])

    def note_look(self, started: float) -> None:
        """Note that the store was listed."""
        with self._open() as file:
            file.execute("REPLACE INTO looks VALUES (0, ?)", (started,))

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        file = sqlite3.connect(self._path, timeout=WAIT_SECONDS)
        try:
            with file:
                yield file
        finally:
            file.close()


def _bounds(folder: str) -> tuple[str, str]:
    """Return the least key below a folder, and the least above all of them: "0" follows "/"."""
    return (f"{folder}/", f"{folder}0") if folder else ("", "\U0010ffff")


def _notes(lines: Iterable[tuple[Any, ...]]) -> dict[str, Note]:
    return {line[0]: Note(StoredObject(*line[1:4]), line[4], line[5]) for line in lines}
