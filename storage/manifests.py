"""The JSON files that say what exists: versioned, self-checked, and what they say about files.

Every manifest carries ``format`` (what it describes), ``version`` and ``check``, the sha256 of
the canonical JSON of everything else. A flipped bit in a row count is therefore found on reading.
None of them holds a time: equal inputs give equal bytes; when something was made is the file's
modification time.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from storage.errors import CorruptionError, FormatVersionError, NotFoundError
from storage.files import digest, file_sha256, read_json, write_json

FORMAT_VERSION = 1
"""Version of every format in this store; FORMAT.md tells what would raise it."""

FORMAT_KEYS = ("format", "version", "check")
"""Fields that belong to the manifest itself, not to the artifact."""


def write_manifest(path: Path, kind: str, value: Mapping[str, Any]) -> None:
    """Write a manifest atomically.

    Raises:
        ValueError: ``value`` uses one of the reserved fields, or holds NaN or infinity.
    """
    taken = [key for key in FORMAT_KEYS if key in value]
    if taken:
        raise ValueError(f"a manifest must not hold the reserved fields {taken}; rename them.")
    body = {**value, "format": kind, "version": FORMAT_VERSION}
    write_json(path, {**body, "check": digest(body)})


def read_manifest(path: Path, kind: str) -> dict[str, Any]:
    """Read a manifest and return it without the fields of the format.

    Raises:
        NotFoundError: There is no such artifact.
        FormatVersionError: A newer or another program wrote it.
        CorruptionError: It is not JSON, its check does not hold, or its folder has lost it.
    """
    try:
        value = read_json(path)
    except NotFoundError as error:
        if not path.parent.is_dir():
            raise
        # folders appear with their manifests in them, so this one was there
        raise CorruptionError(
            f"{path} is missing. Restore it from a copy, or delete {path.parent} and make it again."
        ) from error
    require_format(value, kind, path)
    check = value.pop("check", None)
    if check != digest(value):
        raise CorruptionError(
            f"{path}: the content does not match its own checksum ({check!r}), so it was changed "
            "or damaged after it was written. Delete the artifact and make it again."
        )
    _require_own_files(value, path)
    return {key: item for key, item in value.items() if key not in FORMAT_KEYS}


def _require_own_files(value: Mapping[str, Any], path: Path) -> None:
    """Refuse a list of files that leads out of the artifact's folder."""
    for entry in value.get("files", ()):
        name = PurePosixPath(entry["name"])
        if name.is_absolute() or ".." in name.parts or "\0" in entry["name"]:
            raise CorruptionError(
                f"{path}: it lists the file {entry['name']!r}, which is not in its folder, so this "
                "program did not write it. Delete the artifact and make it again."
            )


def require_format(value: Mapping[str, Any], kind: str, path: Path) -> None:
    """Refuse what another program or a newer version wrote."""
    found, version = value.get("format"), value.get("version")
    if found != kind:
        raise FormatVersionError(
            f"{path}: expected format {kind!r}, found {found!r}. "
            "Point the program at a file that it wrote itself."
        )
    if version != FORMAT_VERSION:
        raise FormatVersionError(
            f"{path}: this program reads version {FORMAT_VERSION} of {kind}, the file has version "
            f"{version!r}. Upgrade the program, or read the store with the one that wrote it."
        )


def created_at(path: Path) -> str:
    """Return when a file was written, ISO 8601 in UTC, whole seconds."""
    moment = datetime.fromtimestamp(int(path.stat().st_mtime), tz=UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def describe_file(path: Path, *, folder: Path, n_rows: int | None = None) -> dict[str, Any]:
    """Return ``{name, bytes, sha256[, rows]}`` of a file, its name relative to ``folder``."""
    entry = {
        "name": path.relative_to(folder).as_posix(),
        "bytes": path.stat().st_size,
        "sha256": file_sha256(path),
    }
    return entry if n_rows is None else {**entry, "rows": n_rows}


def file_problems(
    folder: Path, files: Sequence[Mapping[str, Any]], *, deep: bool = True
) -> list[str]:
    """Compare files with what their manifest says of them.

    Args:
        folder: Where the files are.
        files: Entries of `describe_file`.
        deep: Also hash the content; else only presence and size.

    Returns:
        One sentence for each problem; empty when all is sound.
    """
    problems = []
    for entry in files:
        path = folder / entry["name"]
        if not path.is_file():
            problems.append(f"{path} is missing.")
        elif path.stat().st_size != entry["bytes"]:
            size = path.stat().st_size
            problems.append(f"{path} has {size} bytes, the manifest says {entry['bytes']}.")
        elif deep and file_sha256(path) != entry["sha256"]:
            problems.append(f"{path}: the content does not match the manifest's sha256.")
    return problems


def require_sound_files(folder: Path, files: Sequence[Mapping[str, Any]], *, deep: bool) -> None:
    """Raise `CorruptionError` when `file_problems` finds any."""
    problems = file_problems(folder, files, deep=deep)
    if problems:
        raise CorruptionError(
            " ".join([*problems, f"Restore the files, or delete {folder} and make it again."])
        )
