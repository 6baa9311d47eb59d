"""Do the strongest rows of a query include those that we know to be right?

Scores are ``[rows, queries]``, higher = stronger proponent; positives are a mask of that shape,
defined by where a row came from. The subset metrics (``auprc_at``, ``auroc_at``) look only at each
query's k highest and k lowest rows, as published results do; they say less than the full ranking,
so `full_average_precision`, `recall_at` and `permutation_control` stand beside them. Rows of equal
score rank by their position: order the rows independently of the positives. METHOD.md, evaluation.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata

Scores = Float[np.ndarray, "rows queries"]
Positives = Bool[np.ndarray, "rows queries"]
Metric = Callable[[Float[np.ndarray, " rows"], Bool[np.ndarray, " rows"]], float]


@dataclass(frozen=True, eq=False)
class MetricMean:
    """A metric's mean over queries, and over how many.

    Attributes:
        value: Mean over the used queries; None when there is none.
        n_used: Queries that the metric is defined for.
        n_skipped: Queries that it is not defined for.
        per_query: One value a query; NaN where skipped.
    """

    value: float | None
    n_used: int
    n_skipped: int
    per_query: Float[np.ndarray, " queries"]


@dataclass(frozen=True)
class PermutationControl:
    """What a metric gives when positives are drawn at random.

    Attributes:
        mean: Mean over the permutations.
        standard_deviation: Between permutations.
        n_permutations: Permutations that the metric was defined for.
    """

    mean: float
    standard_deviation: float
    n_permutations: int


def auprc_at(scores: Scores, positives: Positives, *, k: int) -> MetricMean:
    """Return average precision within each query's k highest and k lowest rows.

    A query whose subset has no positive counts as 0.

    Args:
        scores: Higher = stronger proponent; finite.
        positives: Rows that are right for a query.
        k: Rows from each end, 1 to half the rows.

    Raises:
        ValueError: Shapes differ, scores are not finite, or there are fewer than ``2 * k`` rows.
    """
    _check(scores, positives)
    return _mean_over(average_precision, *_both_ends(scores, positives, k))


def auroc_at(scores: Scores, positives: Positives, *, k: int) -> MetricMean:
    """Return the area under the ROC curve within each query's k highest and k lowest rows.

    A query whose subset has one class only is skipped and counted.

    Args:
        scores: Higher = stronger proponent; finite.
        positives: Rows that are right for a query.
        k: Rows from each end, 1 to half the rows.

    Raises:
        ValueError: Shapes differ, scores are not finite, or there are fewer than ``2 * k`` rows.
    """
    _check(scores, positives)
    return _mean_over(_roc_area, *_both_ends(scores, positives, k))


def precision_at(scores: Scores, positives: Positives, *, k: int) -> MetricMean:
    """Return the share of positives among each query's k highest rows.

    Args:
        scores: Higher = stronger proponent; finite.
        positives: Rows that are right for a query.
        k: Rows, 1 to all of them.

    Raises:
        ValueError: Shapes differ, scores are not finite, or there are fewer than ``k`` rows.
    """
    _check(scores, positives)
    return _average(_highest(scores, positives, k).mean(axis=0))


def recall_at(scores: Scores, positives: Positives, *, k: int) -> MetricMean:
    """Return the share of each query's positives that are among its k highest rows.

    A query without positives is skipped and counted.

    Args:
        scores: Higher = stronger proponent; finite.
        positives: Rows that are right for a query.
        k: Rows, 1 to all of them.

    Raises:
        ValueError: Shapes differ, scores are not finite, or there are fewer than ``k`` rows.
    """
    _check(scores, positives)
    found = _highest(scores, positives, k).sum(axis=0)
    total = positives.sum(axis=0)
    return _average(np.where(total > 0, found / np.maximum(total, 1), np.nan))


def full_average_precision(scores: Scores, positives: Positives) -> MetricMean:
    """Return average precision over all rows.

    A query without positives is skipped and counted.

    Args:
        scores: Higher = stronger proponent; finite.
        positives: Rows that are right for a query.

    Raises:
        ValueError: Shapes differ, or scores are not finite.
    """
    _check(scores, positives)
    result = _mean_over(average_precision, scores, positives)
    return _average(np.where(positives.any(axis=0), result.per_query, np.nan))


def reciprocal_rank(scores: Scores, positives: Positives) -> MetricMean:
    """Return one over the rank of each query's first positive (its mean over queries is the MRR).

    Rows of one score share the worst rank among them. A query without positives is skipped and
    counted.

    Args:
        scores: Higher = stronger proponent; finite.
        positives: Rows that are right for a query.

    Raises:
        ValueError: Shapes differ, or scores are not finite.
    """
    _check(scores, positives)
    found = positives.any(axis=0)
    best = np.where(positives, scores, -np.inf).max(axis=0, initial=-np.inf)
    ranks = (scores >= best).sum(axis=0)
    return _average(np.where(found, 1.0 / np.maximum(ranks, 1), np.nan))


def length_correlation(scores: Scores, lengths: Float[np.ndarray, " rows"]) -> MetricMean:
    """Return Spearman's rank correlation of each query's scores with the rows' lengths.

    Far from 0, a method prefers long (or short) rows, and is read beside the length baseline. A
    query whose scores are all equal is skipped and counted, every one where all lengths are.

    Args:
        scores: Higher = stronger proponent; finite.
        lengths: Of the rows, in tokens.

    Raises:
        ValueError: Scores are not finite.
    """
    _check(scores, np.zeros(scores.shape, dtype=bool))
    ranks, of_lengths = rankdata(scores, axis=0), rankdata(lengths)
    ranks, of_lengths = ranks - ranks.mean(axis=0), of_lengths - of_lengths.mean()
    norms = np.sqrt((ranks**2).sum(axis=0) * (of_lengths**2).sum())
    return _average(np.where(norms > 0.0, of_lengths @ ranks / np.maximum(norms, 1e-30), np.nan))


def permutation_control(
    metric: Callable[[Scores, Positives], MetricMean],
    scores: Scores,
    positives: Positives,
    *,
    n_permutations: int,
    rng: np.random.Generator,
) -> PermutationControl:
    """Return what the metric gives when positives are shuffled over the rows.

    All queries are shuffled alike, so that queries which share positives go on sharing them.

    Args:
        metric: For instance ``functools.partial(auprc_at, k=10)``.
        scores: Higher = stronger proponent; finite.
        positives: Rows that are right for a query.
        n_permutations: Shuffles, 1 or more.
        rng: Source of the shuffles.

    Raises:
        ValueError: ``n_permutations`` is below 1, or no shuffle gave the metric a value.
    """
    if n_permutations < 1:
        raise ValueError(f"n_permutations must be at least 1, got {n_permutations}.")
    means = [metric(scores, rng.permutation(positives)).value for _ in range(n_permutations)]
    values = np.array([mean for mean in means if mean is not None])
    if values.size == 0:
        raise ValueError("no permutation gave the metric a value: are there any positives?")
    return PermutationControl(float(values.mean()), float(values.std()), int(values.size))


def average_precision(
    scores: Float[np.ndarray, " rows"], positives: Bool[np.ndarray, " rows"]
) -> float:
    """Return the mean, over positives, of the precision at their score; 0 without positives.

    Rows of equal score are taken together, so the result does not depend on their order.
    """
    found, taken = _found_by_threshold(scores, positives)
    if found[-1] == 0:
        return 0.0
    return float(np.sum(np.diff(found, prepend=0) * found / taken) / found[-1])


def _roc_area(scores: Float[np.ndarray, " rows"], positives: Bool[np.ndarray, " rows"]) -> float:
    found, taken = _found_by_threshold(scores, positives)
    n_positive, n_negative = found[-1], taken[-1] - found[-1]
    if n_positive == 0 or n_negative == 0:
        return float("nan")
    hits, false_alarms = np.append(0, found), np.append(0, taken - found)
    area = np.sum(np.diff(false_alarms) * (hits[1:] + hits[:-1])) / 2
    return float(area / (n_positive * n_negative))


def _found_by_threshold(
    scores: Float[np.ndarray, " rows"], positives: Bool[np.ndarray, " rows"]
) -> tuple[np.ndarray, np.ndarray]:
    """Return positives found and rows taken at each distinct score, from the highest down."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last_of_score = np.append(ranked[1:] != ranked[:-1], True)
    return np.cumsum(positives[order])[last_of_score], np.flatnonzero(last_of_score) + 1


