"""Names of objects: what each means to a mirror, and which of them can be files of it."""

import re
from collections.abc import Iterable

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

NAME_BYTES = 255
"""Longest name that a file may have."""

_TARGET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")


def is_shown(key: str) -> bool:
    """Tell whether a listing brings an object in: it says what there is."""
    *folders, name = key.split("/")
    return name in MANIFESTS or name in POINTERS or folders[-1:] == [".current"]


def is_local(key: str) -> bool:
    """Tell whether a name means something on one machine only."""
    return any(part.endswith(LOCAL_SUFFIXES) for part in key.split("/"))


def is_report(key: str) -> bool:
    """Tell whether an object is a page for people, of something that is published.

    The first two parts of a key are the names of a kind and of an artifact, which may be called as
    reports are.
    """
    return REPORTS in key.split("/")[2:-1] and not key.endswith(".json")


def is_safe(key: str) -> bool:
    """Tell whether a key can be the path of a file below a mirror; anybody can put any object."""
    return all(
        part not in ("", ".", "..") and "\0" not in part and len(part.encode()) < NAME_BYTES
        for part in key.split("/")
    )


def without_folders(keys: Iterable[str]) -> set[str]:
    """Return those keys that are not also folders of others: on disk a name is one or the other."""
    known = set(keys)
    folders: set[str] = set()
    for key in known:
        parent = key.rpartition("/")[0]
        while parent and parent not in folders:
            folders.add(parent)
            parent = parent.rpartition("/")[0]
    return known - folders


def link_target(data: bytes) -> str | None:
    """Return the name of the sibling that an object leads to; None where it holds no such name."""
    name = data.decode(errors="replace").strip().rpartition("/")[2]
    return name if _TARGET.fullmatch(name) else None
