"""Do the scores lead back to the rows that we know to be right? RISE beside BM25 and chance.

Rows and queries that carry the same label belong together (the label says where a row came from,
never what its text looks like). All methods see the same texts and go through the same metrics.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rise_ops.baselines.bm25 import bm25_scores
from rise_ops.baselines.random_scores import random_scores
from rise_ops.metrics import MetricMean, auprc_at, precision_at
from storage.refs import ScoresRef
from storage.scores import Scores

METRICS: dict[str, Callable[..., MetricMean]] = {"precision": precision_at, "auPRC": auprc_at}
RANDOM_SEED = 0


@dataclass(frozen=True)
class MethodResult:
    """One method's metrics: ``{"precision@10": 0.91, ...}``, means over the queries."""

    method: str
    metrics: dict[str, float]
    n_queries: int
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
    corpus, queries = _corpus_of(scores.root, stored), _queries_of(scores.root, stored)
    row_texts, row_labels = _texts_and_labels(corpus)
    table = queries.queries()
    query_texts, query_labels = table["text"].to_pylist(), table["label"].to_pylist()
    positives = _positives(row_labels, query_labels)
    candidates = {
        "RISE": stored.matrix(),
        "BM25": bm25_scores(row_texts, query_texts),
        "random": random_scores(row_texts, query_texts, seed=RANDOM_SEED),
    }
    return [_measured(name, matrix, positives, ks) for name, matrix in candidates.items()]
