"""Measures of drift against scipy and plain counting, and what must hold whatever the numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rise_ops.drift import distribution_distance, mix_distance, rank_correlation

VALUES = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=30).map(np.array)
MIXES = st.dictionaries(st.sampled_from("abcde"), st.integers(1, 9), min_size=1)


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=30))
def test_rank_correlation_is_spearmans(pairs):
    before, after = np.array(pairs, np.float64).T
    found = rank_correlation(before, after)
    if np.ptp(before) == 0 or np.ptp(after) == 0:
        assert found is None
    else:
        assert found == pytest.approx(stats.spearmanr(before, after).statistic)


@given(VALUES, VALUES)
def test_distribution_distance_is_that_of_kolmogorov_and_smirnov(before, after):
    found = distribution_distance(before, after)
    shares = [[float((side <= at).mean()) for at in range(-5, 6)] for side in (before, after)]
    gaps = [abs(one - other) for one, other in zip(*shares, strict=True)]
    assert found == pytest.approx(max(gaps))
    assert distribution_distance(after, before) == found


@given(MIXES, MIXES)
def test_mix_distance_is_the_share_that_must_change_kind(before, after):
    n_before, n_after = sum(before.values()), sum(after.values())
    same = sum(min(before.get(k, 0) / n_before, after.get(k, 0) / n_after) for k in "abcde")
    assert mix_distance(before, after) == pytest.approx(1 - same)
    assert mix_distance(before, {k: 3 * n for k, n in before.items()}) == pytest.approx(0)


def test_nothing_to_measure_is_none_and_not_zero():
    empty = np.array([])
    assert rank_correlation(np.array([1.0]), np.array([2.0])) is None
    assert distribution_distance(empty, np.array([1.0])) is None
    assert mix_distance({}, {"a": 1}) is None
    with pytest.raises(ValueError, match="got 1 and 2 values"):
        rank_correlation(np.ones(1), np.ones(2))
