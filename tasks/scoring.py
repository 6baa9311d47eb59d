"""Scores: how strongly every row of an index answers to a query set.

`score` stores values and top rows under an id made of everything that decides them, so asking
again is answered from the store. `attribute` answers a few ad-hoc queries and stores nothing.
Both check that they can answer before any block is read.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rise_ops.scoring import split_keys
from storage.corpus import Corpus, Row
from storage.errors import CorruptionError, MismatchError, flat_differences
from storage.files import short_id
from storage.layout import scores_folder
from storage.queries import QuerySet
from storage.refs import CorpusRef, IndexRef, QuerySetRef, ScoresRef
from storage.scores import Scores, ScoresWriter
from storage.signatures import SignatureIndex
from tasks.config import RuntimeConfig, ScoreConfig
from tasks.progress import NO_PROGRESS, Progress
from tasks.scoring_graph import Search, predicted_bytes
from tasks.selection import row_id_ranks
from tasks.shortlist import check_shortlist, find_rows

SCORES_VERSION = 1
"""Part of every scores id; raised when the same inputs would give other scores."""


@dataclass(frozen=True)
class ScoreReport:
    """What scoring did.

    Attributes:
        ref: The stored scores.
        path: Their folder.
        n_rows: Rows scored, empty ones included.
        n_empty: Rows without positions: value 0, in no top rows, never selected.
        n_queries: Queries.
        predicted_bytes: Memory for the blocks in flight, known before any is read.
        seconds: Wall time of this call.
        already: The scores were in the store; nothing was computed.
    """

    ref: ScoresRef
    path: str
    n_rows: int
    n_empty: int
    n_queries: int
    predicted_bytes: int
    seconds: float
    already: bool


@dataclass(frozen=True)
class Hit:
    """A row that a query is attributed to; rank 1 is the strongest proponent."""

    row_id: str
    score: float
    rank: int
    text: str
    source: str
    source_line: int

    @classmethod
    def of(cls, row: Row, *, rank: int, score: float) -> "Hit":
        """Return a corpus row as a hit."""
        return cls(
            row_id=row.row_id,
            score=score,
            rank=rank,
            text=row.text,
            source=row.source,
            source_line=row.source_line,
        )


def score(
    index: IndexRef,
    queries: QuerySetRef,
    config: ScoreConfig,
    runtime: RuntimeConfig,
    *,
    progress: Progress = NO_PROGRESS,
) -> ScoreReport:
    """Score every committed row of an index against a query set and store the result.

    Args:
        index: The rows' signatures.
        queries: The queries' signatures, made in the same space.
        config: What to keep; part of the scores' identity.
        runtime: Scheduler and workers; changes no number.
        progress: Receives one step a block.

    Raises:
        MismatchError: Queries and rows were sketched in different spaces; lists the fields.
        ValueError: ``top_k`` exceeds the rows that have positions; gives both numbers. Or there
            are no floats for a shortlist.
        IncompleteError: The index was never finished.
        CorruptionError: A block is missing or damaged; names it.
    """
    started = time.monotonic()
    opened = SignatureIndex.open(index)
    query_set = QuerySet.open(queries)
    _check_same_space(opened, query_set)
    n_empty = _check_top_k(opened, config.top_k)
    if config.shortlist is not None:
        check_shortlist(opened, config.shortlist)
    identity = _identity(opened, queries, config)
    ref = ScoresRef(index.root, short_id(identity))
    already = Scores.exists(index.root, ref.scores_id)
    if not already:
        with ScoresWriter(ref) as writer:
            tables = _score_tables(opened, query_set, config, runtime, progress, writer)
            manifest = _manifest(opened, queries, identity, n_empty=n_empty)
            writer.commit(**tables, manifest=manifest)
    n_queries = int(query_set.manifest["n_queries"])
    return ScoreReport(
        ref=ref,
        path=str(scores_folder(ref)),
        n_rows=opened.n_rows,
        n_empty=n_empty,
        n_queries=n_queries,
        predicted_bytes=predicted_bytes(opened, n_queries, runtime, shortlist=config.shortlist),
        seconds=time.monotonic() - started,
        already=already,
    )


def attribute(
    index: IndexRef,
    signatures: NDArray[np.float32],
    *,
    top_k: int,
    runtime: RuntimeConfig,
    shortlist: int | None = None,
    progress: Progress = NO_PROGRESS,
) -> list[list[Hit]]:
    """Return the strongest proponents of each query, best first.

    Args:
        index: The rows' signatures.
        signatures: float32 [n_queries, n_numbers], made with this index.
        top_k: Rows a query.
        runtime: Scheduler and workers.
        shortlist: Rows a query that codes choose and float rows decide on, at least ``top_k``;
            None: rows as they are coded decide.
        progress: Receives one step a block.

    Raises:
        ValueError: ``top_k`` exceeds the rows that have positions or the shortlist, or the
            signatures have another length than the index's; gives both numbers.
        IncompleteError: The index was never finished.
        CorruptionError: A block is missing or damaged; names it.
    """
    opened = SignatureIndex.open(index)
    _check_top_k(opened, top_k)
    if shortlist is not None and shortlist < top_k:
        raise ValueError(f"shortlist is {shortlist} but top_k {top_k}; raise shortlist.")
    row_ids = _row_ids(opened)
    ranks = row_id_ranks(row_ids)
    plan = Search(_anywhere(index), top_k, shortlist=shortlist)
    found = find_rows(plan, signatures, ranks, runtime, progress)
    names = [str(number) for number in range(len(signatures))]
    return _hits(opened, _top_rows(found.keys, ranks, row_ids, names), names)


# ------------------------------------------------------------------------------------ checks


def _check_same_space(index: SignatureIndex, query_set: QuerySet) -> None:
    differences = flat_differences(index.identity["space"], query_set.manifest["space"])
    if differences:
        raise MismatchError(
            f"query set {query_set.ref.name!r} and index {index.ref.index!r} were made in "
            "different spaces, so their inner products mean nothing",
            differences,
            "Make the query set again with this index.",
        )


def _check_top_k(index: SignatureIndex, top_k: int) -> int:
    """Return the number of empty rows, if ``top_k`` of the others can be found."""
    n_empty = int(np.count_nonzero(index.n_positions() == 0))
    n_eligible = index.n_rows - n_empty
    if not 1 <= top_k <= n_eligible:
        raise ValueError(
            f"top_k is {top_k} but index {index.ref.index!r} has {n_eligible} rows with "
            f"positions ({index.n_rows} in all); choose top_k between 1 and {n_eligible}."
        )
    return n_empty


def _row_ids(index: SignatureIndex) -> pa.ChunkedArray:
    row_ids = _corpus(index).row_ids(index.batches).column("row_id")
    if len(row_ids) != index.n_rows:
        raise CorruptionError(
            f"index {index.ref.index!r} covers {index.n_rows} rows, but its batches "
            f"{index.batches} hold {len(row_ids)}. Run `rise verify`, then build the index again."
        )
    return row_ids


def _corpus(index: SignatureIndex) -> Corpus:
    return Corpus(CorpusRef(index.ref.root, index.identity["corpus"]))


def _anywhere(index: IndexRef) -> IndexRef:
    """Return the reference with an absolute root: workers may run in another folder."""
    return IndexRef(str(Path(index.root).resolve()), index.index)


# ---------------------------------------------------------------------------------- identity


def _identity(index: SignatureIndex, queries: QuerySetRef, config: ScoreConfig) -> dict[str, Any]:
    return {
        "version": SCORES_VERSION,
        # by name as well: equal settings give equal ids, but lineage must lead to the one asked for
        "index": index.ref.index,
        "index_id": index.index_id,
        "batches": index.batches,
        "query_set": queries.name,
        "query_set_version": queries.version,
        # settings that are not used are left out: scores from before there were any keep their id
        "config": config.model_dump(mode="json", exclude_none=True),
    }


def _manifest(
    index: SignatureIndex,
    queries: QuerySetRef,
    identity: Mapping[str, Any],
    *,
    n_empty: int,
) -> dict[str, Any]:
    return {
        "identity": dict(identity),
        "index": index.ref.index,
        "index_id": index.index_id,
        "corpus": index.identity["corpus"],
        "batches": index.batches,
        "query_set": queries.name,
        "query_set_version": queries.version,
        "n_rows": index.n_rows,
        "n_empty": n_empty,
    }


# ------------------------------------------------------------------------------------ tables


def _score_tables(
    index: SignatureIndex,
    query_set: QuerySet,
    config: ScoreConfig,
    runtime: RuntimeConfig,
    progress: Progress,
    writer: ScoresWriter,
) -> dict[str, pa.Table]:
    """Search the index; return the tables ``values`` and ``top_rows``, write the matrix."""
    signatures = query_set.signatures()
    matrix = None
    if config.full_matrix:
        matrix = writer.start_matrix(
            n_rows=index.n_rows, n_queries=len(signatures), block_rows=index.block_rows
        )
    row_ids = _row_ids(index)
    ranks = row_id_ranks(row_ids)
    plan = Search(_anywhere(index.ref), config.top_k, matrix, config.shortlist)
    found = find_rows(plan, signatures, ranks, runtime, progress)
    values = {"row_id": row_ids, "value": found.values, "n_positions": found.n_positions}
    query_ids = query_set.queries().column("row_id").to_pylist()
    return {
        "values": pa.table(values),
        "top_rows": _top_rows(found.keys, ranks, row_ids, query_ids),
    }


def _top_rows(
    keys: NDArray[np.uint64],
    ranks: NDArray[np.uint32],
    row_ids: pa.ChunkedArray,
    query_ids: Sequence[str],
) -> pa.Table:
    """Return one line a query and rank: query_id, rank (from 1), row_id, score."""
    row_id_places, scores = split_keys(keys)
    n_queries, top_k = keys.shape
    position_at = np.empty(len(ranks), np.int64)
    position_at[ranks] = np.arange(len(ranks))
    query_of = np.repeat(np.arange(n_queries), top_k)
    return pa.table(
        {
            "query_id": pa.array(query_ids, pa.string()).take(query_of),
            "rank": np.tile(np.arange(1, top_k + 1, dtype=np.int32), n_queries),
            "row_id": row_ids.take(position_at[row_id_places.ravel()]),
            "score": scores.ravel(),
        }
    )


def _hits(index: SignatureIndex, top_rows: pa.Table, names: Sequence[str]) -> list[list[Hit]]:
    rows = _corpus(index).rows_by_id(top_rows.column("row_id").unique().to_pylist())
    hits: dict[str, list[Hit]] = {name: [] for name in names}
    for line in top_rows.to_pylist():
        hit = Hit.of(rows[line["row_id"]], rank=line["rank"], score=line["score"])
        hits[line["query_id"]].append(hit)
    return list(hits.values())
