"""Scores: how strongly every row of an index answers to a query set.

`score` stores values and top rows under an id made of everything that decides them, so asking
again is answered from the store. `attribute` answers a few ad-hoc queries and stores nothing.
Both check that they can answer before any block is read.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from storage.corpus import Corpus, Row
from storage.errors import CorruptionError, MismatchError, flat_differences
from storage.files import short_id
from storage.index_names import exact_ref
from storage.layout import QUALITY_FOLDER, scores_folder
from storage.queries import QuerySet
from storage.refs import CorpusRef, IndexRef, QuerySetRef, ScoresRef
from storage.roots import absolute_root, shown
from storage.scores import NULL_SCHEMA, Scores, ScoresWriter
from storage.signatures import SignatureIndex
from tasks.config import RuntimeConfig, ScoreConfig
from tasks.null_rows import CALIBRATED
from tasks.progress import NO_PROGRESS, Progress
from tasks.quality_config import SHIPPED, QualityConfig
from tasks.quality_gate import recorded_warnings
from tasks.score_tables import calibrated_rows, count_able, random_scores, ranked_rows
from tasks.scores_gate import judge_scores, refusal
from tasks.scoring_graph import Search, predicted_bytes
from tasks.selection_problem import row_id_ranks
from tasks.shortlist import check_shortlist, find_rows
from tasks.takedown import LivingRows, living_rows

SCORES_VERSION = 2
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
        warnings: What the quality gate found odd, but refused nothing for.
        data_docs: First page of the quality report; empty when it is not there.
    """

    ref: ScoresRef
    path: str
    n_rows: int
    n_empty: int
    n_queries: int
    predicted_bytes: int
    seconds: float
    already: bool
    warnings: tuple[str, ...] = ()
    data_docs: str = ""


@dataclass(frozen=True)
class Hit:
    """A row that a query is attributed to; rank 1 is the strongest proponent.

    Percentile, z and false discovery place the score among those of random rows (METHOD.md, "What a
    score means"); None in scores from before there were any.
    """

    row_id: str
    score: float
    rank: int
    text: str
    source: str
    source_line: int
    percentile: float | None = None
    z: float | None = None
    false_discovery: float | None = None

    @classmethod
    def of(cls, row: Row, line: Mapping[str, Any]) -> "Hit":
        """Return a corpus row as a hit, given its line of the top rows (TOP_ROWS_SCHEMA)."""
        return cls(
            row_id=row.row_id,
            score=line["score"],
            rank=line["rank"],
            text=row.text,
            source=row.source,
            source_line=row.source_line,
            **{name: line[name] for name in CALIBRATED},
        )


