"""The folder on disk that stands for a store at a URL; docs/object_stores.md tells how it works.

The object store is the truth. What is published is uploaded first and appears on disk after it, so
the mirror never has what the store lacks; what others publish comes in when the store is looked at.
"""

import fcntl
import os
import shutil
import stat
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn, TypeVar
from uuid import uuid4

from storage.errors import BusyError, CorruptionError
from storage.mirror_checks import is_it, listed_files
from storage.mirror_keys import (
    LINK,
    MANIFESTS,
    is_local,
    is_report,
    is_safe,
    is_shown,
    link_target,
    without_folders,
)
from storage.mirror_notes import MirrorNotes, Note
from storage.mirror_places import used
from storage.objects import Objects, StoredObject, is_md5_of
from storage.sizes import Size

NOTES_FILE = "notes.sqlite"

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
        weakref.finalize(self, os.close, used(place))  # nobody clears it until then
        self._incoming = place / "incoming"
        self._clear_incoming()
        self._notes = MirrorNotes(place / NOTES_FILE)
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
            last = self._notes.last_look()
            if not last:
                self._forget_unknown()
            if not _in_time(asked if at_once else asked - FRESH_SECONDS, last):
                self._follow_until_quiet()
            took = time.monotonic() - began
        self._fresh_until = time.monotonic() + max(FRESH_SECONDS, LOOKING_SHARE * took)

    def _forget_unknown(self) -> None:
        """Delete files of which the notes were lost: nobody would see that they are gone."""
        for path in self.folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _follow_until_quiet(self) -> None:
        for _ in range(LOOKS):
            started = time.time()
            news = self._follow(self._listing(), started)
            self._notes.note_look(started)
            if not news:
                return
            self._bring(news)

    def _listing(self) -> dict[str, StoredObject]:
        """Return the objects that can be files here: others put there what they like."""
        listing = self.objects.listing()
        return {key: listing[key] for key in without_folders(filter(is_safe, listing))}

    def _follow(self, listing: Mapping[str, StoredObject], started: float) -> dict[str, Note]:
        """Note a listing, delete what is gone, and return what must be brought in."""
        known = self._notes.all()
        gone = [
            key
            for key, note in known.items()
            if key not in listing and not _in_time(started, note.noted)
        ]
        # manifests first: a folder that is half gone must not look like a damaged one
        for key in sorted(gone, key=lambda key: not is_shown(key)):
            self._drop(key)
        self._notes.forget(gone)
        changed = {}
        for key, seen in listing.items():
            before = known.get(key, Note(seen, None, 0.0))
            if not _in_time(started, before.noted) and not is_local(key):
                changed[key] = replace(before, seen=seen)
        fresh = {key: note for key, note in changed.items() if known.get(key) != note}
        self._notes.put(fresh)
        return {
            key: note for key, note in changed.items() if is_shown(key) and self._lacks(key, note)
        }

    def _lacks(self, key: str, note: Note) -> bool:
        """Tell whether the copy on disk is missing, old, or cut off, as by a power cut."""
        if not note.is_current:
            return True
        try:
            found = os.lstat(self.folder / key)
        except FileNotFoundError:
            return True
        return stat.S_ISREG(found.st_mode) and found.st_size != note.seen.n_bytes

    def _drop(self, key: str) -> None:
        if not is_safe(key):
            return
        path = self.folder / key
        path.unlink(missing_ok=True)
        for parent in path.parents:
            if parent == self.folder:
                return
            try:
                parent.rmdir()
            except OSError:  # not empty
                return

    def size(self, folder: Path) -> Size:
        """Return what a folder takes in the store, as it was listed last."""
        seen = [note.seen.n_bytes for note in self._notes.all(self.key(folder)).values()]
        return Size(sum(seen), len(seen), 0)

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
            if not is_local(key) and (reports or not is_report(key))
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
            target = link_target(partial.read_bytes()) if path.name == LINK else None
            if target is not None:  # else it leads nowhere, and stays a file
                partial.unlink()
                partial.symlink_to(target, target_is_directory=True)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return replace(note, copy=note.seen.tag, noted=time.time())

    def _require_listed(self, folder: Path, brought: Iterable[str]) -> None:
        listed = listed_files(folder)
        wrong = [
            key
            for key in brought
            if (entry := listed.get(PurePosixPath(key).relative_to(self.key(folder)).as_posix()))
            and not is_it(self.folder / key, entry)
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
        if is_shown(key):
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
        wanted = {*files.values()} | {key for key in there if is_local(key)}
        if sealing:  # of a killed upload that had other files: no manifest lists them
            each(self.objects.delete, [key for key in there if key not in wanted])
        with self._alone("look"):  # nobody sees the manifest before the folder is renamed
            sealed = [self._seal(path, key, final) for path, key in sealing.items()]
            if None not in sealed:
                seen = dict(zip([*files, *sealing], [*put, *sealed], strict=True))
                for path, one in seen.items():
                    _set_time(path, one)
                yield
                now, keys = time.time(), [*files.values(), *sealing.values()]
                pairs = zip(keys, seen.values(), strict=True)
                self._notes.put({key: Note(one, one.tag, now) for key, one in pairs})
                return
        self._refuse_published(final)

    def _seal(self, manifest: Path, key: str, final: Path) -> StoredObject | None:
        """Put a manifest where there is none; one whose answer was lost is there already."""
        data = manifest.read_bytes()
        sealed = self.objects.put_if(key, data, tag=None)
        if sealed is None and not final.exists() and self.objects.read(key) == data:
            return self.objects.find(key)
        return sealed

    def remove(self, path: Path) -> None:
        """Delete a file, or a folder with all that is in it, from the store; then from disk."""
        key = self.key(path)
        keys = sorted(self.objects.listing(key), key=lambda key: not is_shown(key))
        keys = keys or [key]
        shown = [key for key in keys if is_shown(key)]
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

    def _refuse_published(self, final: Path) -> NoReturn:
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


def _in_time(least: float, moment: float) -> bool:
    """Tell whether a moment is not before another, nor one of a clock that was put back since."""
    return least <= moment <= time.time()


def _files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not is_local(path.relative_to(folder).as_posix())
    )


def _set_time(path: Path, seen: StoredObject) -> None:
    os.utime(path, ns=(seen.mtime_ns, seen.mtime_ns))
