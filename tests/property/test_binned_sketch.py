"""Properties of the shuffles and of the count sketch with equal bins."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rise_ops.baselines import count_sketch
from rise_ops.baselines.count_sketch import BinnedSketch, ShuffleKind
from rise_ops.baselines.shuffles import HashShuffle, PublishedShuffle, hash_signs, prime_factors

SHUFFLES = (HashShuffle, PublishedShuffle)
KINDS: tuple[ShuffleKind, ...] = ("uniform", "published")
SEEDS = st.integers(0, 2**32 - 1)


@given(n=st.integers(1, 3000), seed=SEEDS, kind=st.sampled_from(SHUFFLES))
@settings(max_examples=60, deadline=None)
def test_a_shuffle_is_a_bijection_and_needs_no_table(n, seed, kind):
    shuffle = kind(n, seed)
    sources = shuffle.sources(torch.arange(n))
    assert sources.sort().values.tolist() == list(range(n))
    some = torch.arange(n - 1, -1, -3)
    assert torch.equal(shuffle.sources(some), sources[some])


def test_a_large_shuffle_stays_within_its_bounds_and_is_no_identity():
    n = 10**10 + 7
    places = torch.arange(0, n, n // 500)
    sources = HashShuffle(n, 3).sources(places)
    assert bool(((sources >= 0) & (sources < n)).all())
    assert len(set(sources.tolist())) == len(places)
    assert abs(float(sources.double().mean()) / n - 0.5) < 0.08
    assert not torch.equal(sources, HashShuffle(n, 4).sources(places))


def test_signs_are_fair_and_follow_the_seed():
    coordinates = torch.arange(20_000)
    signs = hash_signs(coordinates, seed=1)
    assert set(signs.tolist()) == {1, -1}
    assert abs(float(signs.double().mean())) < 4 / math.sqrt(len(signs))
    neighbours = float((signs[1:] * signs[:-1]).double().mean())
    assert abs(neighbours) < 4 / math.sqrt(len(signs))
    assert not torch.equal(signs, hash_signs(coordinates, seed=2))
    # also beyond 32 bits
    assert not torch.equal(signs, hash_signs(coordinates + 2**32, seed=1))


@given(st.integers(1, 10**6))
@settings(max_examples=50, deadline=None)
def test_prime_factors_multiply_to_the_number(number):
    factors = prime_factors(number)
    assert math.prod(factors) == number
    assert all(factor % d for factor in factors for d in range(2, math.isqrt(factor) + 1))


def test_a_number_below_one_has_no_prime_factors():
    with pytest.raises(ValueError, match="got 0"):
        prime_factors(0)


@given(n=st.integers(1, 500), dim=st.integers(1, 80), seed=SEEDS, kind=st.sampled_from(KINDS))
@settings(max_examples=60, deadline=None)
def test_it_is_linear_and_puts_every_coordinate_into_one_full_bin(n, dim, seed, kind):
    sketch = BinnedSketch(n, dim=dim, kind=kind, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, n, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(
        sketch.apply(3 * x - y), 3 * sketch.apply(x) - sketch.apply(y), rtol=0, atol=1e-9
    )
    matrix = torch.stack([sketch.apply(unit) for unit in torch.eye(n)])
    assert matrix.abs().sum(1).tolist() == [1.0] * n
    assert float(matrix.abs().sum(0).max()) <= math.ceil(n / dim)


@given(n=st.integers(1, 300), more=st.integers(0, 20), seed=SEEDS, kind=st.sampled_from(KINDS))
@settings(max_examples=30, deadline=None)
def test_with_as_many_numbers_as_coordinates_it_is_an_isometry(n, more, seed, kind):
    sketch = BinnedSketch(n, dim=n + more, kind=kind, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, n, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(sketch.apply(x) @ sketch.apply(y), x @ y)


@given(n=st.integers(1, 5000), dim=st.integers(1, 90), seed=SEEDS, kind=st.sampled_from(KINDS))
@settings(max_examples=40, deadline=None)
def test_adding_to_bins_and_fetching_for_them_are_one_sketch(n, dim, seed, kind):
    sketch = BinnedSketch(n, dim=dim, kind=kind, seed=seed)
    vector = torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    added, fetched = sketch.apply(vector), sketch._fetched(vector)
    torch.testing.assert_close(added, fetched, rtol=0, atol=1e-12)
    assert torch.equal(added, sketch.apply(vector))
    assert sketch.apply(vector.float()).dtype == torch.float32


def test_a_long_vector_is_added_slice_by_slice(monkeypatch):
    vector = torch.randn(10_007, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    whole = BinnedSketch(10_007, dim=64, kind="uniform", seed=1).apply(vector)
    monkeypatch.setattr(count_sketch, "SLICE_COORDINATES", 1000)
    monkeypatch.setattr(count_sketch, "SLICE_PLACES", 2000)
    parts = BinnedSketch(10_007, dim=64, kind="uniform", seed=1).apply(vector)
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_inner_products_are_unbiased_over_seeds(kind):
    products, x, y = _products(kind, n=57, dim=12, n_seeds=1500)
    error = products.std(ddof=1) / math.sqrt(len(products))
    assert abs(products.mean() - x @ y) < 4 * error


def test_the_variance_is_that_of_a_uniform_permutation():
    products, x, y = _products("uniform", n=60, dim=12, n_seeds=1500)
    # two coordinates share a bin of 5 with probability 4/59
    meeting = 4 / 59
    squares = (x @ x) * (y @ y) + (x @ y) ** 2 - 2 * (x**2 @ y**2)
    assert products.var() == pytest.approx(meeting * squares, rel=0.15)


def test_the_published_shuffle_keeps_a_row_of_its_matrix_together():
    n, dim = 2**16, 2**10
    shuffle = PublishedShuffle(n, seed=5)
    assert shuffle.shape == (256, 256)
    bins = shuffle.sources(torch.arange(n)).view(dim, n // dim)
    assert bool((bins // 256 == bins[:, :1] // 256).all())
    # so a gradient whose weight lies in one stretch is compressed worse
    block = torch.zeros(n)
    block[512:768] = torch.randn(256, generator=torch.Generator().manual_seed(0))
    errors = {
        kind: np.std(
            [
                float(BinnedSketch(n, dim=dim, kind=kind, seed=seed).apply(block).square().sum())
                for seed in range(20)
            ]
        )
        for kind in KINDS
    }
    assert errors["published"] > 3 * errors["uniform"]


@pytest.mark.parametrize(("n", "dim"), [(0, 3), (3, 0)])
def test_sizes_below_one_are_refused(n, dim):
    with pytest.raises(ValueError, match="must be 1 or more"):
        BinnedSketch(n, dim=dim, kind="uniform", seed=0)


def test_a_vector_of_another_length_is_refused():
    sketch = BinnedSketch(5, dim=2, kind="uniform", seed=0)
    with pytest.raises(ValueError, match="for 5 numbers, got 4"):
        sketch.apply(torch.zeros(4))


def _products(kind, *, n, dim, n_seeds):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, n))
    x[:5] *= 4
    y[:7] += 2
    rows = torch.from_numpy(np.stack([x, y]))
    sketches = (BinnedSketch(n, dim=dim, kind=kind, seed=seed) for seed in range(n_seeds))
    products = [float(sketch.apply(rows[0]) @ sketch.apply(rows[1])) for sketch in sketches]
    return np.array(products), x, y
