"""References to stored artifacts: what flows pass to tasks instead of arrays.

A reference is a few strings, cheap to pickle and to send to another machine; whoever needs the
bytes opens the reference. ``root`` is the folder of the store.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class CorpusRef:
    """A corpus: every committed batch of canonical rows under one name."""

    root: str
    corpus: str


@dataclass(frozen=True)
class BatchRef:
    """One committed batch of a corpus."""

    root: str
    corpus: str
    batch_id: str


@dataclass(frozen=True)
class IndexRef:
    """One signature index."""

    root: str
    index: str


@dataclass(frozen=True)
class QuerySetRef:
    """One version of a named query set."""

    root: str
    name: str
    version: str


@dataclass(frozen=True)
class ScoresRef:
    """The scores of one query set version over one state of an index."""

    root: str
    scores_id: str


@dataclass(frozen=True)
class ReleaseRef:
    """One published, immutable release."""

    root: str
    name: str
    release_id: str
