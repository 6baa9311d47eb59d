"""How bytes reach the disk: written beside, synced, renamed; hashed; locked.

Every write that makes something *count* (a completion record, a manifest, a published folder)
goes through this file, so that a process killed at any moment leaves either the old state or
the new one. Identity is sha256 over canonical JSON.

Litter is told from work in progress by operating-system locks, never by age: a staging folder is
locked for as long as its process lives, and whatever makes or deletes entries that end in
``.partial`` holds a short lock on their parent folder.
"""

import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn, Protocol

from storage.errors import BusyError, CorruptionError, NotFoundError, StorageError
from storage.mirror_keys import PARTIAL_SUFFIX
from storage.roots import alone, publish_bytes, publish_link, publishing, unpublish

ID_HEX_DIGITS = 16
"""Length of an artifact id: 64 bits of a sha256, in hexadecimal."""


class Readable(Protocol):
    """A file that can be opened: a path, or something at a URL."""

    def open(self, mode: Literal["rb"]) -> io.BufferedReader:
        """Open it for reading bytes."""


def canonical_json(value: Any) -> bytes:
    """Return the one JSON spelling of ``value``: sorted keys, no spaces, no NaN.

    Raises:
        ValueError: A number is not finite.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def digest(value: Any) -> str:
    """Return the sha256 of the canonical JSON of ``value``, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def short_id(value: Any) -> str:
    """Return the artifact id of an identity: the first 16 digits of its digest."""
    return digest(value)[:ID_HEX_DIGITS]


def file_sha256(path: Readable) -> str:
    """Return the sha256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut."""

    def write(partial: Path) -> None:
        partial.write_bytes(data)

    publish_file(path, write)


