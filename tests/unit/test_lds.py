"""LDS where the answer is known: linear regression, retrained by its closed form."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from rise_ops.lds import lds, noise_floor, random_subsets, rank_correlations


def ridge(rows: np.ndarray, targets: np.ndarray, strength: float) -> np.ndarray:
    return np.linalg.solve(rows.T @ rows + strength * np.eye(rows.shape[1]), rows.T @ targets)


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
    found = lds(scores, model.subsets, losses, rng=np.random.default_rng(0))
    assert found.value > 0.9
    assert found.interval is not None
    assert found.interval.low < found.value < found.interval.high
    assert abs(found.shuffled) < 1 / np.sqrt(len(model.subsets))
    turned = lds(-scores, model.subsets, losses, rng=np.random.default_rng(0))
    assert turned.value == pytest.approx(-found.value)


def test_scores_that_are_the_effect_are_perfect_and_noise_costs_what_the_floor_says() -> None:
    rng = np.random.default_rng(1)
    subsets = random_subsets(40, 400, share=0.5, seed=3)
    effect = rng.normal(size=(40, 5))
    clean = 10.0 - subsets @ effect
    assert lds(effect, subsets, clean, rng=rng).value == pytest.approx(1.0)
    noise = 3.0 * rng.normal(size=(2, *clean.shape))
    floor = noise_floor(clean + noise[0], clean + noise[0], clean + noise[1])
    assert floor.deviation_between_seeds == pytest.approx(3.0, rel=0.05)
    found = lds(effect, subsets, clean + noise[0], rng=rng).value
    # a rank correlation lies a little below the correlation of the numbers themselves
    assert found == pytest.approx(floor.best_correlation, abs=0.04)
    assert floor.seed_to_seed == pytest.approx(floor.best_correlation**2, abs=0.06)


def test_a_constant_prediction_counts_as_nothing_and_is_counted() -> None:
    subsets = random_subsets(10, 8, share=0.5, seed=0)
    scores = np.ones((10, 2))
    scores[:, 1] = np.arange(10)
    losses = -(subsets @ scores) - np.arange(8)[:, None] * 1e-9
    found = lds(scores, subsets, losses, rng=np.random.default_rng(0))
    assert found.per_query[0] == 0.0
    assert found.n_constant == 1


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
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="3 subsets or more, got 2"):
        lds(np.zeros((5, 2)), subsets[:2], np.zeros((2, 2)), rng=rng)
    with pytest.raises(ValueError, match="finite"):
        lds(np.full((5, 2), np.nan), subsets, np.zeros((4, 2)), rng=rng)
    with pytest.raises(ValueError, match="repeated"):
        noise_floor(np.zeros((4, 2)), np.zeros((0, 2)), np.zeros((0, 2)))
