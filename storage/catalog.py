"""What is in the store: opening the root, and listing every artifact from its manifest alone.

Listing reads small JSON files only, so that it answers at once whatever the store holds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.errors import NotFoundError, StorageError
from storage.files import folder_guard, raise_explained, read_json, remove_partials, write_json
from storage.index_names import index_names
from storage.layout import (
    BATCH_FILE,
    BATCH_FOLDER,
    BATCH_FORMAT,
    INDEX_FILE,
    INDEX_FORMAT,
    QUERY_SET_FILE,
    QUERY_SET_FORMAT,
    REFUSED,
    RELEASE_FILE,
    RELEASE_FORMAT,
    ROWS_FILE,
    ROWS_FORMAT,
    SCORES_FILE,
    SCORES_FORMAT,
    STORE_FILE,
    STORE_FORMAT,
    TOMBSTONE_FILE,
    TOMBSTONE_FORMAT,
)
from storage.manifests import FORMAT_VERSION, created_at, read_manifest, require_format
from storage.refs import CorpusRef
from storage.roots import store_folder

_ONE_PROCESS = " A store in memory:// is that of one process, and ends with it."


@dataclass(frozen=True)
class Artifact:
    """One line of the listing.

    Args:
        kind: ``batch``, ``tombstone``, ``index``, ``query set``, ``scores`` or ``release``.
        name: The name that people gave; the id where there is none.
        id: The artifact's id, from its content and settings.
        created: When it was written, ISO 8601 in UTC; None when nothing was committed yet.
        detail: Counts from the manifest; ``problem`` when the manifest cannot be read.
    """

    kind: str
    name: str
    id: str
    created: str | None
    detail: dict[str, Any]


def open_store(root: str | Path, *, create: bool = False) -> Path:
    """Return the folder of a store after checking that it is one that this program reads.

    Args:
        root: Folder of the store.
        create: Make the store when there is none.

    Raises:
        NotFoundError: There is no store and ``create`` is False.
        FormatVersionError: A newer or another program made it.
        StorageError: The folder cannot be written.
    """
    folder = store_folder(root)
    marker = folder / STORE_FILE
    if create and not marker.is_file():
        _create_store(folder, marker)
    if not marker.is_file():
        raise NotFoundError(
            f"{root} is not a RISE store (it has no {STORE_FILE}). "
            "Check the path, or ingest some rows, which makes the store."
            f"{_ONE_PROCESS if str(root).startswith('memory://') else ''}"
        )
    require_format(read_json(marker), STORE_FORMAT, marker)
    return folder


def list_artifacts(root: str | Path) -> list[Artifact]:
    """Return every artifact of a store, by kind, then name, then order of making.

    Raises:
        NotFoundError: There is no store at ``root``.
    """
    folder = open_store(root)
    return [
        *_corpora(folder),
        *_indexes(folder),
        *_versions(folder / "queries", "query set", QUERY_SET_FILE, QUERY_SET_FORMAT),
        *_scores(folder),
        *_versions(folder / "releases", "release", RELEASE_FILE, RELEASE_FORMAT),
    ]


def published_folders(parent: Path) -> list[Path]:
    """Return the folders directly under ``parent`` that are artifacts, by name."""
    if not parent.is_dir():
        return []
    entries = [path for path in parent.iterdir() if not path.name.startswith(".")]
    return sorted(path for path in entries if path.is_dir() and not path.is_symlink())


def version_folders(named: Path) -> list[Path]:
    """Return the published versions of one name, by id: query set versions or releases."""
    return [folder for folder in published_folders(named) if folder.name != REFUSED]


def corpus_names(root: str) -> list[str]:
    """Return the names of the corpora of a store."""
    return [folder.name for folder in published_folders(store_folder(root) / "corpora")]


def refused_batches(ref: CorpusRef) -> list[Path]:
    """Return the folders of the batches of a corpus that the gate refused, by id."""
    return published_folders(store_folder(ref.root) / "corpora" / ref.corpus / REFUSED)


def batch_folders(parent: Path) -> list[tuple[int, str, Path]]:
    """Return ``(sequence, batch_id, folder)`` of each batch, in the order of commits."""
    found = [(BATCH_FOLDER.fullmatch(path.name), path) for path in published_folders(parent)]
    return sorted(
        (int(match["sequence"]), match["batch_id"], path) for match, path in found if match
    )


def _create_store(folder: Path, marker: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise_explained(error, folder)
    remove_partials(folder)
    with folder_guard(folder):
        if not marker.is_file():
            write_json(marker, {"format": STORE_FORMAT, "version": FORMAT_VERSION})


def _corpora(folder: Path) -> Iterator[Artifact]:
    for corpus in published_folders(folder / "corpora"):
        for _, batch_id, batch in batch_folders(corpus / "batches"):
            yield _artifact("batch", corpus.name, batch_id, batch / BATCH_FILE, BATCH_FORMAT)
        for _, record_id, record in batch_folders(corpus / "tombstones"):
            path = record / TOMBSTONE_FILE
            yield _artifact("tombstone", corpus.name, record_id, path, TOMBSTONE_FORMAT)


def _indexes(folder: Path) -> Iterator[Artifact]:
    for name, index in index_names(str(folder), published_folders(folder / "indexes")):
        header = _artifact("index", name, "", index / INDEX_FILE, INDEX_FORMAT)
        state = Artifact("index", name, "", None, {"n_rows": None})
        if (index / ROWS_FILE).exists():
            state = _artifact("index", name, "", index / ROWS_FILE, ROWS_FORMAT)
        index_id = str(header.detail.get("index_id", ""))
        detail = {**header.detail, **state.detail}
        yield Artifact("index", name, index_id, state.created, detail)


def _scores(folder: Path) -> Iterator[Artifact]:
    for scores in published_folders(folder / "scores"):
        yield _artifact("scores", scores.name, scores.name, scores / SCORES_FILE, SCORES_FORMAT)


def _versions(parent: Path, kind: str, file_name: str, manifest: str) -> Iterator[Artifact]:
    for named in published_folders(parent):
        found = [
            _artifact(kind, named.name, version.name, version / file_name, manifest)
            for version in version_folders(named)
        ]
        yield from sorted(found, key=lambda artifact: (artifact.created or "", artifact.id))


def _artifact(kind: str, name: str, artifact_id: str, path: Path, manifest: str) -> Artifact:
    try:
        detail = read_manifest(path, manifest)
    except StorageError as error:
        return Artifact(kind, name, artifact_id, None, {"problem": str(error)})
    return Artifact(kind, name, artifact_id, created_at(path), detail)
