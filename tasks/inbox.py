"""What is new in an inbox: files that were never taken, changed, went away, or still grow.

Whether a file is news is known from its size and time, and from its bytes only where those differ
from what the cursor remembers: an inbox without news is not read. Files count in the order of their
names, never in that of their arrival, so that what comes of them does not depend on when each came.
"""

import glob
import os
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from storage.cursor import CursorEntry
from storage.files import digest, file_sha256
from storage.inputs import InputFile, ReplacedError, input_file, remote_files
from storage.urls import is_url, local_path
from tasks.config import DatasetSource, FilesSource, ModelConfig, RowsConfig, Source
from tasks.refresh_config import RefreshConfig

FORMATS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet", ".csv")
"""Endings of the files that a folder is taken to hold."""

UNFINISHED = (".tmp", ".part", ".partial", ".crdownload", ".swp", "~")
"""Endings that programs give to what they still write."""

Why = Literal["new", "changed", "other settings", "interrupted", "wanted again"]


@dataclass(frozen=True)
class InboxFile:
    """A file as it lies there, or a dataset, of which only ``sha256`` says what it is.

    Attributes:
        name: As the user named it; also ``source`` of its rows.
        source: What to read.
        n_bytes: Size; 0 for a dataset on a hub.
        mtime_ns: Modification time; 0 for a dataset.
        sha256: Known beforehand for a dataset (from its revision or its files), else empty.
    """

    name: str
    source: Source
    n_bytes: int
    mtime_ns: int
    sha256: str = ""


@dataclass(frozen=True)
class Reading:
    """A file that is to be read now."""

    file: InboxFile
    sha256: str
    why: Why


@dataclass(frozen=True)
class News:
    """What there is to do.

    Attributes:
        readings: Files to read, in order of their names.
        waiting: Files that are left to the next run, with the reason.
        duplicates: Entries of files whose bytes another file has.
        touched: Entries of files that have another time, but the same bytes.
        gone: Entries of files that are no longer there.
        n_files: Files that are there.
    """

    readings: tuple[Reading, ...]
    waiting: Mapping[str, str]
    duplicates: tuple[CursorEntry, ...]
    touched: tuple[CursorEntry, ...]
    gone: tuple[CursorEntry, ...]
    n_files: int


def reading_settings(rows: RowsConfig, model: ModelConfig, *, suite: str) -> str:
    """Return the digest of what decides how a file becomes rows, but for its bytes.

    Args:
        rows: Fields and limits; the source does not count.
        model: Counts tokens and renders chats.
        suite: Digest of the ingest suite.
    """
    settings = rows.model_dump(mode="json", exclude={"source"})
    return digest({"rows": settings, "model": [model.name, model.revision], "suite": suite})[:16]


def list_inbox(source: Source) -> list[InboxFile]:
    """Return the files of an inbox in the order of their names; none is no error.

    Raises:
        ValueError: A dataset that cannot be identified.
    """
    if isinstance(source, DatasetSource):
        return [_dataset(source)]
    found: dict[InputFile, InputFile] = {}
    for given in source.paths:
        for path in _matches(given):
            found.setdefault(path.resolve(), path)
    files = [_file(path, source) for path in found.values() if not str(path).endswith(UNFINISHED)]
    return sorted((file for file in files if file is not None), key=lambda file: file.name)


def find_news(
    files: Sequence[InboxFile],
    entries: Mapping[str, CursorEntry],
    *,
    settings: str,
    refresh: RefreshConfig,
    overlapping: bool = False,
    now: float | None = None,
) -> News:
    """Compare an inbox with its cursor.

    Args:
        files: From `list_inbox`.
        entries: Of the cursor, by name.
        settings: From `reading_settings`.
        refresh: How young files wait, and whether files that are gone hold their bytes.
        overlapping: Files may have rows of the same ids, of which the last file's count: of equal
            bytes those of the last file are read. Else ids tell files apart, and those that are in
            use stay, so that rows keep their ids.
        now: Seconds since the epoch; now.
    """
    moment = time.time() if now is None else now
    looks = [_look(file, entries.get(file.name), refresh.settle_seconds, moment) for file in files]
    there = {look.file.name: look for look in looks}
    gone = tuple(entry for name, entry in entries.items() if name not in there)
    refused = {name for name, look in there.items() if _refused(look, entries.get(name), settings)}
    in_use = _in_use(entries, there, withdraw_deleted=refresh.withdraw_deleted)
    coming = [look for look in looks if not look.waits and look.file.name not in refused]
    bytes_of = in_use + [(look.sha256, look.file.name) for look in coming]
    owners = dict(sorted(bytes_of) if overlapping else reversed(bytes_of))
    readings: list[Reading] = []
    duplicates: list[CursorEntry] = []
    touched: list[CursorEntry] = []
    for look in (look for look in looks if not look.waits):
        entry = entries.get(look.file.name)
        seen = _seen(look, entry, settings)
        owner = owners.get(look.sha256, look.file.name)
        if owner != look.file.name and look.file.name not in refused:
            same = replace(seen, state="duplicate", reason=f"the same bytes as {owner}")
            duplicates += [same] if same != entry else []
        elif (why := _why(look, entry, settings)) is not None:
            readings.append(Reading(look.file, look.sha256, why))
        elif seen != entry:
            touched.append(seen)
    return News(
        readings=tuple(readings),
        waiting={look.file.name: look.waits for look in looks if look.waits},
        duplicates=tuple(duplicates),
        touched=tuple(touched),
        gone=gone,
        n_files=len(files),
    )


