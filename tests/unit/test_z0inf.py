"""Z0-Inf against its sum written out, on weights that are known."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from rise_ops.baselines.z0inf import (
    centred,
    curve_agreement,
    move_products,
    neighbours_of,
    self_influence,
    step_products,
    z0inf_signatures,
)

T, N, M, WEIGHTS = 5, 7, 4, 11
RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(T, WEIGHTS))
ROWS = RNG.normal(size=(T, N))
QUERIES = RNG.normal(size=(T, M))


def _by_loops(rows, queries, weight, neighbours):
    """The formula, one number at a time."""
    total = np.zeros((rows.shape[1], queries.shape[1]))
    n_checkpoints = len(weight)
    for e in range(n_checkpoints):
        for j in neighbours[e]:
            for k in neighbours[e]:
                one, other = weight[e] - weight[j], weight[e] - weight[k]
                c = (one @ other) / ((one @ one) * (other @ other))
                for z in range(rows.shape[1]):
                    for q in range(queries.shape[1]):
                        left = rows[e, z] - rows[j, z]
                        total[z, q] += left * c * (queries[e, q] - queries[k, q])
    return total / n_checkpoints


def _products(weight=WEIGHT):
    return step_products([weight[:, :4], weight[:, 4:5], weight[:, 5:]])


@pytest.mark.parametrize("kind", ["adjacent", "last"])
def test_inner_products_of_signatures_are_the_formula(kind):
    expected = _by_loops(ROWS, QUERIES, WEIGHT, neighbours_of(T, kind))
    own, asked = (
        z0inf_signatures(losses, _products(), neighbours=kind) for losses in (ROWS, QUERIES)
    )
    np.testing.assert_allclose(own @ asked.T, expected, rtol=1e-9, atol=1e-12)
    assert own.shape == (N, sum(map(len, neighbours_of(T, kind))))


def test_neighbours_are_the_ones_beside_or_the_last_two():
    assert neighbours_of(4, "adjacent") == [[1], [0, 2], [1, 3], [2]]
    assert neighbours_of(4, "last") == [[2, 3], [2, 3], [3], [2]]
    assert neighbours_of(2, "last") == neighbours_of(2, "adjacent") == [[1], [0]]


def test_products_of_moves_are_positive_semidefinite_and_survive_large_weights():
    far = WEIGHT.astype(np.float32) * 1e-4 + np.float32(3.0)
    steps = far.astype(np.float64)
    found = _products(far)
    for own in range(T):
        others = neighbours_of(T, "adjacent")[own]
        moves = np.stack([steps[own] - steps[other] for other in others])
        lengths = (moves**2).sum(1)
        expected = moves @ moves.T / np.outer(lengths, lengths)
        gram = move_products(found, own, others)
        np.testing.assert_allclose(gram, expected, rtol=1e-6)
        assert np.linalg.eigvalsh(gram).min() > -1e-9 * np.abs(gram).max()


def test_a_loss_that_is_linear_in_one_weight_gives_the_product_of_gradients():
    weight = np.array([[0.0], [1.0], [1.5], [4.0]])
    slopes, asked = np.array([2.0, -1.0]), np.array([3.0, 0.5, 0.0])
    own, other = (
        z0inf_signatures(weight * slope, step_products([weight])) for slope in (slopes, asked)
    )
    # each checkpoint sees the product of slopes once a pair of neighbours
    pairs = np.mean([len(others) ** 2 for others in neighbours_of(4, "adjacent")])
    np.testing.assert_allclose(own @ other.T, pairs * np.outer(slopes, asked), atol=1e-9)


def test_centring_takes_a_mean_at_each_checkpoint():
    np.testing.assert_allclose(centred(QUERIES, ROWS, "own").mean(axis=1), 0, atol=1e-12)
    expected = QUERIES - ROWS.mean(axis=1)[:, None]
    np.testing.assert_array_equal(centred(QUERIES, ROWS, "rows"), expected)
    assert centred(QUERIES, ROWS, "none") is QUERIES
    with pytest.raises(ValueError, match="set centring: rows"):
        centred(QUERIES[:, :1], ROWS, "own")


def test_agreement_is_the_rank_correlation_of_curves():
    rows = ROWS.copy()
    rows[:, 2] = 1.0  # flat
    rows[3, 0] = rows[1, 0]  # a tie
    found = curve_agreement(rows, QUERIES)
    assert not found[2].any()
    for row in (0, 1, 3):
        for query in range(M):
            expected = spearmanr(rows[:, row], QUERIES[:, query]).statistic
            assert found[row, query] == pytest.approx(expected)


def test_self_influence_is_the_variance_over_checkpoints():
    np.testing.assert_allclose(self_influence(ROWS), ROWS.var(axis=0))


def test_equal_checkpoints_and_wrong_sizes_are_refused():
    weight = WEIGHT.copy()
    weight[2] = weight[1]
    with pytest.raises(ValueError, match="have the same weights"):
        z0inf_signatures(ROWS, _products(weight))
    with pytest.raises(ValueError, match=r"must be \[3, 3\], got \[4, 4\]"):
        z0inf_signatures(ROWS[:4], _products())
    with pytest.raises(ValueError, match="at least two checkpoints"):
        step_products([])
    with pytest.raises(ValueError, match="at least two checkpoints"):
        step_products([WEIGHT[:1]])
