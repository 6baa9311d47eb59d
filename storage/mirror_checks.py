"""Whether the files of a fetched folder are those that its manifest lists."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from storage.mirror_keys import MANIFESTS


def listed_files(folder: Path) -> dict[str, Any]:
    """Return what a folder's manifest says of its files, by name; nothing where there is none."""
    for name in MANIFESTS:
        with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            return {
                entry["name"]: entry for entry in json.loads((folder / name).read_bytes())["files"]
            }
    return {}


def is_it(path: Path, entry: Mapping[str, Any]) -> bool:
    """Tell whether a file has the size and sha256 that a manifest says."""
    try:
        if path.stat().st_size != entry["bytes"]:
            return False
        with path.open("rb") as file:
            return bool(hashlib.file_digest(file, "sha256").hexdigest() == entry["sha256"])
    except FileNotFoundError:
        return True  # it went away while it was fetched; readers say so
