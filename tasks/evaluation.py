"""Do the scores lead back to the rows that we know to be right? RISE beside BM25 and chance.

Rows and queries that carry the same label belong together (the label says where a row came from,
never what its text looks like). All methods see the same texts and go through the same metrics.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from rise_ops.baselines.bm25 import bm25_scores
from rise_ops.baselines.random_scores import random_scores
from rise_ops.metrics import MetricMean, auprc_at, precision_at
from storage.corpus import Corpus
from storage.queries import QuerySet
from storage.refs import CorpusRef, IndexRef, QuerySetRef, ScoresRef
from storage.scores import Scores
from storage.signatures import SignatureIndex
from tasks.scoring import Hit

METRICS: dict[str, Callable[..., MetricMean]] = {"precision": precision_at, "auPRC": auprc_at}
RANDOM_SEED = 0


@dataclass(frozen=True)
class MethodResult:
    """One method's metrics, means over the queries.

    Attributes:
        method: Its name.
        metrics: ``{"precision@10": 0.91, ...}``; None where no query could be measured.
        n_queries: Queries.
        n_skipped: Of them, those that some metric is not defined for.
        n_positives: Rows that are right for some query.
    """

    method: str
    metrics: dict[str, float | None]
    n_queries: int
    n_skipped: int
    n_positives: int


def compare_methods(scores: ScoresRef, *, ks: Sequence[int]) -> list[MethodResult]:
    """Return precision@k and auPRC@k of RISE, BM25 and random scores.

    Args:
        scores: Scores that were made with the full matrix kept.
        ks: Rows taken from the top (precision) and from each end (auPRC); see `rise_ops.metrics`.

    Raises:
        ValueError: The matrix was not kept, or no query shares a label with a row.
    """
    stored = Scores.open(scores)
    corpus = _corpus_of(scores.root, stored)
    row_texts, row_labels = _texts_and_labels(corpus, stored.manifest["batches"])
    table = _queries_of(scores.root, stored).queries()
    query_texts, query_labels = table["text"].to_pylist(), table["label"].to_pylist()
    positives = _positives(row_labels, query_labels)
    logging.getLogger("bm25s").disabled = True  # on import it sets itself to DEBUG
    candidates = {
        "RISE": _whole_matrix(stored),
        "BM25": bm25_scores(row_texts, query_texts),
        "random": random_scores(row_texts, query_texts, seed=RANDOM_SEED),
    }
    return [_measured(name, matrix, positives, ks) for name, matrix in candidates.items()]


@dataclass(frozen=True)
class ExampleQuery:
    """A query, cut where its prompt ends."""

    query_id: str
    prompt: str
    completion: str


def strongest_rows(
    scores: ScoresRef, *, top_k: int, query: int = 0
) -> tuple[ExampleQuery, list[Hit]]:
    """Return one query of stored scores and its strongest rows.

    Args:
        scores: Any scores; their top rows are kept always.
        top_k: Rows, at most as many as were kept.
        query: Position in the query set, from 0.
    """
    stored = Scores.open(scores)
    asked = _queries_of(scores.root, stored).queries().slice(query, 1).to_pylist()[0]
    table = stored.top_rows()
    mine = table.filter(pc.equal(table["query_id"], asked["row_id"])).slice(0, top_k).to_pylist()
    rows = _corpus_of(scores.root, stored).rows_by_id(
        [item["row_id"] for item in mine], batches=stored.manifest["batches"]
    )
    cut = asked["prompt_chars"]
    example = ExampleQuery(asked["row_id"], asked["text"][:cut], asked["text"][cut:])
    return example, [Hit.of(rows[item["row_id"]], item) for item in mine]


def _whole_matrix(scores: Scores) -> npt.NDArray[np.float32]:
    shape = scores.manifest["matrix"]
    n_blocks = 1 if shape is None else -(-shape["n_rows"] // shape["block_rows"])
    return np.concatenate([scores.matrix_block(block) for block in range(n_blocks)])


def _corpus_of(root: str, scores: Scores) -> Corpus:
    index = SignatureIndex.open(IndexRef(root, scores.manifest["index"]))
    return Corpus(CorpusRef(root, index.identity["corpus"]))


def _queries_of(root: str, scores: Scores) -> QuerySet:
    name, version = scores.manifest["query_set"], scores.manifest["query_set_version"]
    return QuerySet.open(QuerySetRef(root, name, version))


def _texts_and_labels(corpus: Corpus, batches: list[str]) -> tuple[list[str], list[str | None]]:
    tables = list(corpus.iter_tables(batches=batches, columns=["text", "label"]))
    texts = [text for table in tables for text in table["text"].to_pylist()]
    labels = [label for table in tables for label in table["label"].to_pylist()]
    return texts, labels


def _positives(
    row_labels: Sequence[str | None], query_labels: Sequence[str | None]
) -> npt.NDArray[np.bool_]:
    rows, queries = np.array(row_labels, object), np.array(query_labels, object)
    positives = (rows[:, None] == queries[None, :]) & (queries[None, :] != None)  # noqa: E711
    if not positives.any():
        raise ValueError(
            "no query has the label of any row, so nothing says which rows are right. "
            "Set label_field for the rows and for the queries."
        )
    return np.asarray(positives, dtype=bool)


def _measured(
    method: str,
    scores: npt.NDArray[np.float32],
    positives: npt.NDArray[np.bool_],
    ks: Sequence[int],
) -> MethodResult:
    means = {
        f"{name}@{k}": metric(scores, positives, k=k)
        for name, metric in METRICS.items()
        for k in ks
    }
    return MethodResult(
        method=method,
        metrics={name: mean.value for name, mean in means.items()},
        n_skipped=max(mean.n_skipped for mean in means.values()),
        n_queries=positives.shape[1],
        n_positives=int(positives.any(axis=1).sum()),
    )