@dataclass(frozen=True)
class _Look:
    """A file with its bytes' digest, or why it is left to the next run."""

    file: InboxFile
    sha256: str = ""
    waits: str = ""


def still_there(file: InboxFile) -> bool:
    """Tell whether a file has the size and time that it was listed with; a dataset always has."""
    if isinstance(file.source, DatasetSource):
        return True
    try:
        found = input_file(file.name).stat()
    except FileNotFoundError:
        return False
    return (found.st_size, found.st_mtime_ns) == (file.n_bytes, file.mtime_ns)


def _look(file: InboxFile, entry: CursorEntry | None, settle_seconds: float, now: float) -> _Look:
    if file.sha256:
        return _Look(file, file.sha256)
    if entry is not None and entry.state != "taking" and _stat_of(entry) == _stat_of(file):
        return _Look(file, entry.sha256)
    if not file.n_bytes:
        return _Look(file, waits="it is empty")
    # a time in the future is a wrong clock's: whether it grows is seen below
    if 0 <= now - file.mtime_ns / 1e9 < settle_seconds:
        return _Look(file, waits=f"it changed less than {settle_seconds:g} s ago")
    try:
        sha256 = file_sha256(input_file(file.name))
    except FileNotFoundError:
        return _Look(file, waits="it went away")
    except ReplacedError:
        return _Look(file, waits="it grows")
    if not still_there(file):
        return _Look(file, waits="it grows")
    return _Look(file, sha256)


def _in_use(
    entries: Mapping[str, CursorEntry], there: Mapping[str, _Look], *, withdraw_deleted: bool
) -> list[tuple[str, str]]:
    """Return bytes whose rows are in use, with the file that they came from, by names of files."""
    found = []
    for name, entry in sorted(entries.items()):
        look = there.get(name)
        stays = not withdraw_deleted if look is None else look.sha256 == entry.sha256
        if entry.state == "taken" and stays:
            found.append((entry.sha256, name))
    return found


def _refused(look: _Look, entry: CursorEntry | None, settings: str) -> bool:
    """Tell whether these bytes of the file were refused before: they stand for nothing."""
    known = entry is not None and (entry.sha256, entry.settings) == (look.sha256, settings)
    return known and entry is not None and entry.state == "refused"


def _seen(look: _Look, entry: CursorEntry | None, settings: str) -> CursorEntry:
    """Return the entry with what was seen of the file now."""
    file = look.file
    base = entry or CursorEntry(file.name, "taken", "", 0, 0, settings)
    return replace(
        base, sha256=look.sha256, n_bytes=file.n_bytes, mtime_ns=file.mtime_ns, gone=False
    )


def _why(look: _Look, entry: CursorEntry | None, settings: str) -> Why | None:
    """Return why a file is read; None where it need not be."""
    if entry is None:
        return "new"
    if entry.state == "taking":
        return "interrupted"
    if entry.sha256 != look.sha256:
        return "changed"
    if entry.settings != settings:
        return "other settings"
    # a duplicate whose like went away is news, whenever it came
    return "wanted again" if entry.stale or entry.state == "duplicate" else None


def _stat_of(file: InboxFile | CursorEntry) -> tuple[int, int]:
    return file.n_bytes, file.mtime_ns


def _matches(given: str) -> Sequence[InputFile]:
    if is_url(given):
        files, is_folder = remote_files(given)
        named = [file for file in files if file.name.lower().endswith(FORMATS)]
        return named if is_folder else files
    path = local_path(given).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        return [
            file
            for file in path.rglob("*")
            if file.name.lower().endswith(FORMATS)
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        ]
    # glob.glob takes absolute patterns, which Path.glob refuses
    return [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207


def _file(path: InputFile, source: FilesSource) -> InboxFile | None:
    name = str(path)
    try:
        found = path.stat()
    except FileNotFoundError:  # it went away since it was listed
        return None
    if isinstance(found, os.stat_result) and not stat.S_ISREG(found.st_mode):
        return None
    one = source.model_copy(update={"paths": (name,)})
    return InboxFile(name, one, found.st_size, found.st_mtime_ns)


def _dataset(source: DatasetSource) -> InboxFile:
    from tasks.sources import pinned, source_identity

    identity = source_identity(source)
    name = f"{source.path}[{source.split}]"
    n_bytes = sum(int(str(entry.get("bytes", 0))) for entry in identity)
    return InboxFile(name, pinned(source, identity), n_bytes, 0, digest(identity))
