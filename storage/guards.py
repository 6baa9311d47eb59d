"""What of a store is written by one at a time, and where the lease of each lies.

A run that takes several takes them in this order, so that no two wait for each other: inbox,
corpus, index, scores, release.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from storage.index_names import index_place
from storage.layout import (
    LEASE_FILE,
    corpus_folder,
    inbox_folder,
    releases_folder,
    scores_folder,
)
from storage.lease import Lease, held, hold, holder_of
from storage.lease_backend import leases_below
from storage.lease_holder import Holder
from storage.refs import CorpusRef, IndexRef, ScoresRef
from storage.roots import store_folder


@dataclass(frozen=True)
class Guard:
    """One thing that has one writer at a time.

    Attributes:
        path: Of its lease.
        what: What it is, for people.
    """

    path: Path
    what: str

    def hold(self) -> AbstractContextManager[Lease]:
        """Return a context manager that keeps other writers out; see `storage.lease.hold`."""
        return hold(self.path, what=self.what)

    def held(self) -> Lease:
        """Return the lease that this process holds; ValueError when it holds none."""
        return held(self.path, what=self.what)

    def holder(self) -> Holder | None:
        """Return who writes now, or was killed while writing; None for nobody."""
        return holder_of(self.path)


def inbox_guard(ref: CorpusRef) -> Guard:
    """Return what keeps others from taking files of a corpus's inbox."""
    return Guard(inbox_folder(ref) / LEASE_FILE, f"inbox of {ref.corpus!r}")


def corpus_guard(ref: CorpusRef) -> Guard:
    """Return what keeps others from adding batches and tombstones to a corpus."""
    return Guard(corpus_folder(ref) / LEASE_FILE, f"corpus {ref.corpus!r}")


def index_guard(ref: IndexRef) -> Guard:
    """Return what keeps others from building an index; it can be held before the index is there."""
    return Guard(_beside(index_place(ref)), f"index {ref.index!r}")


def scores_guard(ref: ScoresRef) -> Guard:
    """Return what keeps others from making the same scores."""
    return Guard(_beside(scores_folder(ref)), f"scores {ref.scores_id}")


def release_guard(root: str, name: str) -> Guard:
    """Return what keeps others from making releases of a name."""
    return Guard(releases_folder(root, name) / LEASE_FILE, f"release {name!r}")


def lease_paths(root: str) -> list[Path]:
    """Return the leases that there are in a store, in the order of `Guard`."""
    patterns = (
        f"corpora/*/inbox/{LEASE_FILE}",
        f"corpora/*/{LEASE_FILE}",
        f"indexes/.*{LEASE_FILE}",
        f"scores/.*{LEASE_FILE}",
        f"releases/*/{LEASE_FILE}",
    )
    return leases_below(store_folder(root), patterns)


def _beside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}{LEASE_FILE}")
