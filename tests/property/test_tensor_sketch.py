"""The tensor sketch over the draw of its tables, and its fast path against its plain one."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rise_ops.sketch import TableSizes, draw_count_sketch
from rise_ops.tensor_sketch import _Bags, draw_tensor_tables, fast_size


def _sketch(tables, factors: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Sketch sums of outer products, one a row, through the frequency domain."""
    left, right = tables.sketches["projected_hidden"]
    u, v = (torch.stack(part) for part in zip(*factors, strict=True))
    spectra = torch.fft.rfft(left.apply(u)) * torch.fft.rfft(right.apply(v))
    return torch.fft.irfft(spectra.sum(1), n=left.dim)


def _leading_variance(x: np.ndarray, y: np.ndarray) -> float:
    """D times the variance of <TX, TY>, up to a term of order 1 / D.

    Pairs of entries that differ in row and column meet in one bucket with probability 1 / D, and so
    do pairs in one row, or in one column; each kind keeps the terms whose signs cancel.
    """

    def off_diagonal(c: np.ndarray) -> float:
        c = c - np.diag(np.diag(c))
        return float(np.sum(c * c + c * c.T))

    xy = x * y
    both = np.sum(x * x) * np.sum(y * y) + np.sum(xy) ** 2
    same_row = np.sum(np.sum(x * x, 1) * np.sum(y * y, 1)) + np.sum(np.sum(xy, 1) ** 2)
    same_column = np.sum(np.sum(x * x, 0) * np.sum(y * y, 0)) + np.sum(np.sum(xy, 0) ** 2)
    different = both - same_row - same_column + 2 * np.sum(xy * xy)
    return float(different) + off_diagonal(x.T @ y) + off_diagonal(x @ y.T)


def test_inner_products_are_unbiased_with_the_stated_variance():
    g = torch.Generator().manual_seed(0)
    n_left, n_right, dim, n_draws = 24, 18, 64, 3000
    u = torch.randn(3, n_left, generator=g)
    v = torch.randn(3, n_right, generator=g)
    x = [(u[0], v[0]), (u[1], v[1])]
    y = [(u[0] + 0.5 * u[2], v[0]), (u[2], v[2])]
    estimates = []
    for seed in range(n_draws):
        tables = draw_tensor_tables(
            TableSizes(1, n_right, n_left), {"projected_hidden": dim}, seed=seed
        )
        pair = [list(zip(*part, strict=True)) for part in (x, y)]
        first, second = _sketch(tables, [(torch.stack(p[0]), torch.stack(p[1])) for p in pair])
        estimates.append(float(first @ second))
    whole = [sum(torch.outer(a, b) for a, b in part).double().numpy() for part in (x, y)]
    exact = float(np.sum(whole[0] * whole[1]))
    bound = 8 * float(np.sum(whole[0] ** 2) * np.sum(whole[1] ** 2)) / dim
    variance = _leading_variance(*whole) / dim
    assert variance < bound
    assert abs(np.mean(estimates) - exact) < 5 * (variance / n_draws) ** 0.5
    assert np.var(estimates) < bound
    # the leading term is nearly all of it, so the bound is not met by accident
    assert abs(np.var(estimates) / variance - 1) < 0.15


def test_it_beats_a_separable_sketch_of_as_many_numbers():
    # the reason to have it: error on a rank-one pair about sqrt(1 / D), not sqrt(2 / sqrt(D))
    g = torch.Generator().manual_seed(1)
    u, x = torch.randn(40, generator=g), torch.randn(30, generator=g)
    # two positions with like residuals and like hidden states: what attribution looks for
    v, y = u + 0.5 * torch.randn(40, generator=g), x + 0.5 * torch.randn(30, generator=g)
    exact = float((u @ v) * (x @ y))
    tensor, separable = [], []
    for seed in range(300):
        tables = draw_tensor_tables(TableSizes(1, 30, 40), {"projected_hidden": 256}, seed=seed)
        first, second = _sketch(tables, [(u[None], x[None]), (v[None], y[None])])
        tensor.append(float(first @ second) - exact)
        left = draw_count_sketch(40, dim=16, seed=seed, stream=0)
        right = draw_count_sketch(30, dim=16, seed=seed, stream=1)
        separable.append(
            float((left.apply(u) @ left.apply(v)) * (right.apply(x) @ right.apply(y))) - exact
        )
    assert np.std(tensor) < 0.5 * np.std(separable)


@given(
    n=st.integers(1, 40), dim=st.integers(1, 90), rows=st.integers(0, 4), seed=st.integers(0, 99)
)
@settings(max_examples=60, deadline=None)
def test_bags_equal_the_matrix(n, dim, rows, seed):
    sketch = draw_count_sketch(n, dim=dim, seed=seed, stream=0)
    x = torch.randn(rows, n, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(_Bags.of(sketch).apply(x), sketch.apply(x), atol=1e-5, rtol=0)


@given(n=st.integers(1, 100_000))
@settings(max_examples=100, deadline=None)
def test_fast_sizes_are_the_next_without_large_primes(n):
    found = fast_size(n)
    assert found >= n
    for candidate in range(n, found + 1):
        rest = candidate
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        assert (rest == 1) == (candidate == found)
