import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rise_ops.sketch import draw_count_sketch


@given(
    n=st.integers(1, 60),
    dim=st.integers(1, 20),
    seed=st.integers(0, 2**64 - 1),
    factor=st.floats(-3, 3),
)
@settings(max_examples=60, deadline=None)
def test_sketch_is_linear(n, dim, seed, factor):
    sketch = draw_count_sketch(n, dim=dim, seed=seed, stream=1)
    g = torch.Generator().manual_seed(seed % 2**31)
    x, y = torch.randn(2, n, generator=g)
    together = sketch.apply(x + factor * y)
    torch.testing.assert_close(
        together, sketch.apply(x) + factor * sketch.apply(y), atol=1e-4, rtol=0
    )


@given(n=st.integers(1, 60), dim=st.integers(1, 20), seed=st.integers(0, 1000), data=st.data())
@settings(max_examples=60, deadline=None)
def test_sparse_and_dense_sketches_agree(n, dim, seed, data):
    sketch = draw_count_sketch(n, dim=dim, seed=seed, stream=0)
    tokens = torch.tensor(data.draw(st.lists(st.integers(0, n - 1), unique=True, min_size=1)))
    values = torch.randn(len(tokens), generator=torch.Generator().manual_seed(seed))
    dense = torch.zeros(n).index_put((tokens,), values)
    found = sketch.apply_sparse(tokens[None], values[None])[0]
    torch.testing.assert_close(found, sketch.apply(dense), atol=1e-5, rtol=0)


def test_inner_products_are_unbiased_within_five_standard_errors():
    n, dim, n_draws = 200, 16, 4000
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, generator=g)
    y = 0.5 * x + torch.randn(n, generator=g)
    pair = torch.stack([x, y])
    estimates = []
    for seed in range(n_draws):
        first, second = draw_count_sketch(n, dim=dim, seed=seed, stream=0).apply(pair)
        estimates.append(float(first @ second))
    exact = float(x @ y)
    # Var <Sx, Sy> = (|x|^2 |y|^2 + <x, y>^2 - 2 sum x_i^2 y_i^2) / dim
    variance = float(x @ x * (y @ y) + exact**2 - 2 * (x * x) @ (y * y)) / dim
    assert abs(np.mean(estimates) - exact) < 5 * (variance / n_draws) ** 0.5
    # the estimate's own spread is the stated one, so the bound above is not a loose one
    assert abs(np.var(estimates) / variance - 1) < 0.15


def test_buckets_and_signs_are_uniform():
    n, dim = 200_000, 10
    sketch = draw_count_sketch(n, dim=dim, seed=1, stream=2)
    counts = torch.bincount(sketch.buckets, minlength=dim)
    # 5 standard deviations of a binomial count
    assert (counts - n / dim).abs().max() < 5 * (n * 0.1 * 0.9) ** 0.5
    assert abs(float(sketch.signs.sum())) < 5 * n**0.5
    by_bucket = torch.zeros(dim).index_add(0, sketch.buckets, sketch.signs)
    assert by_bucket.abs().max() < 5 * (n / dim) ** 0.5
