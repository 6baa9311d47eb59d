"""Where a lease is kept: four operations, each whole or not at all, on one small piece of bytes.

A folder of a file system does them with renames under a short lock. An object store does them with
conditional requests, where the tag is the object's version.
"""

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from storage.files import folder_guard, raise_explained
from storage.mirror_keys import PARTIAL_SUFFIX
from storage.objects import Objects
from storage.roots import LEASE_SUFFIX, mirror_at

READS = 10
"""Tries to read an object while others replace it."""

NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
"""What file systems without second names of a file answer: FUSE ones, some network drives."""


class Backend(Protocol):
    """One place for bytes, changed by one of several at a time.

    A tag tells one state of the bytes from every other that was ever there; ``OSError`` where the
    place cannot be reached.
    """

    def create_if_absent(self, data: bytes) -> bool:
        """Put bytes there if there are none; tell whether that was done."""

    def read(self) -> tuple[bytes, str] | None:
        """Return the bytes and their tag; None when there are none."""

    def replace_if(self, tag: str, data: bytes) -> bool:
        """Replace the bytes if they still have this tag; tell whether that was done."""

    def delete_if(self, tag: str) -> bool:
        """Delete the bytes if they still have this tag; tell whether that was done."""


class FileBackend:
    """A file; its folder is made when there is something to put there.

    The tag is the sha256 of the bytes: whoever writes makes every state differ.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def create_if_absent(self, data: bytes) -> bool:
        """Put the file there if there is none; it appears with all of its bytes."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with folder_guard(self._path.parent), self._written_beside(data) as partial:
                self._put(partial)
        except FileExistsError:
            return False
        except OSError as error:
            raise_explained(error, self._path)
        return True

    def read(self) -> tuple[bytes, str] | None:
        """Return bytes and tag; a symbolic link, which could lead out of the store, is refused."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise_explained(error, self._path)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read()
        return data, _tag(data)

    def replace_if(self, tag: str, data: bytes) -> bool:
        """Replace the file if it has the tag."""
        try:
            with folder_guard(self._path.parent):
                if not self._has(tag):
                    return False
                with self._written_beside(data) as partial:
                    partial.replace(self._path)
        except FileNotFoundError:  # the folder itself is gone
            return False
        except OSError as error:
            raise_explained(error, self._path)
        return True

    def delete_if(self, tag: str) -> bool:
        """Delete the file if it has the tag."""
        try:
            with folder_guard(self._path.parent):
                if not self._has(tag):
                    return False
                self._path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise_explained(error, self._path)
        return True

    def _put(self, partial: Path) -> None:
        try:
            os.link(partial, self._path)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            # the lock on the folder is then all that keeps two apart
            if os.path.lexists(self._path):
                raise FileExistsError(errno.EEXIST, "there is a lease", str(self._path)) from error
            partial.rename(self._path)

    @contextmanager
    def _written_beside(self, data: bytes) -> Iterator[Path]:
        """Write a file of one name, which the next one clears if this process is killed."""
        partial = self._path.with_name(f"{self._path.name}{PARTIAL_SUFFIX}")
        partial.unlink(missing_ok=True)  # it may be a second name of the lease itself
        try:
            partial.write_bytes(data)
            yield partial
        finally:
            with suppress(OSError):
                partial.unlink()

    def _has(self, tag: str) -> bool:
        found = self.read()
        return found is not None and found[1] == tag


class ObjectBackend:
    """An object, changed by conditional requests; the tag is that of the store.

    A lease that was given back is an object without bytes: not every store can delete on a
    condition.
    """

    def __init__(self, objects: Objects, key: str) -> None:
        self._objects, self._key = objects, key

    def create_if_absent(self, data: bytes) -> bool:
        """Put the object there if there is none, or one that was given back."""
        if self._objects.put_if(self._key, data, tag=None) is not None:
            return True
        found = self._found()
        return found is not None and not found[0] and self.replace_if(found[1], data)

    def read(self) -> tuple[bytes, str] | None:
        """Return bytes and tag; None where there is none, or one that was given back."""
        found = self._found()
        return found if found is not None and found[0] else None

    def replace_if(self, tag: str, data: bytes) -> bool:
        """Replace the object if it has the tag."""
        return self._objects.put_if(self._key, data, tag=tag) is not None

    def delete_if(self, tag: str) -> bool:
        """Give the object back if it has the tag."""
        return self.replace_if(tag, b"")

    def _found(self) -> tuple[bytes, str] | None:
        """Return bytes and tag of one state: it had that tag before and after it was read."""
        for _ in range(READS):
            before, data = self._objects.find(self._key), self._objects.read(self._key)
            after = self._objects.find(self._key)
            if before is None or data is None or after is None:
                return None
            if before.tag == after.tag:
                return data, after.tag
        raise ConnectionError(
            f"{self._objects.url}/{self._key} changes faster than it can be read. Run again."
        )


def backend_of(path: Path) -> Backend:
    """Return where the lease that is named by a path of a store is kept."""
    mirror = mirror_at(path)
    return FileBackend(path) if mirror is None else ObjectBackend(mirror.objects, mirror.key(path))


def place_of(path: Path) -> str:
    """Return where the file of a lease is; empty where it is an object, which no copy has."""
    return str(path.absolute()) if mirror_at(path) is None else ""


def leases_below(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """Return the leases of a store by the paths that name them.

    Args:
        folder: Of the store, or of its mirror.
        patterns: Globs of them, in the order in which they are wanted.
    """
    mirror = mirror_at(folder)
    if mirror is None:
        return [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    keys = sorted(mirror.objects.listing())
    return [folder / key for key in keys if key.endswith(LEASE_SUFFIX)]


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
