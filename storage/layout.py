"""Where each artifact lives under the root of a store; the tree is drawn in FORMAT.md."""

import os
import re
from pathlib import Path

from storage.errors import StorageError
from storage.mirror_keys import LOCAL_SUFFIXES
from storage.refs import BatchRef, CorpusRef, IndexRef, QuerySetRef, ReleaseRef, ScoresRef
from storage.roots import store_folder

STORE_FILE, STORE_FORMAT = "rise-store.json", "rise-store"
BATCH_FILE, BATCH_FORMAT = "batch.json", "rise-batch"
REFUSED_FILE, REFUSED_FORMAT = "refused.json", "rise-refused-batch"
TOMBSTONE_FILE, TOMBSTONE_FORMAT = "tombstone.json", "rise-tombstone"
INDEX_FILE, INDEX_FORMAT = "index.json", "rise-index"
ROWS_FILE, ROWS_FORMAT = "rows.json", "rise-rows"
BLOCK_FORMAT = "rise-block"
QUERY_SET_FILE, QUERY_SET_FORMAT = "query_set.json", "rise-query-set"
SCORES_FILE, SCORES_FORMAT = "scores.json", "rise-scores"
RELEASE_FILE, RELEASE_FORMAT = "manifest.json", "rise-release"
INBOX_FILE_FORMAT = "rise-inbox-file"
INBOX_NOTE_FORMAT = "rise-inbox-note"

LATEST = "latest"
REFUSED = "refused"
MOVES_FILE = "moves.jsonl"
ANNOUNCED_FILE = "announced.json"
LOCK_FILE = ".lock"
LEASE_FILE = ".lease.json"
MODEL_FILE, MODEL_FORMAT = "model.json", "rise-index-model"
STATISTICS_FOLDER, STATISTICS_FORMAT = "statistics", "rise-block-statistics"
QUALITY_FILE, QUALITY_FORMAT = "quality.json", "rise-index-quality"
QUALITY_FOLDER = "quality"

BATCH_FOLDER = re.compile(r"(?P<sequence>[0-9]{4,})-(?P<batch_id>.+)")
"""``0001-<batch_id>``: the place of a batch in the order of commits, and its id."""

NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def check_name(name: str, *, what: str) -> str:
    """Return ``name`` if it can be a folder's name inside the store.

    Raises:
        ValueError: It could leave the store's folder, or differ only by case on some disks.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise ValueError(
            f"{what} {name!r} is not a valid name: expected 1 to 64 of a-z, 0-9, '.', '_', '-', "
            "beginning with a letter or digit. Choose another name."
        )
    if name.endswith(LOCAL_SUFFIXES):
        raise ValueError(
            f"{what} {name!r} ends like an unfinished file or a lock, which are cleared away: "
            f"{', '.join(LOCAL_SUFFIXES)}. Choose another name."
        )
    return name


def without_links(folder: Path, *names: str) -> Path:
    """Return ``folder / names[0] / ...``, if none of the steps is a symbolic link.

    The root of a store may be reached through links; inside it only ``latest`` is one, and nothing
    is written through that. What is written in the store therefore stays in the store.

    Raises:
        StorageError: A step is a link, which could lead out of the store.
    """
    path = folder
    for name in names:
        path = path / name
        if path.is_symlink():
            raise StorageError(
                f"{path} is a symbolic link to {path.readlink()}, and a store has none but "
                "'latest', so that nothing is written outside it. Put a folder in its place, or "
                "move the store as a whole."
            )
    return path


def refuse_linked_folders(folder: Path) -> None:
    """Raise `StorageError` if a folder anywhere below ``folder`` is a symbolic link."""
    for parent, names, _ in os.walk(folder):
        for name in names:
            without_links(Path(parent), name)


def corpus_folder(ref: CorpusRef) -> Path:
    """Return ``corpora/<corpus>``."""
    return without_links(store_folder(ref.root), "corpora", check_name(ref.corpus, what="corpus"))


def batches_folder(ref: CorpusRef) -> Path:
    """Return ``corpora/<corpus>/batches``."""
    return without_links(corpus_folder(ref), "batches")


def tombstones_folder(ref: CorpusRef) -> Path:
    """Return ``corpora/<corpus>/tombstones``."""
    return without_links(corpus_folder(ref), "tombstones")


def inbox_folder(ref: CorpusRef) -> Path:
    """Return ``corpora/<corpus>/inbox``."""
    return without_links(corpus_folder(ref), "inbox")


def refused_folder(ref: BatchRef) -> Path:
    """Return ``corpora/<corpus>/refused/<batch_id>``."""
    corpus = corpus_folder(CorpusRef(ref.root, ref.corpus))
    return without_links(corpus, "refused", check_name(ref.batch_id, what="batch id"))


def index_folder(ref: IndexRef) -> Path:
    """Return ``indexes/<index>``."""
    return without_links(store_folder(ref.root), "indexes", check_name(ref.index, what="index"))


def query_sets_folder(root: str, name: str) -> Path:
    """Return ``queries/<name>``, which holds every version of the set."""
    return without_links(store_folder(root), "queries", check_name(name, what="query set"))


def query_set_folder(ref: QuerySetRef) -> Path:
    """Return ``queries/<name>/<version>``."""
    named = query_sets_folder(ref.root, ref.name)
    return without_links(named, _version_name(ref.version, what="version"))


def refused_scores_folder(ref: ScoresRef) -> Path:
    """Return ``refused/scores/<scores_id>``."""
    scores_id = check_name(ref.scores_id, what="scores id")
    return without_links(store_folder(ref.root), "refused", "scores", scores_id)


def scores_folder(ref: ScoresRef) -> Path:
    """Return ``scores/<scores_id>``."""
    return without_links(
        store_folder(ref.root), "scores", check_name(ref.scores_id, what="scores id")
    )


def releases_folder(root: str, name: str) -> Path:
    """Return ``releases/<name>``, which holds every release of that name."""
    return without_links(store_folder(root), "releases", check_name(name, what="release"))


def release_folder(ref: ReleaseRef) -> Path:
    """Return ``releases/<name>/<release_id>``."""
    named = releases_folder(ref.root, ref.name)
    return without_links(named, _version_name(ref.release_id, what="release id"))


def refused_release_folder(ref: ReleaseRef) -> Path:
    """Return ``releases/<name>/refused/<release_id>``."""
    named = releases_folder(ref.root, ref.name)
    return without_links(named, REFUSED, _version_name(ref.release_id, what="release id"))


def _version_name(name: str, *, what: str) -> str:
    if name == LATEST:
        raise ValueError(
            f"{what} {name!r} is the name of the link to the newest one; choose another."
        )
    if name == REFUSED:
        raise ValueError(
            f"{what} {name!r} is the name of the folder of what was refused; choose another."
        )
    return check_name(name, what=what)
