from functools import partial

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import (
    average_precision_score,
    label_ranking_average_precision_score,
    roc_auc_score,
)

from rise_ops.metrics import (
    auprc_at,
    auroc_at,
    average_precision,
    full_average_precision,
    length_correlation,
    permutation_control,
    precision_at,
    recall_at,
    reciprocal_rank,
)


def _problem(*, levels: int | None = None, n_rows: int = 60, n_queries: int = 12):
    rng = np.random.default_rng(4)
    positives = rng.random((n_rows, n_queries)) < 0.2
    scores = rng.normal(size=(n_rows, n_queries)) + positives
    if levels:  # few distinct scores: ties everywhere
        scores = np.round(scores * levels) / levels
    return scores.astype(np.float32), positives


def _ends(scores, k):
    order = np.argsort(-scores, kind="stable")
    return np.concatenate([order[:k], order[-k:]])


@pytest.mark.parametrize("levels", [None, 1])
@pytest.mark.parametrize("k", [3, 10, 30])
def test_subset_metrics_equal_scikit_learn_on_the_subset(levels, k):
    scores, positives = _problem(levels=levels)
    auprc, auroc = auprc_at(scores, positives, k=k), auroc_at(scores, positives, k=k)
    skipped = 0
    for query in range(scores.shape[1]):
        ends = _ends(scores[:, query], k)
        s, y = scores[ends, query], positives[ends, query]
        if not y.any():
            assert auprc.per_query[query] == 0.0
        else:
            assert auprc.per_query[query] == pytest.approx(average_precision_score(y, s))
        if y.all() or not y.any():
            skipped += 1
            assert np.isnan(auroc.per_query[query])
        else:
            assert auroc.per_query[query] == pytest.approx(roc_auc_score(y, s))
    assert (auprc.n_used, auprc.n_skipped) == (12, 0)
    assert (auroc.n_used, auroc.n_skipped) == (12 - skipped, skipped)
    assert auprc.value == pytest.approx(np.mean(auprc.per_query))
    assert auroc.value == pytest.approx(np.nanmean(auroc.per_query))


@pytest.mark.parametrize("levels", [None, 1])
def test_full_ranking_equals_scikit_learn(levels):
    scores, positives = _problem(levels=levels)
    positives[:, 3] = False
    found = full_average_precision(scores, positives)
    expected = [average_precision_score(positives[:, q], scores[:, q]) for q in range(12) if q != 3]
    assert found.value == pytest.approx(np.mean(expected))
    assert (found.n_used, found.n_skipped) == (11, 1)


def test_by_hand():
    # ranked: + - + | rest;  lowest: - -
    scores = np.array([[6.0], [5.0], [4.0], [3.0], [2.0], [1.0]])
    positives = np.array([[1], [0], [1], [0], [0], [0]], dtype=bool)
    assert auprc_at(scores, positives, k=3).value == pytest.approx((1 + 2 / 3) / 2)
    assert auroc_at(scores, positives, k=3).value == pytest.approx(7 / 8)
    assert precision_at(scores, positives, k=3).value == pytest.approx(2 / 3)
    assert precision_at(scores, positives, k=6).value == pytest.approx(1 / 3)
    assert recall_at(scores, positives, k=1).value == pytest.approx(1 / 2)
    # the middle of the ranking is outside the subset
    assert auprc_at(scores, positives, k=1).value == 1.0


def test_higher_scores_are_stronger():
    scores, positives = _problem()
    best, worst = positives.astype(float), 1.0 - positives
    assert auprc_at(best, positives, k=5).value == 1.0
    assert auroc_at(worst, positives, k=30).value == 0.0
    assert (
        precision_at(-scores, positives, k=10).value < precision_at(scores, positives, k=10).value
    )


