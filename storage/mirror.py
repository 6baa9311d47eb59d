"""The folder on disk that stands for a store at a URL; docs/object_stores.md tells how it works.

The object store is the truth. What is published is uploaded first and appears on disk after it, so
the mirror never has what the store lacks; what others publish comes in when the store is looked at.
"""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from uuid import uuid4

from storage.errors import BusyError, CorruptionError
from storage.mirror_notes import MirrorNotes, Note
from storage.objects import Objects, StoredObject, is_md5_of

MANIFESTS = (
    "batch.json",
    "tombstone.json",
    "refused.json",
    "index.json",
    "query_set.json",
    "scores.json",
    "manifest.json",
)
"""Files that make a folder exist; each is put last, and only where there is none."""

POINTERS = ("rise-store.json", "rows.json", "latest", "moves.jsonl", "announced.json")
"""Small files that say what there is, replaced only if nobody else has replaced them."""

LINK = "latest"
"""A symbolic link on disk; an object that holds the name it leads to."""

PARTIAL_SUFFIX = ".partial"
"""Ending of files and folders that are not finished; anything with it may be deleted."""

LOCAL_SUFFIXES = (PARTIAL_SUFFIX, ".lock", "lease.json")
"""Endings of names that mean something on one machine only, or are no part of the mirror."""

REPORTS = "quality"
"""Folder of reports, of which only the JSON is read by programs."""

FRESH_SECONDS = 1.0
LOOKING_SHARE = 10.0
"""A listing holds for so long, and for so many times what it took."""

INCOMING_SECONDS = 24 * 3600.0
"""What has been on its way for so long, nobody waits for."""

TRANSFERS = 16
"""Objects on their way at once."""

LOOKS = 6
"""Listings until one brings no news; each brings in what was published before it began."""

Item = TypeVar("Item")


