"""LDS where the answer is known: linear regression, retrained by its closed form."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from rise_ops.lds import Lds, holm, lds, noise_of, random_subsets, rank_correlations
from rise_ops.lds_resampling import drawn_counts, resampled_correlations


def ridge(rows: np.ndarray, targets: np.ndarray, strength: float) -> np.ndarray:
    return np.linalg.solve(rows.T @ rows + strength * np.eye(rows.shape[1]), rows.T @ targets)


def lds_of(
    scores: np.ndarray, subsets: np.ndarray, losses: np.ndarray, *, seed: int = 0, n: int = 100
) -> Lds:
    return lds({"one": scores}, subsets, losses, seed=seed, n_resamples=n, n_shuffles=n)["one"]


class Regression:
    """Ridge regression on 60 rows: every retraining is one solve, every influence a formula."""

    def __init__(self, *, spread: float = 1.0) -> None:
        rng = np.random.default_rng(0)
        self.rows = rng.normal(size=(60, 6))
        self.targets = self.rows @ rng.normal(size=6) + spread * rng.normal(size=60)
        self.asked = rng.normal(size=(20, 6))
        self.wanted = self.asked @ rng.normal(size=6)
        self.strength = 50.0
        self.subsets = random_subsets(60, 200, share=0.5, seed=7)

    def losses(self) -> np.ndarray:
        found = []
        for subset in self.subsets:
            weights = ridge(self.rows[subset], self.targets[subset], self.strength)
            found.append(0.5 * (self.asked @ weights - self.wanted) ** 2)
        return np.array(found)

    def influences(self) -> np.ndarray:
        """What one row more does to a query's loss, to first order, around half of the rows."""
        weights = ridge(self.rows, self.targets, 2 * self.strength)
        hessian = self.rows.T @ self.rows / 2 + self.strength * np.eye(6)
        row_gradients = (self.rows @ weights - self.targets)[:, None] * self.rows
        query_gradients = (self.asked @ weights - self.wanted)[:, None] * self.asked
        return row_gradients @ np.linalg.solve(hessian, query_gradients.T)


def test_influence_functions_foretell_ridge_regression() -> None:
    model = Regression()
    scores, losses = model.influences(), model.losses()
    both = {"known": scores, "turned": -scores}
    found = lds(both, model.subsets, losses, seed=0, n_resamples=200, n_shuffles=200)
    known, turned = found["known"], found["turned"]
    assert known.value > 0.9
    assert known.interval.low < known.value < known.interval.high
    assert abs(known.shuffled) < 1 / np.sqrt(len(model.subsets))
    assert turned.value == pytest.approx(-known.value)
    assert (known.p, turned.p) == (1 / 201, 1.0)


def test_scores_that_are_the_effect_are_perfect_and_noise_costs_what_the_ceiling_says() -> None:
    rng = np.random.default_rng(1)
    subsets = random_subsets(40, 400, share=0.5, seed=3)
    effect = rng.normal(size=(40, 5))
    clean = 10.0 - subsets @ effect
    assert lds_of(effect, subsets, clean, n=5).value == pytest.approx(1.0)
    noise = 3.0 * rng.normal(size=(2, *clean.shape))
    told = noise_of(clean + noise[0], clean + noise[0], clean + noise[1], seed=0)
    assert told.deviation_between_seeds == pytest.approx(3.0, rel=0.05)
    found = lds_of(effect, subsets, clean + noise[0], n=5).value
    # a rank correlation lies a little below the correlation of the numbers themselves
    assert found == pytest.approx(told.ceiling, abs=0.04)
    assert told.reliability == pytest.approx(told.ceiling**2, abs=0.06)
    assert told.ceiling_interval.low < told.ceiling < told.ceiling_interval.high


def test_the_ceiling_is_what_noise_leaves_though_the_order_shifts_all_subsets_alike() -> None:
    """Effects of 96 rows and noise of known sizes: the true ceiling is a formula."""
    rng = np.random.default_rng(0)
    subsets = random_subsets(96, 40, share=0.5, seed=7)
    true = np.sqrt(1 - 0.02**2 / (0.02**2 + 96 * 0.25 * 0.01**2))
    told = []
    for seed in range(30):
        clean = -(subsets @ (0.01 * rng.normal(size=(96, 36))))
        first = clean + 0.02 * rng.normal(size=clean.shape)
        shift = 0.05 * rng.normal(size=36)
        again = clean[:6] + shift + 0.02 * rng.normal(size=(6, 36))
        told.append(noise_of(first, first[:6], again, seed=seed))
        unshifted = noise_of(first, first[:6], again - shift, seed=seed)
        assert told[-1].ceiling == pytest.approx(unshifted.ceiling)
    assert np.mean([one.ceiling for one in told]) == pytest.approx(true, abs=0.015)
    held = [one.ceiling_interval.low <= true <= one.ceiling_interval.high for one in told]
    assert np.mean(held) >= 0.9