def _both_ends(
    scores: Scores, positives: Positives, k: int
) -> tuple[Float[np.ndarray, "subset queries"], Bool[np.ndarray, "subset queries"]]:
    n_rows = scores.shape[0]
    if not 1 <= k <= n_rows // 2:
        raise ValueError(f"k must be 1 to half of the {n_rows} rows, got {k}.")
    order = np.argsort(-scores, axis=0, kind="stable")
    ends = np.concatenate([order[:k], order[n_rows - k :]])
    return np.take_along_axis(scores, ends, 0), np.take_along_axis(positives, ends, 0)


def _highest(scores: Scores, positives: Positives, k: int) -> Bool[np.ndarray, "k queries"]:
    if not 1 <= k <= scores.shape[0]:
        raise ValueError(f"k must be 1 to the {scores.shape[0]} rows, got {k}.")
    order = np.argsort(-scores, axis=0, kind="stable")[:k]
    return np.take_along_axis(positives, order, 0)


def _mean_over(metric: Metric, scores: Scores, positives: Positives) -> MetricMean:
    pairs = zip(scores.T, positives.T, strict=True)
    return _average(np.array([metric(column, right) for column, right in pairs], dtype=np.float64))


def _average(per_query: Float[np.ndarray, " queries"]) -> MetricMean:
    used = ~np.isnan(per_query)
    n_used = int(used.sum())
    value = float(per_query[used].mean()) if n_used else None
    return MetricMean(value, n_used, per_query.size - n_used, per_query)


def _check(scores: Scores, positives: Positives) -> None:
    if scores.shape != positives.shape or scores.ndim != 2:
        raise ValueError(
            "scores and positives must both be [rows, queries], "
            f"got {scores.shape} and {positives.shape}."
        )
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} of the scores are not finite.")