class Mirror:
    """One store at a URL and its folder on disk.

    Attributes:
        url: Of the store.
        folder: Stands for the store.
        objects: The store itself.
    """

    def __init__(self, url: str, place: Path) -> None:
        """Name both; nothing is asked of the store yet."""
        self.url = url.rstrip("/")
        self.objects = Objects(self.url)
        self.folder = place / "store"
        self._place = place
        self.folder.mkdir(parents=True, exist_ok=True)
        self._incoming = place / "incoming"
        self._clear_incoming()
        self._notes = MirrorNotes(place / "notes.sqlite")
        self._fresh_until = 0.0
        self._whole: set[str] = set()

    def key(self, path: Path) -> str:
        """Return the key of a path in the folder."""
        return "" if path == self.folder else path.relative_to(self.folder).as_posix()

    def _clear_incoming(self) -> None:
        """Delete what killed processes were fetching; what is young may be somebody's."""
        self._incoming.mkdir(exist_ok=True)
        for path in self._incoming.iterdir():
            with suppress(FileNotFoundError):
                if path.lstat().st_ctime < time.time() - INCOMING_SECONDS:
                    path.unlink()

    # ------------------------------------------------------------------------------ looking

    def look(self, *, at_once: bool = False) -> None:
        """Bring in what others have published or deleted, unless a listing still holds.

        Args:
            at_once: List now, whatever was listed before.
        """
        if not at_once and time.monotonic() < self._fresh_until:
            return
        asked = time.time()
        with self._alone("look"):
            began = time.monotonic()
            if self._notes.last_look() < (asked if at_once else asked - FRESH_SECONDS):
                self._follow_until_quiet()
            took = time.monotonic() - began
        self._fresh_until = time.monotonic() + max(FRESH_SECONDS, LOOKING_SHARE * took)

    def _follow_until_quiet(self) -> None:
        for _ in range(LOOKS):
            started = time.time()
            news = self._follow(self.objects.listing(), started)
            self._notes.note_look(started)
            if not news:
                return
            self._bring(news)

    def _follow(self, listing: Mapping[str, StoredObject], started: float) -> dict[str, Note]:
        """Note a listing, delete what is gone, and return what must be brought in."""
        known = self._notes.all()
        gone = [key for key, note in known.items() if key not in listing and note.noted < started]
        # manifests first: a folder that is half gone must not look like a damaged one
        for key in sorted(gone, key=lambda key: not _is_shown(key)):
            self._drop(key)
        self._notes.forget(gone)
        changed = {}
        for key, seen in listing.items():
            before = known.get(key, Note(seen, None, 0.0))
            if before.noted < started and not _is_local(key):
                changed[key] = replace(before, seen=seen)
        fresh = {key: note for key, note in changed.items() if known.get(key) != note}
        self._notes.put(fresh)
        return {
            key: note for key, note in changed.items() if _is_shown(key) and self._lacks(key, note)
        }

    def _lacks(self, key: str, note: Note) -> bool:
        return not note.is_current or not os.path.lexists(self.folder / key)

    def _drop(self, key: str) -> None:
        path = self.folder / key
        path.unlink(missing_ok=True)
        for parent in path.parents:
            if parent == self.folder:
                return
            try:
                parent.rmdir()
            except OSError:  # not empty
                return

    # ------------------------------------------------------------------------------ fetching

    def fetch(self, folder: Path, *, reports: bool = False) -> None:
        """Bring in every file of a folder that is not there in its newest state.

        Args:
            folder: A published folder, or one that is never published as a whole.
            reports: Also pages for people.

        Raises:
            CorruptionError: A file is not what the folder's manifest says.
        """
        place = self.key(folder)
        missing = self._missing(place, reports=reports)
        if missing:
            with self._alone("fetch"):
                missing = self._missing(place, reports=reports)
                self._bring(missing)
                self._require_listed(folder, missing)
        self._whole.add(place)

    def _missing(self, place: str, *, reports: bool) -> dict[str, Note]:
        """Return what must be fetched; the disk is looked at once a process and folder."""
        notes = self._notes.outdated(place)
        if place not in self._whole:
            known = self._notes.all(place)
            notes = {key: note for key, note in known.items() if self._lacks(key, note)}
        return {
            key: note
            for key, note in notes.items()
            if not _is_local(key) and (reports or not _is_report(key))
        }

    def _bring(self, notes: Mapping[str, Note]) -> None:
        """Fetch objects; one that is gone meanwhile is left out."""
        came = each(lambda item: self._bring_one(*item), notes.items())
        self._notes.put({key: note for key, note in zip(notes, came, strict=True) if note})

    def _bring_one(self, key: str, note: Note) -> Note | None:
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._incoming / uuid4().hex  # not beside it: whoever holds a lease clears there
        try:
            if not self.objects.get(key, partial):
                return None
            _set_time(partial, note.seen)
            if path.name == LINK:
                target = PurePosixPath(partial.read_text().strip()).name
                partial.unlink()
                partial.symlink_to(target, target_is_directory=True)
                partial.replace(path)
            else:
                partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return replace(note, copy=note.seen.tag, noted=time.time())

    def _require_listed(self, folder: Path, brought: Iterable[str]) -> None:
        listed = _listed_files(folder)
        wrong = [
            key
            for key in brought
            if (entry := listed.get(PurePosixPath(key).relative_to(self.key(folder)).as_posix()))
            and not _is_it(self.folder / key, entry)
        ]
        for key in wrong:
            self._drop(key)
        self._notes.forget(wrong)
        if wrong:
            raise CorruptionError(
                f"{self.url}/{wrong[0]} is not what its manifest says ({len(wrong)} such files): "
                "its size or sha256 differs. Restore it from a copy, or delete the folder that it "
                "is in and make it again."
            )

    # ---------------------------------------------------------------------------- publishing

    def put_file(self, written: Path, final: Path) -> None:
        """Upload a file that will be renamed to ``final`` next.

        Raises:
            BusyError: Of a pointer: somebody else replaced it meanwhile.
        """
        key = self.key(final)
        if _is_shown(key):
            seen = self._put_pointer(key, written.read_bytes())
        else:
            seen = self.objects.put(written, key)
            self._note(key, seen)
        _set_time(written, seen)

    def put_link(self, link: Path, target: str) -> None:
        """Upload where a link leads; it is moved on disk next."""
        self._put_pointer(self.key(link), target.encode())

    @contextmanager
    def put_folder(self, staging: Path, final: Path) -> Iterator[None]:
        """Upload a folder, its manifest last; rename it to ``final`` within the block.

        Raises:
            FileExistsError: It is published already.
        """
        files = {path: self.key(final / path.relative_to(staging)) for path in _files(staging)}
        manifest = next((name for name in MANIFESTS if (staging / name).is_file()), None)
        sealing = {} if manifest is None else {staging / manifest: files.pop(staging / manifest)}
        if any(self.objects.find(key) for key in sealing.values()):
            self._refuse_published(final)
        there = self.objects.listing(self.key(final))
        put = each(lambda item: self._put_unless_there(*item, there.get(item[1])), files.items())
        with self._alone("look"):  # nobody sees the manifest before the folder is renamed
            for path, key in sealing.items():
                sealed = self.objects.put_if(key, path.read_bytes(), tag=None)
                if sealed is None:
                    break
                put.append(sealed)
            else:
                files |= sealing
                for path, seen in zip(files, put, strict=True):
                    _set_time(path, seen)
                yield
                now = time.time()
                notes = {
                    key: Note(seen, seen.tag, now)
                    for key, seen in zip(files.values(), put, strict=True)
                }
                self._notes.put(notes)
                return
        self._refuse_published(final)

    def remove(self, path: Path) -> None:
        """Delete a file, or a folder with all that is in it, from the store; then from disk."""
        key = self.key(path)
        keys = sorted(self.objects.listing(key), key=lambda key: not _is_shown(key))
        keys = keys or [key]
        shown = [key for key in keys if _is_shown(key)]
        each(self.objects.delete, shown)
        each(self.objects.delete, [key for key in keys if key not in shown])
        self._notes.forget(keys)

    def _put_unless_there(self, path: Path, key: str, there: StoredObject | None) -> StoredObject:
        """Put a file of a folder, unless an upload that was cut off had put it already."""
        if (
            there is not None
            and there.n_bytes == path.stat().st_size
            and is_md5_of(there.tag, path)
        ):
            return there
        return self.objects.put(path, key)

    def _put_pointer(self, key: str, data: bytes) -> StoredObject:
        known = self._notes.get(key)
        put = self.objects.put_if(key, data, tag=None if known is None else known.copy)
        if put is None and self.objects.read(key) == data:
            put = self.objects.find(key)
        if put is None:
            self.look(at_once=True)
            raise BusyError(
                f"{self.url}/{key} was replaced by somebody else meanwhile. Run again: what they "
                "did is then seen, and finished work is kept."
            )
        self._note(key, put)
        return put

    def _note(self, key: str, seen: StoredObject) -> None:
        self._notes.put({key: Note(seen, seen.tag, time.time())})

    def _refuse_published(self, final: Path) -> None:
        self.look(at_once=True)
        raise FileExistsError(f"{self.url}/{self.key(final)} is published and never overwritten.")

    @contextmanager
    def _alone(self, what: str) -> Iterator[None]:
        """Keep the other threads and processes of this machine from doing the same meanwhile."""
        with (self._place / f"{what}.lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def each(do: Callable[[Item], Any], items: Iterable[Item]) -> list[Any]:
    """Do something to every item, several at once; results in order, or the first error."""
    waiting: Sequence[Item] = list(items)
    if len(waiting) < 2:
        return [do(item) for item in waiting]
    with ThreadPoolExecutor(min(TRANSFERS, len(waiting))) as pool:
        return list(pool.map(do, waiting))


def _is_shown(key: str) -> bool:
    """Tell whether a listing brings an object in: it says what there is."""
    *folders, name = key.split("/")
    return name in MANIFESTS or name in POINTERS or folders[-1:] == [".current"]


def _is_local(key: str) -> bool:
    return any(part.endswith(LOCAL_SUFFIXES) for part in key.split("/"))


def _is_report(key: str) -> bool:
    return REPORTS in key.split("/") and not key.endswith(".json")


def _files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not _is_local(path.relative_to(folder).as_posix())
    )


def _listed_files(folder: Path) -> dict[str, Any]:
    """Return what a folder's manifest says of its files, by name; nothing where there is none."""
    for name in MANIFESTS:
        with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            return {
                entry["name"]: entry for entry in json.loads((folder / name).read_bytes())["files"]
            }
    return {}


def _is_it(path: Path, entry: Mapping[str, Any]) -> bool:
    try:
        if path.stat().st_size != entry["bytes"]:
            return False
        with path.open("rb") as file:
            return bool(hashlib.file_digest(file, "sha256").hexdigest() == entry["sha256"])
    except FileNotFoundError:
        return True  # it went away while it was fetched; readers say so


def _set_time(path: Path, seen: StoredObject) -> None:
    os.utime(path, ns=(seen.mtime_ns, seen.mtime_ns))
