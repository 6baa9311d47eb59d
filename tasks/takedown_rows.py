"""Which rows of a corpus a takedown is about: by id with all of equal content, or by source."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.corpus import Corpus
from storage.errors import NotFoundError
from storage.tombstones import TOMBSTONE_SCHEMA, is_source

SHOWN_IDS = 5
"""Missing ids that the message shows."""


@dataclass(frozen=True)
class FoundRows:
    """What a takedown is about.

    Attributes:
        rows: TOMBSTONE_SCHEMA; unknown ids without content and place.
        same_content: Ids among them that were not named, but have the content of one that was.
        unknown: Ids that the corpus does not have.
    """

    rows: pa.Table
    same_content: pa.Array
    unknown: tuple[str, ...]


def find_rows(
    corpus: Corpus, row_ids: Sequence[str], sources: Sequence[str], *, missing_ok: bool
) -> FoundRows:
    """Return the rows that are named by id or by source, and those of the same content as an id's.

    Args:
        corpus: The corpus.
        row_ids: Rows by id.
        sources: Names or patterns, where ``*`` matches ``/`` as well.
        missing_ok: Whether ids and sources may be missing.

    Raises:
        NotFoundError: An id or a source is missing and may not be.
    """
    named = pa.array(row_ids, pa.string())
    by_source = _matching(corpus, "source", _sources_like(corpus, sources, missing_ok=missing_ok))
    by_id = _matching(corpus, "row_id", named)
    there = set(by_id.column("row_id").to_pylist())
    unknown = tuple(row_id for row_id in dict.fromkeys(row_ids) if row_id not in there)
    if unknown and not missing_ok:
        raise NotFoundError(
            f"corpus {corpus.ref.corpus!r} has no row {', '.join(map(repr, unknown[:SHOWN_IDS]))} "
            f"({len(unknown)} of {len(set(row_ids))} ids are missing), so nothing was taken down. "
            "Correct the ids, or bar them from coming in with --missing-ok."
        )
    same = _matching(corpus, "content_hash", by_id.column("content_hash").combine_chunks())
    absent = [dict.fromkeys(TOMBSTONE_SCHEMA.names) | {"row_id": row_id} for row_id in unknown]
    rows = pa.concat_tables(
        [by_id, same, by_source, pa.Table.from_pylist(absent, schema=TOMBSTONE_SCHEMA)]
    )
    same_ids = same.column("row_id")
    unnamed = same_ids.filter(pc.invert(pc.is_in(same_ids, named)))
    return FoundRows(_without_repeats(rows), unnamed.combine_chunks(), unknown)


def _sources_like(corpus: Corpus, globs: Sequence[str], *, missing_ok: bool) -> pa.Array:
    if not globs:
        return pa.array([], pa.string())
    names: set[str] = set()
    for table in corpus.iter_tables(columns=["source"]):
        names.update(pc.unique(table.column("source")).to_pylist())
    matched = {glob: [name for name in names if is_source(name, glob)] for glob in globs}
    missing = [glob for glob, found in matched.items() if not found]
    if missing and not missing_ok:
        raise NotFoundError(
            f"corpus {corpus.ref.corpus!r} has nothing from {missing[0]!r}, so nothing was taken "
            "down. Give sources as `rise lineage` and the rows name them, or bar this one from "
            "coming in with --missing-ok."
        )
    return pa.array(sorted({name for found in matched.values() for name in found}), pa.string())


def _matching(corpus: Corpus, column: str, values: pa.Array) -> pa.Table:
    """Return the rows with one of these values, as TOMBSTONE_SCHEMA."""
    return pa.concat_tables([TOMBSTONE_SCHEMA.empty_table(), *_matches(corpus, column, values)])


def _matches(corpus: Corpus, column: str, values: pa.Array) -> Iterator[pa.Table]:
    if not len(values):
        return
    columns = list(dict.fromkeys(["row_id", "content_hash", column]))
    for batch in Corpus.batches(corpus.ref):
        start = 0
        for table in corpus.iter_tables(batches=[batch.batch_id], columns=columns):
            here = pc.indices_nonzero(pc.is_in(table.column(column), values)).to_numpy()
            if len(here):
                part = table.take(here)
                found = {
                    "row_id": part.column("row_id"),
                    "content_hash": part.column("content_hash"),
                    "batch_id": [batch.batch_id] * len(here),
                    "position_in_batch": start + here.astype(np.int64),
                }
                yield pa.table(found).cast(TOMBSTONE_SCHEMA)
            start += table.num_rows


def _without_repeats(rows: pa.Table) -> pa.Table:
    lines = {(line["row_id"], line["batch_id"]): line for line in rows.to_pylist()}
    return pa.Table.from_pylist(list(lines.values()), schema=TOMBSTONE_SCHEMA)
