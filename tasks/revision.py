"""What is told of every step while a source comes in: the corpus's view of records, and changes.

A plain ingestion compares records with the corpus and refuses other content under an id that is
there. A file of an inbox may be a new version of itself (`tasks.inbox_file`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from storage.corpus import Corpus
from storage.refs import CorpusRef
from tasks.candidates import Claimed, KnownRows, Standing
from tasks.living_ledger import LivingLedger, LivingRow


class Revision(Protocol):
    """A source on its way in, told of every step under the corpus's lease."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What joins the identity of the batch."""

    def begin(self) -> KnownRows:
        """Return the rows that are there, as this file sees them."""

    def keep(self, rows: pa.Table) -> None:
        """Note rows that passed the gate (ROW_SCHEMA)."""

    def require_same_bytes(self) -> None:
        """Raise unless the file is still what it was when it was identified."""

    def accept(self, batch_id: str | None) -> None:
        """Give tombstones to what the file changes and drops; the batch is committed next."""


class CorpusRows:
    """The rows of a corpus by id, for telling which records are new; none for a new corpus."""

    def __init__(self, ref: CorpusRef) -> None:
        """Read the ids of the rows that have no tombstone."""
        self._corpus = Corpus(ref) if Corpus.batches(ref) else None
        self._living = LivingLedger(ref)

    def standings(self, claimed: Sequence[Claimed]) -> list[Standing]:
        """Return how each record stands to the rows; other content under an id is a conflict."""
        there = self._living.find([one.row_id for one in claimed])
        return [_standing(one, row) for one, row in zip(claimed, there, strict=True)]

    def locations(self, row_ids: Sequence[str]) -> dict[str, str]:
        """Return ``path:line`` of rows that are there."""
        if self._corpus is None:
            return {}
        rows = self._corpus.rows_by_id(row_ids)
        return {row_id: f"{row.source}:{row.source_line}" for row_id, row in rows.items()}


def _standing(claimed: Claimed, row: LivingRow | None) -> Standing:
    if row is None:
        return "new"
    return "known" if row.content_hash == claimed.content_hash else "conflict"


class Unrevised:
    """A source that changes nothing that is there."""

    identity: Mapping[str, Any] = {}

    def __init__(self, ref: CorpusRef) -> None:
        self._ref = ref

    def begin(self) -> KnownRows:
        """Return the rows of the corpus."""
        return CorpusRows(self._ref)

    def keep(self, rows: pa.Table) -> None:
        """Nothing is noted."""

    def require_same_bytes(self) -> None:
        """Nothing is checked."""

    def accept(self, batch_id: str | None) -> None:
        """Nothing dies."""