def publish_file(path: Path, write: Callable[[Path], None]) -> None:
    """Have a file written beside its place, then put it there, synced.

    Args:
        path: Where; its folder is made.
        write: Writes the whole file to the path that it is given.
    """
    partial = _partial_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        publish_bytes(partial, path)
        partial.replace(path)
        sync_folder(path.parent)
    except (OSError, StorageError) as error:
        with suppress(OSError):
            partial.unlink()
        if isinstance(error, StorageError):
            raise
        raise_explained(error, path)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object atomically, indented and with sorted keys: people read these files."""
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    write_bytes(path, f"{text}\n".encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        NotFoundError: There is no such file.
        CorruptionError: The file is not a JSON object.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise NotFoundError(
            f"{path} does not exist. `rise ls` lists what the store has."
        ) from error
    except ValueError as error:
        raise CorruptionError(
            f"{path} is not valid JSON ({error}). Delete the artifact and make it again."
        ) from error
    if not isinstance(value, dict):
        raise CorruptionError(
            f"{path}: expected a JSON object, found {type(value).__name__}. "
            "Delete the artifact and make it again."
        )
    return value


@contextmanager
def staging_folder(final: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``final``, for `publish`; it is gone when the block ends.

    A killed process leaves a ``.partial`` folder, which `remove_partials` deletes.
    """
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with folder_guard(final.parent):
            staging = _partial_name(final)
            staging.mkdir()
            alive = os.open(staging, os.O_RDONLY)
            fcntl.flock(alive, fcntl.LOCK_SH)
    except OSError as error:
        raise_explained(error, final)
    try:
        yield staging
    except OSError as error:
        raise_explained(error, final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(alive)


def publish(staging: Path, final: Path) -> None:
    """Make a staging folder durable and rename it to ``final``.

    Raises:
        FileExistsError: ``final`` is already there; published folders are never overwritten.
    """
    _sync_tree(staging)
    with folder_guard(final.parent):
        if final.exists():
            raise FileExistsError(f"{final} is already published and is never overwritten.")
        with publishing(staging, final):
            staging.rename(final)
    sync_folder(final.parent)


@contextmanager
def published_folder(final: Path) -> Iterator[Path]:
    """Yield a staging folder that becomes ``final`` when the block ends without an error.

    On an error the staging folder is removed and ``final`` never exists.

    Raises:
        FileExistsError: ``final`` is already there.
    """
    if final.exists():
        raise FileExistsError(f"{final} is already published and is never overwritten.")
    with staging_folder(final) as staging:
        yield staging
        publish(staging, final)


def point_to(link: Path, target_name: str) -> None:
    """Make ``link`` a relative symbolic link to its sibling ``target_name``, atomically."""
    try:
        publish_link(link, target_name)
        with folder_guard(link.parent):
            partial = _partial_name(link)
            partial.symlink_to(target_name, target_is_directory=True)
            partial.replace(link)
        sync_folder(link.parent)
    except OSError as error:
        raise_explained(error, link)


def remove_durably(path: Path) -> None:
    """Delete a file, if it is there, so that it stays deleted after a power cut."""
    if path.exists():
        unpublish(path)
        path.unlink()
        sync_folder(path.parent)


def remove_folder(path: Path) -> None:
    """Delete a published folder; a kill on the way leaves a part of it."""
    unpublish(path)
    shutil.rmtree(path)


def remove_partials(folder: Path) -> int:
    """Delete the leavings of killed processes directly under ``folder``; return how many.

    Staging folders of living processes are left alone. Partial *files* are not locked: call
    this only where no other process writes files, or under the lock of the artifact.
    """
    if not folder.is_dir():
        return 0
    with folder_guard(folder):
        leavings = [path for path in folder.glob(f"*{PARTIAL_SUFFIX}") if not _in_use(path)]
        leavings += [path for path in folder.glob(f".*{PARTIAL_SUFFIX}") if not _in_use(path)]
        for path in set(leavings):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    return len(set(leavings))


@contextmanager
def folder_guard(folder: Path) -> Iterator[None]:
    """Hold a short lock on ``folder`` itself; waits for whoever holds it. Never nest it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _partial_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{PARTIAL_SUFFIX}")


def _in_use(path: Path) -> bool:
    """Tell whether ``path`` is the staging folder of a living process."""
    if path.is_symlink() or not path.is_dir():
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextmanager
def exclusive_lock(path: Path, *, what: str) -> Iterator[None]:
    """Hold an operating-system lock on ``path``; the kernel frees it when the process dies.

    Raises:
        BusyError: Another process holds it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open_own(path)
    except OSError as error:
        raise_explained(error, path)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(
                f"{what} is being written by another process (lock {path}). "
                "Wait for it to end, or stop it, and run again."
            ) from error
        yield


def open_own(path: Path) -> BinaryIO:
    """Open a file of the store for reading and appending; made when it is not there.

    Raises:
        OSError: It is a symbolic link (ELOOP), which could lead out of the store.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    return os.fdopen(os.open(path, flags, 0o666), "a+b")


@contextmanager
def waiting_lock(path: Path) -> Iterator[None]:
    """Hold an operating-system lock on the file ``path``, after waiting for whoever has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_own(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with alone(path, what=f"{path.parent.name}, for a moment,"):
            yield


def raise_explained(error: OSError, path: Path) -> NoReturn:
    """Raise a `StorageError` for a full or unwritable disk, else the error itself."""
    reasons = {
        errno.ENOSPC: "the disk is full. Free some space",
        errno.EFBIG: "the file is larger than this system permits (ulimit -f). Raise the limit",
        errno.EDQUOT: "the disk quota is used up. Free some space",
        errno.EACCES: "permission is denied. Choose a folder that you may write to",
        errno.EPERM: "permission is denied. Choose a folder that you may write to",
        errno.EROFS: "the file system is read-only. Choose another folder",
        errno.EEXIST: "a file is in the way. Move it, or choose another folder",
        errno.ELOOP: "a symbolic link is in the way. Remove it",
        errno.ENOTDIR: "a part of the path is a file, not a folder. Choose another folder",
    }
    reason = None if isinstance(error, StorageError) else reasons.get(error.errno or 0)
    if reason is None:
        raise error
    raise StorageError(
        f"Cannot write {path}: {reason} and run again; finished work is kept and not repeated."
    ) from error


def sync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            sync_folder(path)
