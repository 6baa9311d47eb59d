"""The mirrors of this machine: which there are, what they take, and how one is deleted."""

import fcntl
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from storage.errors import BusyError
from storage.mirror_keys import PARTIAL_SUFFIX
from storage.sizes import folder_size

URL_FILE = "url"
"""Beside a mirror: what it is of, for processes that know only a path in it."""

_USE_FILE = "in-use.lock"


@dataclass(frozen=True)
class Place:
    """One mirror.

    Attributes:
        url: Of its store.
        folder: Where it lies, with its notes.
        n_bytes: What it takes.
    """

    url: str
    folder: Path
    n_bytes: int


def used(folder: Path) -> int:
    """Return an open descriptor: until it is closed, nobody clears the mirror."""
    descriptor = os.open(folder / _USE_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def places(home: Path) -> list[Place]:
    """Return the mirrors below a folder, by URL."""
    folders = [path.parent for path in home.glob(f"*/{URL_FILE}")]
    found = [
        Place((path / URL_FILE).read_text(), path, folder_size(path).n_bytes) for path in folders
    ]
    return sorted(found, key=lambda place: place.url)


def clear(place: Place) -> None:
    """Delete a mirror; the store that it is of stays as it is.

    Raises:
        BusyError: A process uses it.
    """
    with (place.folder / _USE_FILE).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(
                f"{place.folder}, the mirror of {place.url}, is used by a process. Wait for it to "
                "end, or stop it, and run again."
            ) from error
        going = place.folder.with_name(f".{place.folder.name}{PARTIAL_SUFFIX}")
        shutil.rmtree(going, ignore_errors=True)
        place.folder.rename(going)
    shutil.rmtree(going)
