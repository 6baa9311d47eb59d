import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rise_ops.null_scores import NullScores
from tasks.null_rows import NULL_ROWS, NULL_SPANS, SPAN_ROWS, calibrated, null_positions


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=40), st.lists(st.integers(-7, 7)))
def test_percentile_and_z_equal_their_definitions(sample, asked):
    null = NullScores.of(np.array(sample, np.float32))
    scores = np.array(asked, np.float32)
    below = [sum(s < a for s in sample) + sum(s == a for s in sample) / 2 for a in asked]
    assert null.percentile(scores).tolist() == pytest.approx([100 * b / len(sample) for b in below])
    mad = 1.4826 * np.median(np.abs(np.array(sample) - np.median(sample)))
    if mad > 0:
        assert null.z(scores).tolist() == pytest.approx(
            [(a - np.median(sample)) / mad for a in asked]
        )
    if len(set(sample)) == 1:
        assert not null.z(scores).any()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300))
def test_chance_falls_and_false_discovery_never_falls_down_the_list(seed, n):
    rng = np.random.default_rng(seed)
    null = NullScores.of(rng.integers(-9, 9, n).astype(np.float32) / 2)
    scores = np.sort(rng.normal(0, 5, 50).astype(np.float32))[::-1]
    chance = null.chance(scores)
    assert ((chance >= 0) & (chance <= 1)).all()
    assert (np.diff(chance) >= -1e-12).all()
    shares = null.false_discovery(scores, np.arange(1, 51), n_rows=1000)
    assert ((shares >= 0) & (shares <= 1)).all()
    assert (np.diff(shares) >= 0).all()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1])
@pytest.mark.parametrize("draw", ["normal", "laplace"])
def test_false_discovery_of_planted_mixtures(share, draw):
    """Of many mixtures, the mean true share of false rows stays below the share asked for."""
    n_rows, asked = 20_000, 0.1
    false, n_found = [], []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        scores = getattr(rng, draw)(0.2, 1.0, n_rows).astype(np.float32)
        is_true = rng.random(n_rows) < share
        scores[is_true] += rng.normal(12.0, 1.0, is_true.sum())
        # the null is a sample of the mixture itself, planted rows included
        null = NullScores.of(scores[rng.permutation(n_rows)[:2048]])
        order = np.argsort(-scores)
        shares = null.false_discovery(scores[order], np.arange(1, n_rows + 1), n_rows=n_rows)
        found = order[shares <= asked]
        n_found.append(len(found))
        false.append((~is_true[found]).mean() if len(found) else 0.0)
    if share:
        assert np.mean(false) <= asked * 1.25
        assert np.mean(n_found) > 0.8 * share * n_rows
    else:
        # nothing is there to be found: in most draws nothing is
        assert np.mean([n > 0 for n in n_found]) <= 0.3


def test_the_null_is_not_moved_by_rows_that_matter():
    rng = np.random.default_rng(0)
    plain = rng.normal(0, 1, 4000).astype(np.float32)
    mixed = np.concatenate([plain, rng.normal(9, 1, 200).astype(np.float32)])
    score = np.array([4.0], np.float32)
    ratio = NullScores.of(mixed).chance(score) / NullScores.of(plain).chance(score)
    assert 0.3 < ratio[0] < 3.0


def test_the_sample_is_of_rows_with_positions_and_the_same_each_time():
    n_positions = np.ones(3 * NULL_ROWS, np.int32)
    n_positions[::3] = 0
    rows = null_positions(n_positions)
    assert len(rows) == len(set(rows.tolist())) == NULL_ROWS
    assert (n_positions[rows] > 0).all()
    assert (np.diff(rows) > 0).all()
    assert rows.tolist() == null_positions(n_positions).tolist()
    assert rows.tolist() != null_positions(n_positions, seed=1).tolist()
    assert null_positions(n_positions[:10]).tolist() == [1, 2, 4, 5, 7, 8]
    assert abs(rows.mean() / len(n_positions) - 0.5) < 0.03


def test_the_sample_of_a_large_index_lies_in_few_spans():
    rows = null_positions(np.ones(SPAN_ROWS * (NULL_SPANS + 40), np.int32))
    assert len(rows) == NULL_ROWS
    assert len(np.unique(rows // SPAN_ROWS)) == NULL_SPANS


def test_every_query_has_a_null_of_its_own():
    scores = np.array([[3.0, 1.0], [3.0, 1.0]], np.float32)
    nulls = np.stack([np.arange(-4, 5), 10.0 * np.arange(-4, 5)]).astype(np.float32)
    columns = calibrated(scores, nulls, n_rows=9)
    assert columns["percentile"][0, 0] > columns["percentile"][1, 0] > 50
    assert columns["z"][0, 0] == pytest.approx(10 * columns["z"][1, 0])
    assert (columns["false_discovery"][1] >= columns["false_discovery"][0]).all()
