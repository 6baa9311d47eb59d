"""Where a store is on disk: its own folder, or the mirror of the store at a URL.

This is the only place where the two differ. The rest of the program names a store by its root and
works on the folder that it gets here; the functions that make something count (`storage.files`)
tell the mirror of it. For a local path every call here compares the beginning of a string.
"""

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from uuid import uuid4

from storage.mirror import NOTES_FILE, Mirror
from storage.mirror_keys import PARTIAL_SUFFIX
from storage.mirror_places import URL_FILE
from storage.sizes import Size, folder_size
from storage.urls import folder_url, is_url, local_path

MIRROR_VARIABLE = "RISE_MIRROR"
"""Environment variable that names the folder of all mirrors."""

LEASE_SUFFIX = ".lease.json"
ALONE_SECONDS = 60.0
"""How long the move of a pointer waits for another machine's."""

NAME_DIGITS = 16
"""Of the sha256 of a URL: the name of its mirror."""

_mirrors: dict[tuple[int, str], Mirror] = {}
_opening = threading.Lock()


def store_folder(root: str | Path) -> Path:
    """Return the folder of a store, with what others published in it so far.

    Args:
        root: A path, which is returned as it is, or a URL.

    Raises:
        StorageError: The URL cannot be opened, or its credentials do not suffice.
        ConnectionError: The object store cannot be reached.
    """
    if not is_url(str(root)):
        return local_path(str(root))
    mirror = _mirror(folder_url(str(root)))
    mirror.look()
    return mirror.folder


def mirrors_folder() -> Path:
    """Return the folder of all mirrors: `RISE_MIRROR`, or one in the folder of caches."""
    return Path(_home(os.environ.get(MIRROR_VARIABLE), os.environ.get("RISE_HOME")))


def fetched(folder: Path, *, reports: bool = False) -> Path:
    """Return a folder of a store after bringing in what is missing of it.

    Args:
        folder: A published folder, or one that is never published as a whole.
        reports: Also pages for people.

    Raises:
        CorruptionError: A file is not what the folder's manifest says.
        ConnectionError: The object store cannot be reached.
    """
    mirror = mirror_at(folder)
    if mirror is not None:
        mirror.fetch(folder, reports=reports)
    return folder


def caught_up(path: Path) -> None:
    """Bring in now what others have published: whoever has just got a lease sees all of it."""
    mirror = mirror_at(path)
    if mirror is not None:
        mirror.look(at_once=True)


def absolute_root(root: str) -> str:
    """Return a root that means the same store in every folder and process of this machine."""
    return root if is_url(root) else str(local_path(root).resolve())


def shown(path: Path) -> str:
    """Return how people name a path: in a mirror by its URL."""
    mirror = mirror_at(path)
    return str(path) if mirror is None else f"{mirror.url}/{mirror.key(path)}".rstrip("/")


def stored_size(folder: Path) -> Size:
    """Return what a folder of a store takes: on disk, or in the object store."""
    mirror = mirror_at(folder)
    return folder_size(folder) if mirror is None else mirror.size(folder)


def mirror_at(path: Path) -> Mirror | None:
    """Return the mirror that a path counts in; None for local paths and unfinished files."""
    home = _home(os.environ.get(MIRROR_VARIABLE), os.environ.get("RISE_HOME"))
    if not str(path).startswith(f"{home}{os.sep}"):
        return None
    name, *parts = path.relative_to(home).parts
    if any(part.endswith(PARTIAL_SUFFIX) for part in parts):
        return None
    try:
        return _mirror((Path(home) / name / URL_FILE).read_text())
    except FileNotFoundError:
        known = _mirrors.get((os.getpid(), str(Path(home) / name)))
        return None if known is None else _mirror(known.url)  # somebody deleted it


@contextmanager
def alone(path: Path, *, what: str) -> Iterator[None]:
    """Keep other machines out for a moment; on this one a lock does (`storage.files`).

    Raises:
        BusyError: Somebody else did not come to an end for a minute.
    """
    if mirror_at(path) is None:
        yield
        return
    from storage.lease import hold  # which writes files, which come here

    lease = path.with_name(f"{path.name}{LEASE_SUFFIX}")
    with hold(lease, what=what, wait_seconds=ALONE_SECONDS):
        yield


@contextmanager
def publishing(staging: Path, final: Path) -> Iterator[None]:
    """Upload a staging folder that is renamed to ``final`` within the block.

    Raises:
        FileExistsError: It is published already.
    """
    mirror = mirror_at(final)
    if mirror is None:
        yield
        return
    with mirror.put_folder(staging, final):
        yield


def publish_bytes(written: Path, final: Path) -> None:
    """Upload a file that is renamed to ``final`` next.

    Raises:
        BusyError: Somebody else replaced a pointer meanwhile.
    """
    mirror = mirror_at(final)
    if mirror is not None:
        mirror.put_file(written, final)


def publish_link(link: Path, target_name: str) -> None:
    """Upload where a link leads that is moved on disk next; `BusyError` as `publish_bytes`."""
    mirror = mirror_at(link)
    if mirror is not None:
        mirror.put_link(link, target_name)


def unpublish(path: Path) -> None:
    """Delete a file or folder from the object store; it is deleted on disk next."""
    mirror = mirror_at(path)
    if mirror is not None:
        mirror.remove(path)


@cache
def _home(given: str | None, rise_home: str | None) -> str:
    home = Path(rise_home) if rise_home else Path.home() / ".cache" / "rise"
    return str((Path(given).expanduser() if given else home / "mirrors").absolute())


def _mirror(url: str) -> Mirror:
    place = mirrors_folder() / hashlib.sha256(url.encode()).hexdigest()[:NAME_DIGITS]
    key = (os.getpid(), str(place))  # a forked process opens its own connections
    with _opening:
        if key not in _mirrors or not (place / NOTES_FILE).exists():  # or somebody deleted it
            for old in [old for old in _mirrors if old[0] != os.getpid()]:
                del _mirrors[old]
            _mirrors[key] = Mirror(url, place)
            _write_url(place, url)
        return _mirrors[key]


def _write_url(place: Path, url: str) -> None:
    """Say what a mirror is of; whoever reads it meanwhile reads all of it."""
    path = place / URL_FILE
    if not path.is_file() or path.read_text() != url:
        partial = path.with_name(f"{URL_FILE}.{uuid4().hex}{PARTIAL_SUFFIX}")
        partial.write_text(url)
        partial.replace(path)
