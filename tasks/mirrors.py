"""The copies on this machine of stores in object stores: listed, deleted, and where one lies."""

from pathlib import Path

from storage.mirror_places import Place, clear, places
from storage.roots import mirrors_folder, store_folder
from storage.urls import folder_url


def list_mirrors() -> list[Place]:
    """Return the mirrors of this machine, by URL."""
    return places(mirrors_folder())


def clear_mirrors(url: str | None) -> list[Place]:
    """Delete the mirror of a store, or with None all; return what was deleted.

    Raises:
        ValueError: The URL has no mirror here.
        BusyError: A process uses one; those before it are deleted.
    """
    wanted = None if url is None else folder_url(url)
    found = [one for one in list_mirrors() if wanted in (None, one.url)]
    if url is not None and not found:
        raise ValueError(f"{url} has no mirror here. `rise mirror ls` lists them.")
    for one in found:
        clear(one)
    return found


def pages_folder(root: str) -> Path:
    """Return the folder with the pages of a store: of one at a URL, those of this machine."""
    return store_folder(root)
