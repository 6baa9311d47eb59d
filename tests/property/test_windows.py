"""Windows to rows: sums in a fixed order, equal to plain ones."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rise_ops.windows import WindowLayout, add_rows


@given(rows=st.lists(st.integers(0, 5), max_size=12), seed=st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_rows_are_added_in_the_order_of_their_vectors(rows, seed):
    vectors = torch.randn(len(rows), 3, generator=torch.Generator().manual_seed(seed))
    start = torch.randn(6, 3, generator=torch.Generator().manual_seed(seed + 1))
    found = start.clone()
    add_rows(found, vectors, torch.tensor(rows, dtype=torch.long))
    for row in range(6):
        total = torch.zeros(3)
        for vector, of in zip(vectors, rows, strict=True):
            total = total + vector if of == row else total
        # to the bit: the order of additions is part of the contract
        assert torch.equal(found[row], start[row] + total)


def test_a_broken_vector_stays_in_its_row():
    sums = torch.zeros(3, 2)
    vectors = torch.tensor([[torch.nan, 1.0], [2.0, 3.0], [4.0, 5.0]])
    add_rows(sums, vectors, torch.tensor([2, 0, 0]))
    assert torch.equal(sums[:2], torch.tensor([[6.0, 8.0], [0.0, 0.0]]))
    assert sums[2, 0].isnan()


@given(lengths=st.lists(st.integers(0, 5), min_size=1, max_size=6), spare=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_padded_positions_keep_their_window_and_order(lengths, spare):
    index = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    vectors = torch.arange(1, 2 * sum(lengths) + 1).reshape(-1, 2)
    layout = WindowLayout.of(index, len(lengths), max_positions=max(lengths) + spare)
    padded = layout.padded(vectors)
    for window, length in enumerate(lengths):
        assert torch.equal(padded[window, :length], vectors[index == window])
        assert not padded[window, length:].any()
    assert WindowLayout.of(index, len(lengths)).n_places == max(lengths)