def test_queries_without_positives_are_zero_or_counted():
    scores, positives = _problem()
    none = np.zeros_like(positives)
    assert auprc_at(scores, none, k=5).value == 0.0
    assert precision_at(scores, none, k=5).value == 0.0
    for metric in (partial(auroc_at, k=5), partial(recall_at, k=5), full_average_precision):
        found = metric(scores, none)
        assert (found.value, found.n_used, found.n_skipped) == (None, 0, 12)


def test_average_precision_does_not_depend_on_the_order_of_ties():
    scores = np.array([1.0, 1.0, 1.0, 0.0])
    values = {
        average_precision(scores, np.array(right, dtype=bool))
        for right in ([1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0])
    }
    assert values == {1 / 3}


def test_permutation_control_is_at_chance():
    scores, positives = _problem(n_rows=200)
    control = permutation_control(
        partial(precision_at, k=50),
        scores,
        positives,
        n_permutations=100,
        rng=np.random.default_rng(0),
    )
    assert control.n_permutations == 100
    error = control.standard_deviation / 100**0.5
    assert abs(control.mean - positives.mean()) < 5 * error
    assert precision_at(scores, positives, k=50).value > control.mean + 5 * error


def test_permutation_control_needs_a_value():
    scores, positives = _problem()
    none = np.zeros_like(positives)
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="are there any positives"):
        permutation_control(full_average_precision, scores, none, n_permutations=2, rng=rng)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        permutation_control(full_average_precision, scores, positives, n_permutations=0, rng=rng)


@pytest.mark.parametrize(
    ("metric", "k", "message"),
    [
        (auprc_at, 31, "half of the 60 rows, got 31"),
        (auroc_at, 0, "got 0"),
        (precision_at, 61, "1 to the 60 rows, got 61"),
        (recall_at, 0, "got 0"),
    ],
)
def test_k_outside_the_rows_is_refused(metric, k, message):
    with pytest.raises(ValueError, match=message):
        metric(*_problem(), k=k)


def test_scores_that_are_not_finite_are_refused():
    scores, positives = _problem()
    scores[2, 3] = np.nan
    with pytest.raises(ValueError, match="1 of the scores"):
        full_average_precision(scores, positives)


@pytest.mark.parametrize("levels", [None, 1])
def test_reciprocal_rank_equals_scikit_learn_with_one_positive(levels):
    scores, positives = _problem(levels=levels)
    only = np.zeros_like(positives)
    only[positives.argmax(axis=0), np.arange(12)] = True
    found = reciprocal_rank(scores, only)
    expected = [
        label_ranking_average_precision_score(only[None, :, q], scores[None, :, q])
        for q in range(12)
    ]
    np.testing.assert_allclose(found.per_query, expected)
    assert found.value == pytest.approx(np.mean(expected))


def test_reciprocal_rank_counts_the_first_of_several_positives():
    scores = np.array([[4.0, 4.0], [3.0, 3.0], [2.0, 2.0], [1.0, 1.0]])
    positives = np.array([[0, 0], [1, 0], [1, 0], [0, 0]], dtype=bool)
    found = reciprocal_rank(scores, positives)
    assert found.per_query[0] == 0.5
    assert (found.value, found.n_used, found.n_skipped) == (0.5, 1, 1)


@pytest.mark.parametrize("levels", [None, 1])
def test_length_correlation_equals_scipy(levels):
    scores, _ = _problem(levels=levels)
    lengths = np.random.default_rng(0).integers(1, 20, len(scores)).astype(float)
    found = length_correlation(scores, lengths)
    expected = [spearmanr(column, lengths).statistic for column in scores.T]
    np.testing.assert_allclose(found.per_query, expected, atol=1e-12)
    assert length_correlation(lengths[:, None] ** 3, lengths).value == pytest.approx(1.0)


def test_a_query_whose_scores_are_all_equal_has_no_length_correlation():
    scores = np.stack([np.zeros(5), np.arange(5.0)], axis=1)
    found = length_correlation(scores, np.arange(5.0))
    assert (found.n_used, found.n_skipped, found.value) == (1, 1, pytest.approx(1.0))
