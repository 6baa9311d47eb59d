import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap

from rise_ops.bootstrap import bootstrap_mean


def test_the_interval_is_that_of_scipy() -> None:
    values = np.random.default_rng(3).normal(loc=0.4, size=60)
    found = bootstrap_mean(values, rng=np.random.default_rng(0), n_resamples=20_000)
    expected = scipy_bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.01)


def test_it_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(300):
        found = bootstrap_mean(rng.random(40), rng=rng, n_resamples=300, level=0.8)
        assert found is not None
        hits += found.low <= 0.5 <= found.high
    assert 0.72 < hits / 300 < 0.87  # 0.8, three deviations to either side, less a little bias


def test_queries_without_a_value_are_left_out() -> None:
    values = np.array([0.2, np.nan, 0.6, 0.9, np.nan])
    rngs = [np.random.default_rng(0), np.random.default_rng(0)]
    assert bootstrap_mean(values, rng=rngs[0]) == bootstrap_mean(
        np.array([0.2, 0.6, 0.9]), rng=rngs[1]
    )
    assert bootstrap_mean(np.array([0.2, np.nan]), rng=rngs[0]) is None


@pytest.mark.parametrize("wrong", [{"n_resamples": 0}, {"level": 1.0}])
def test_parameters_outside_their_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="n_resamples="):
        bootstrap_mean(np.zeros(3), rng=np.random.default_rng(0), **wrong)
