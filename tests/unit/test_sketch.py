import numpy as np
import pytest
import torch

from rise_ops.sketch import (
    SketchTables,
    TableSizes,
    draw_count_sketch,
    draw_tables,
    identity_sketch,
)


def test_a_seed_gives_these_tables_forever():
    # a changed table would silently move every index drawn from a seed
    sketch = draw_count_sketch(8, dim=10, seed=123, stream=4)
    assert sketch.buckets.tolist() == [1, 6, 7, 2, 4, 6, 1, 0]
    assert sketch.signs.tolist() == [1, -1, 1, 1, 1, -1, -1, 1]


def test_streams_and_seeds_are_independent():
    draws = [
        draw_count_sketch(64, dim=1000, seed=seed, stream=stream)
        for seed, stream in [(0, 0), (0, 1), (1, 0), (2**64 - 1, 0)]
    ]
    for i, first in enumerate(draws):
        for second in draws[i + 1 :]:
            assert (first.buckets == second.buckets).sum() < 5


def test_identity_changes_nothing():
    x = torch.randn(3, 7)
    assert torch.equal(identity_sketch(7).apply(x), x)


def test_tables_survive_as_arrays():
    tables = draw_tables(TableSizes(11, 7, 5), TableSizes(6, 4, 3), seed=9)
    arrays = tables.to_arrays()
    assert {a.dtype for a in arrays.values()} == {np.dtype("int32"), np.dtype("int8")}
    again = SketchTables.from_arrays(arrays)
    for name in ("residual", "hidden", "projected"):
        first, second = getattr(tables, name), getattr(again, name)
        assert torch.equal(first.buckets, second.buckets)
        assert torch.equal(first.signs, second.signs)
        assert first.dim == second.dim


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_signs": None}, r"lack \['hidden_signs'\]"),
        ({"hidden_buckets": np.array([0, 1, 9], np.int32)}, r"buckets in \[0, 4\)"),
        ({"hidden_signs": np.array([1, 0, 1], np.int8)}, "signs of"),
        ({"hidden_dim": np.array(4, np.int32)}, r"dim \[1\]"),
        ({"hidden_signs": np.ones(2, np.int8)}, r"got \(3,\), \(2,\)"),
    ],
)
def test_damaged_tables_are_refused(change, message):
    arrays = draw_tables(TableSizes(5, 3, 2), TableSizes(4, 4, 4), seed=0).to_arrays() | change
    arrays = {name: array for name, array in arrays.items() if array is not None}
    with pytest.raises(ValueError, match=message):
        SketchTables.from_arrays(arrays)


@pytest.mark.parametrize(("n", "dim"), [(0, 4), (4, 0), (4, 2**31)])
def test_impossible_sizes_are_refused(n, dim):
    with pytest.raises(ValueError, match=f"n={n} and dim={dim}"):
        draw_count_sketch(n, dim=dim, seed=0, stream=0)