def test_intervals_hold_an_lds_of_nothing_about_as_often_as_they_say() -> None:
    """Scores at right angles to all effects, where queries share much of both: the LDS is 0."""
    rng = np.random.default_rng(0)
    subsets = random_subsets(96, 40, share=0.5, seed=7)
    held, over_queries, sure = [], [], []
    for seed in range(100):
        effects, scores = (rng.normal(size=(96, 1)) + rng.normal(size=(96, 12)) for _ in "ab")
        effects, scores = effects - effects.mean(0), scores - scores.mean(0)
        scores -= effects * ((scores * effects).sum(0) / (effects**2).sum(0))
        losses = -(subsets @ effects) + 0.5 * rng.normal(size=(40, 12))
        found = lds_of(scores, subsets, losses, seed=seed, n=200)
        held.append(found.interval.low <= 0 <= found.interval.high)
        spread = found.per_query.std(ddof=1) / np.sqrt(12)
        over_queries.append(abs(found.value) <= 2 * spread)
        sure.append(found.p <= 0.05)
    assert 0.88 <= np.mean(held) <= 0.99
    assert np.mean(over_queries) < 0.75  # queries are not alone: they share the subsets
    assert np.mean(sure) <= 0.1


def test_differences_are_of_the_same_resamples_and_methods_do_not_touch_each_other() -> None:
    rng = np.random.default_rng(2)
    subsets = random_subsets(60, 40, share=0.5, seed=1)
    effects = rng.normal(size=(60, 8))
    losses = -(subsets @ effects) + 4.0 * rng.normal(size=(40, 8))
    near = effects + 0.3 * rng.normal(size=effects.shape)
    scores = {"true": effects, "near": near, "nothing": rng.normal(size=effects.shape)}
    found = lds(scores, subsets, losses, seed=5)
    level = found["near"].less(found["true"])
    apart = [
        getattr(found["near"].interval, end) - getattr(found["true"].interval, other)
        for end, other in (("low", "high"), ("high", "low"))
    ]
    assert level.low < 0 < level.high
    assert level.high - level.low < 0.5 * (apart[1] - apart[0])
    assert found["nothing"].less(found["true"]).high < 0
    assert found["true"].less(found["true"]) == found["near"].less(found["near"])
    alone = lds({"near": near}, subsets, losses, seed=5)["near"]
    assert (alone.interval, alone.p) == (found["near"].interval, found["near"].p)


def test_holm_corrects_for_the_number_of_methods() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_a_constant_prediction_counts_as_nothing_and_is_counted() -> None:
    subsets = random_subsets(30, 8, share=0.5, seed=0)
    scores = np.full((30, 2), 0.1)  # whose sums differ in the last digit by their order
    scores[:, 1] = np.arange(30)
    losses = -(subsets @ scores) - np.arange(8)[:, None] * 1e-9
    found = lds_of(scores, subsets, losses)
    assert found.per_query[0] == 0.0
    assert found.n_constant == 1
    assert lds_of(scores[:, :1], subsets, losses[:, :1]).p == 1.0


@given(st.integers(3, 12), st.integers(0, 50))
def test_resamples_correlate_what_was_drawn_ties_and_all(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    foretold = rng.integers(0, 4, (2, n, 3)).astype(float)
    losses = rng.integers(0, 4, (n, 3)).astype(float)
    counts = drawn_counts(n, 5, rng=rng)
    for query, found in enumerate(resampled_correlations(foretold, losses, counts)):
        for resample, drawn in enumerate(counts):
            own = np.repeat(np.arange(n), drawn)
            expected = [rank_correlations(one[own], -losses[own])[query] for one in foretold]
            np.testing.assert_allclose(found[:, resample], expected, atol=1e-6)


@given(st.integers(3, 20), st.integers(0, 50))
def test_rank_correlations_are_scipys(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.integers(0, 6, (2, n, 3)).astype(float)
    for column, found in enumerate(rank_correlations(left, right)):
        if np.ptp(left[:, column]) == 0 or np.ptp(right[:, column]) == 0:
            assert found == 0.0
        else:
            expected = spearmanr(left[:, column], right[:, column]).statistic
            assert found == pytest.approx(expected, abs=1e-12)


def test_subsets_are_halves_and_do_not_depend_on_their_number() -> None:
    many = random_subsets(96, 40, share=0.5, seed=7)
    assert (many.sum(1) == 48).all()
    np.testing.assert_array_equal(random_subsets(96, 3, share=0.5, seed=7), many[:3])
    assert len(np.unique(many, axis=0)) == 40


def test_what_does_not_fit_is_refused() -> None:
    subsets = random_subsets(5, 4, share=0.5, seed=0)
    with pytest.raises(ValueError, match="3 subsets or more, got 2"):
        lds_of(np.zeros((5, 2)), subsets[:2], np.zeros((2, 2)))
    with pytest.raises(ValueError, match="finite"):
        lds_of(np.full((5, 2), np.nan), subsets, np.zeros((4, 2)))
    with pytest.raises(ValueError, match="of two subsets or more"):
        noise_of(np.zeros((4, 2)), np.zeros((1, 2)), np.zeros((1, 2)), seed=0)