def score(
    index: IndexRef,
    queries: QuerySetRef,
    config: ScoreConfig,
    runtime: RuntimeConfig,
    *,
    quality: QualityConfig = SHIPPED,
    progress: Progress = NO_PROGRESS,
) -> ScoreReport:
    """Score every committed row of an index against a query set and store the result.

    Args:
        index: The rows' signatures.
        queries: The queries' signatures, made in the same space.
        config: What to keep; part of the scores' identity.
        runtime: Scheduler and workers; changes no number.
        quality: Where the suite of the gate is.
        progress: Receives one step a block.

    Raises:
        BusyError: Another process is making these scores.
        ScoresRefused: The scores failed the gate; nothing was published.
        SuiteError: The suite cannot be used.
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
    living = living_rows(_corpus_ref(opened), opened.batches)
    n_empty = _check_top_k(opened, config.top_k, living.mask)
    if config.shortlist is not None:
        check_shortlist(opened, config.shortlist)
    identity = _identity(opened, queries, config, living)
    ref = ScoresRef(index.root, short_id(identity))
    already = Scores.exists(index.root, ref.scores_id)
    if not already:
        with ScoresWriter(ref) as writer:
            # whoever wrote while this one waited has made these very scores
            already = Scores.exists(index.root, ref.scores_id)
            if not already:
                target = _Target(opened, living.mask)
                tables = _score_tables(target, query_set, config, runtime, progress, writer)
                gate = judge_scores(
                    tables,
                    index=index.index,
                    queries=queries,
                    scores_id=ref.scores_id,
                    docs=writer.staging / QUALITY_FOLDER,
                    quality=quality,
                )
                if not gate.success:
                    raise refusal(ref, gate, writer.refuse())
                manifest = _manifest(opened, queries, identity, n_empty=n_empty)
                writer.commit(**tables, manifest=manifest)
    docs = scores_folder(ref) / QUALITY_FOLDER
    n_queries = int(query_set.manifest["n_queries"])
    return ScoreReport(
        ref=ref,
        path=shown(scores_folder(ref)),
        n_rows=opened.n_rows,
        n_empty=n_empty,
        n_queries=n_queries,
        predicted_bytes=predicted_bytes(opened, n_queries, runtime, shortlist=config.shortlist),
        seconds=time.monotonic() - started,
        already=already,
        warnings=recorded_warnings(docs),
        data_docs=str(docs / "index.html") if docs.is_dir() else "",
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
    living = living_rows(_corpus_ref(opened), opened.batches).mask
    _check_top_k(opened, top_k, living)
    if shortlist is not None and shortlist < top_k:
        raise ValueError(f"shortlist is {shortlist} but top_k {top_k}; raise shortlist.")
    row_ids = _row_ids(opened)
    ranks = row_id_ranks(row_ids)
    plan = Search(_anywhere(opened), top_k, shortlist=shortlist)
    found = find_rows(plan, signatures, ranks, runtime, progress, living)
    names = [str(number) for number in range(len(signatures))]
    nulls, _ = random_scores(opened, signatures, living, floats=shortlist is not None)
    top_rows = ranked_rows(found.keys, ranks, row_ids, names)
    return _hits(opened, calibrated_rows(top_rows, nulls, n_rows=count_able(found, living)), names)


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


def _check_top_k(index: SignatureIndex, top_k: int, living: NDArray[np.bool_] | None) -> int:
    """Return the number of empty rows, if ``top_k`` of the others can be found."""
    empty = index.n_positions() == 0
    n_dead = 0 if living is None else int(np.count_nonzero(~living & ~empty))
    n_empty = int(np.count_nonzero(empty))
    n_eligible = index.n_rows - n_empty - n_dead
    if not 1 <= top_k <= n_eligible:
        gone = f", {n_dead} of them taken down" if n_dead else ""
        raise ValueError(
            f"top_k is {top_k} but index {index.ref.index!r} has {n_eligible} rows with "
            f"positions ({index.n_rows} in all{gone}); choose top_k between 1 and {n_eligible}."
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
    return Corpus(_corpus_ref(index))


def _corpus_ref(index: SignatureIndex) -> CorpusRef:
    return CorpusRef(index.ref.root, index.identity["corpus"])


def _anywhere(index: SignatureIndex) -> IndexRef:
    """Return a reference for workers, who may run in another folder, and later.

    It means this very index, although its name may be switched to another one meanwhile.
    """
    return exact_ref(absolute_root(index.ref.root), index.folder)


# ---------------------------------------------------------------------------------- identity


def _identity(
    index: SignatureIndex, queries: QuerySetRef, config: ScoreConfig, living: LivingRows
) -> dict[str, Any]:
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
        **({} if living.digest is None else {"tombstones": living.digest}),
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


@dataclass(frozen=True)
class _Target:
    """An index and which of its rows may be among the best; None: all that have positions."""

    index: SignatureIndex
    living: NDArray[np.bool_] | None


def _score_tables(
    target: _Target,
    query_set: QuerySet,
    config: ScoreConfig,
    runtime: RuntimeConfig,
    progress: Progress,
    writer: ScoresWriter,
) -> dict[str, pa.Table]:
    """Search the index; return values, top and bottom rows as tables, write the matrix."""
    index = target.index
    signatures = query_set.signatures()
    matrix = None
    if config.full_matrix:
        matrix = writer.start_matrix(
            n_rows=index.n_rows, n_queries=len(signatures), block_rows=index.block_rows
        )
    row_ids = _row_ids(index)
    ranks = row_id_ranks(row_ids)
    plan = Search(
        _anywhere(index), config.top_k, matrix, opponents=True, shortlist=config.shortlist
    )
    found = find_rows(plan, signatures, ranks, runtime, progress, target.living)
    values = {"row_id": row_ids, "value": found.values, "n_positions": found.n_positions}
    query_ids = query_set.queries().column("row_id").to_pylist()
    proponents, opponents = np.split(found.keys, 2)
    bottom_rows = ranked_rows(opponents, ranks, row_ids, query_ids)
    negated = bottom_rows.column("score").to_numpy()
    nulls, positions = random_scores(
        index, signatures, target.living, floats=config.shortlist is not None
    )
    top_rows = ranked_rows(proponents, ranks, row_ids, query_ids)
    return {
        "values": pa.table(values),
        "top_rows": calibrated_rows(top_rows, nulls, n_rows=count_able(found, target.living)),
        "bottom_rows": bottom_rows.set_column(3, "score", pa.array(-negated)),
        "null_scores": pa.table(
            {
                "row_id": row_ids.take(positions),
                "scores": pa.array(list(np.ascontiguousarray(nulls.T)), pa.list_(pa.float32())),
            }
        ).cast(NULL_SCHEMA),
    }


def _hits(index: SignatureIndex, top_rows: pa.Table, names: Sequence[str]) -> list[list[Hit]]:
    found = top_rows.column("row_id").unique().to_pylist()
    rows = _corpus(index).rows_by_id(found, batches=index.batches)
    hits: dict[str, list[Hit]] = {name: [] for name in names}
    for line in top_rows.to_pylist():
        hits[line["query_id"]].append(Hit.of(rows[line["row_id"]], line))
    return list(hits.values())
