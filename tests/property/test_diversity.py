"""Diversity rules against literal ones."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rise_ops.diversity import FacilityLocation, MarginalRelevance, all_cosines, relevance


def candidates(seed, n, n_numbers=6):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n, n_numbers))
    vectors[n // 2 :] = vectors[rng.integers(0, max(1, n // 2), n - n // 2)]  # ties and copies
    vectors += 0.05 * rng.standard_normal(vectors.shape) * (rng.random((n, 1)) < 0.5)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    values = np.sort(rng.integers(0, 6, n) / 4).astype(np.float32)[::-1].copy()
    return relevance(values), all_cosines(vectors.astype(np.float16))


def objective(rows, worth, cosines, weight, scale):
    rows = list(rows)
    covered = np.maximum(cosines[rows].max(axis=0), 0) if rows else np.zeros(len(worth))
    return (1 - weight) * worth[rows].sum() / scale + weight * covered.mean(dtype=np.float64)


seeds = st.integers(0, 2**32 - 1)
weights = st.sampled_from([0.0, 0.3, 0.7, 1.0])


@settings(max_examples=50, deadline=None)
@given(seeds, st.integers(1, 25), weights, st.sets(st.integers(0, 24)))
def test_marginal_relevance_equals_the_definition(seed, n, weight, dropped):
    worth, cosines = candidates(seed, n)
    ranker = MarginalRelevance(worth, cosines, weight=weight)
    taken: list[int] = []
    left = list(range(n))
    while left:

        def score(row):
            likeness = max((float(cosines[one, row]) for one in taken), default=0.0)
            return (1 - weight) * worth[row] - weight * likeness

        literal = max(left, key=lambda row: (score(row), -row))
        assert ranker.best() == literal
        left.remove(literal)
        if literal in dropped:
            ranker.drop(literal)
        else:
            ranker.take(literal)
            taken.append(literal)
    assert ranker.best() is None


@settings(max_examples=50, deadline=None)
@given(seeds, st.integers(1, 25), weights, st.sets(st.integers(0, 24)))
def test_lazy_greedy_equals_naive_greedy(seed, n, weight, dropped):
    worth, cosines = candidates(seed, n)
    lazy = FacilityLocation(worth, cosines, weight=weight, scale=2.0)
    naive = FacilityLocation(worth, cosines, weight=weight, scale=2.0)
    left = list(range(n))
    while left:
        literal = max(left, key=lambda row: (naive.gain(row), -row))
        assert lazy.best() == literal
        left.remove(literal)
        if literal in dropped:
            lazy.drop(literal)
        else:
            lazy.take(literal)
            naive.take(literal)
    assert lazy.best() is None
    taken = [row for row in range(n) if row not in dropped]
    assert lazy.objective == pytest.approx(objective(taken, worth, cosines, weight, 2.0), abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(2, 9), weights, st.integers(1, 4), st.integers(3, 20))
def test_greedy_reaches_its_share_of_the_best_and_no_set_exceeds_the_bound(
    seed, n, weight, k, max_tokens
):
    worth, cosines = candidates(seed, n)
    tokens = np.random.default_rng(seed).integers(1, 9, n)
    ranker = FacilityLocation(worth, cosines, weight=weight, scale=2.0)
    for _ in range(min(k, n)):
        ranker.take(ranker.best())
    everything = np.ones(n, bool)
    sets = [s for size in range(n + 1) for s in itertools.combinations(range(n), size)]
    value = {s: objective(s, worth, cosines, weight, 2.0) for s in sets}
    best = max(value[s] for s in sets if len(s) <= k)
    bound = ranker.upper_bound(everything, tokens, max_rows=k, max_tokens=None)
    assert ranker.objective >= (1 - np.exp(-1)) * best - 1e-6
    assert best <= bound + 1e-6
    fitting = max(value[s] for s in sets if tokens[list(s)].sum() <= max_tokens)
    by_budget = ranker.upper_bound(everything, tokens, max_rows=None, max_tokens=max_tokens)
    assert fitting <= by_budget + 1e-6


def test_lazy_greedy_computes_few_gains():
    worth, cosines = candidates(0, 400, n_numbers=32)
    ranker = FacilityLocation(worth, cosines, weight=0.5, scale=10.0)
    for _ in range(50):
        ranker.take(ranker.best())
    assert ranker.n_evaluations < 400 + 50 * 200  # naive: about 400 + 50 * 375
