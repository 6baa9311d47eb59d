"""How many bytes of the disk a part of a store takes, and what unfinished work lies about."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from storage.mirror_keys import PARTIAL_SUFFIX


@dataclass(frozen=True)
class Size:
    """Files below a folder.

    Attributes:
        n_bytes: Their bytes, as written; blocks of the disk are not counted.
        n_files: Their number.
        partial_bytes: Bytes of those that are not finished: written right now, or left by a kill.
    """

    n_bytes: int
    n_files: int
    partial_bytes: int


def folder_size(folder: Path) -> Size:
    """Return the size of everything below a folder; links are not followed, none is no error."""
    n_bytes = n_files = partial_bytes = 0
    for size, partial in _files(str(folder), partial=False):
        n_files += 1
        n_bytes += size
        partial_bytes += size if partial else 0
    return Size(n_bytes, n_files, partial_bytes)


def _files(folder: str, *, partial: bool) -> Iterator[tuple[int, bool]]:
    """Yield size, and whether it is unfinished, of each file; one that vanishes is no error."""
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        unfinished = partial or entry.name.endswith(PARTIAL_SUFFIX)
        if entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path, partial=unfinished)
        elif not entry.is_symlink():
            try:
                yield entry.stat(follow_symlinks=False).st_size, unfinished
            except FileNotFoundError:
                continue
