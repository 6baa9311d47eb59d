"""From scores to the numbers of the tables: metrics, intervals, controls, curves, examples."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from rise_ops.bootstrap import bootstrap_mean
from rise_ops.metrics import (
    MetricMean,
    PermutationControl,
    auprc_at,
    auroc_at,
    full_average_precision,
    length_correlation,
    permutation_control,
    precision_at,
    recall_at,
    reciprocal_rank,
)
from tasks.evaluate.method import LabelledText
from tasks.evaluate.settings import MeasureConfig

Scores = npt.NDArray[np.float32]
Positives = npt.NDArray[np.bool_]
Metric = Callable[[Scores, Positives], MetricMean]
Line = dict[str, Any]

MEASURE_VERSION = 1
"""Raised when the same scores would give other numbers."""

CURVE_LEVELS = np.linspace(0.0, 1.0, 41)
SPREAD_BINS = np.linspace(-4.0, 4.0, 33)
EXCERPT_CHARS = 600


def measured(
    scores: Scores,
    positives: Positives,
    lengths: Sequence[int],
    config: MeasureConfig,
    *,
    seed: int,
) -> dict[str, list[Line]]:
    """Return lines of the tables metrics, per_query, curves and spread, without task and method.

    Args:
        scores: ``[rows, queries]``, higher = stronger proponent.
        positives: Rows that are right for a query.
        lengths: Tokens of the rows.
        config: Cuts, shuffles, resamples.
        seed: Of shuffles and resamples.
    """
    lines: list[Line] = []
    per_query: list[Line] = []
    found = [
        (name, k, metric(scores, positives), _control(metric, scores, positives, config, seed))
        for name, k, metric in _metrics(config.cuts, len(scores))
    ]
    by_length = length_correlation(scores, np.asarray(lengths, dtype=np.float64))
    for name, k, mean, control in [*found, ("length_correlation", None, by_length, None)]:
        interval = bootstrap_mean(
            mean.per_query, rng=np.random.default_rng(seed), n_resamples=config.resamples
        )
        lines.append(
            {
                "metric": name,
                "k": k,
                "value": mean.value,
                "low": interval.low if interval else None,
                "high": interval.high if interval else None,
                "n_used": mean.n_used,
                "n_skipped": mean.n_skipped,
                "control": control.mean if control else None,
                "control_deviation": control.standard_deviation if control else None,
            }
        )
        per_query += [
            {"query": query, "metric": name, "k": k, "value": None if np.isnan(value) else value}
            for query, value in enumerate(mean.per_query.tolist())
        ]
    return {
        "metrics": lines,
        "per_query": per_query,
        "curves": _curve(scores, positives),
        "spread": _spread(scores, positives),
    }


def examples(
    scores: Scores,
    positives: Positives,
    rows: Sequence[LabelledText],
    queries: Sequence[LabelledText],
    config: MeasureConfig,
) -> list[Line]:
    """Return lines of the table of examples, without task and method.

    The queries are spread over all of them, the same for every method.
    """
    n_queries = min(config.example_queries, len(queries))
    chosen = [number * len(queries) // n_queries for number in range(n_queries)]
    return [
        line
        for query in chosen
        for line in _example(scores, positives, rows, queries, query, config)
    ]


def _example(
    scores: Scores,
    positives: Positives,
    rows: Sequence[LabelledText],
    queries: Sequence[LabelledText],
    query: int,
    config: MeasureConfig,
) -> list[Line]:
    asked = queries[query]
    best = np.argsort(-scores[:, query], kind="stable")[: config.example_rows].tolist()
    shown: list[tuple[int, LabelledText, float, bool]] = [(0, asked, 0.0, True)]
    shown += [
        (rank, rows[row], float(scores[row, query]), bool(positives[row, query]))
        for rank, row in enumerate(best, start=1)
    ]
    return [
        {
            "query_id": asked.text_id,
            "rank": rank,
            "row_id": one.text_id,
            "score": score,
            "is_positive": is_positive,
            "label": one.label,
            "text": one.text[:EXCERPT_CHARS],
            "prompt_chars": min(one.prompt_chars, EXCERPT_CHARS),
        }
        for rank, one, score, is_positive in shown
    ]


def _metrics(cuts: Sequence[int], n_rows: int) -> list[tuple[str, int | None, Metric]]:
    """Return the metrics that so many rows allow, each with its cut."""
    both_ends = [k for k in cuts if k <= n_rows // 2]
    top = [k for k in cuts if k <= n_rows]
    found: list[tuple[str, int | None, Metric]] = []
    for name, metric, possible in (
        ("auprc", auprc_at, both_ends),
        ("auroc", auroc_at, both_ends),
        ("precision", precision_at, top),
        ("recall", recall_at, top),
    ):
        found += [(name, k, partial(metric, k=k)) for k in possible]
    return [*found, ("full_ap", None, full_average_precision), ("mrr", None, reciprocal_rank)]


def _control(
    metric: Metric, scores: Scores, positives: Positives, config: MeasureConfig, seed: int
) -> PermutationControl | None:
    if not config.permutations:
        return None
    try:
        return permutation_control(
            metric,
            scores,
            positives,
            n_permutations=config.permutations,
            rng=np.random.default_rng(seed),
        )
    except ValueError:  # no shuffle put a positive where the metric looks
        return None


def _curve(scores: Scores, positives: Positives) -> list[Line]:
    """Return precision at levels of recall: the best at that recall or beyond, mean of queries."""
    order = np.argsort(-scores, axis=0, kind="stable")
    right = np.take_along_axis(positives, order, axis=0)
    right = right[:, right.any(axis=0)]
    if right.shape[1] == 0:
        return []
    found = np.cumsum(right, axis=0)
    precision = found / np.arange(1, len(right) + 1)[:, None]
    best_beyond = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    recall = found / found[-1]
    means = [
        np.mean(
            [
                best_beyond[np.searchsorted(recall[:, query], level - 1e-12), query]
                for query in range(right.shape[1])
            ]
        )
        for level in CURVE_LEVELS
    ]
    return [
        {"recall": float(level), "precision": float(mean)}
        for level, mean in zip(CURVE_LEVELS, means, strict=True)
    ]


def _spread(scores: Scores, positives: Positives) -> list[Line]:
    """Return the shares of positives and of others in each bin of the standardised score."""
    deviation = scores.std(axis=0)
    standard = (scores - scores.mean(axis=0)) / np.where(deviation > 0.0, deviation, 1.0)
    inside = np.clip(standard, SPREAD_BINS[0], SPREAD_BINS[-1])
    lines: list[Line] = []
    for is_positive in (True, False):
        chosen = inside[positives == is_positive]
        counts, _ = np.histogram(chosen, bins=SPREAD_BINS)
        lines += [
            {"is_positive": is_positive, "low": low, "high": high, "share": share}
            for low, high, share in zip(
                SPREAD_BINS[:-1].tolist(),
                SPREAD_BINS[1:].tolist(),
                (counts / max(1, chosen.size)).tolist(),
                strict=True,
            )
        ]
    return lines
