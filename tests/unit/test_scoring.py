import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rise_ops.scoring import (
    NO_ROW,
    SLICE_ROWS,
    block_scores,
    merge_keys,
    onednn_products,
    plain_products,
    query_panel,
    ranks_of,
    scores_in_place,
    sort_keys,
    split_keys,
    top_keys,
)


def brute_force(scores, ranks, eligible, top_k):
    """Sort every query's eligible rows in plain Python: highest score, then smallest rank."""
    return [
        sorted((-float(s), int(r)) for s, r, ok in zip(line, ranks, eligible, strict=True) if ok)[
            :top_k
        ]
        for line in scores
    ]


def as_pairs(keys):
    lines = []
    for line in keys:
        ranks, scores = split_keys(line[line != NO_ROW])
        lines.append([(-float(s), int(r)) for s, r in zip(scores, ranks, strict=True)])
    return lines


@pytest.mark.parametrize("n_rows", [1, SLICE_ROWS - 1, SLICE_ROWS, 3 * SLICE_ROWS + 7])
@pytest.mark.parametrize("n_queries", [1, 5])
def test_scores_equal_a_float64_product(n_rows, n_queries):
    rng = np.random.default_rng(n_rows)
    block = rng.standard_normal((n_rows, 96)).astype(np.float16)
    queries = rng.standard_normal((n_queries, 96)).astype(np.float32)
    scores = block_scores(block, query_panel(queries))
    exact = queries.astype(np.float64) @ block.astype(np.float64).T
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores[:-1], exact, atol=2e-4, rtol=0)
    np.testing.assert_allclose(scores[-1], exact.mean(axis=0), atol=2e-4, rtol=0)


@pytest.mark.parametrize("n_vectors", [2, 3, 101])
@pytest.mark.parametrize("n_numbers", [1, 7, 96, 2048])
def test_onednn_and_blas_products_are_equal_up_to_rounding(n_vectors, n_numbers):
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    rng = np.random.default_rng(n_numbers)
    vectors = torch.from_numpy(rng.standard_normal((n_vectors, n_numbers), dtype=np.float32))
    rows = torch.from_numpy(rng.standard_normal((SLICE_ROWS, n_numbers), dtype=np.float32))
    exact = vectors.double() @ rows.double().T
    bound = 2.0**-23 * n_numbers * (vectors.abs().double() @ rows.abs().double().T)
    for products in (onednn_products, plain_products):
        found = products(vectors, rows)
        assert found.shape == exact.shape
        assert ((found.double() - exact).abs() <= bound).all()


def test_without_onednn_the_same_rows_are_best(monkeypatch):
    rng = np.random.default_rng(5)
    block = (rng.integers(-3, 4, (3 * SLICE_ROWS + 5, 40)) / 8).astype(np.float16)
    panel = query_panel((rng.integers(-3, 4, (4, 40)) / 8).astype(np.float32))
    found = []
    for answer in (True, False):
        monkeypatch.setattr("rise_ops.scoring._onednn_is_faster", lambda answer=answer: answer)
        found.append(block_scores(block, panel))
    assert np.array_equal(found[0], found[1])  # sums of eighths are exact


def test_rows_that_cannot_be_written_to_are_scored():
    block = np.ones((3, 8), np.float16)
    panel = query_panel(np.ones((2, 8), np.float32))
    block.flags.writeable = panel.vectors.flags.writeable = False
    assert np.array_equal(block_scores(block, panel), np.full((3, 3), 8.0))


def test_every_finite_float16_is_widened_exactly():
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    every = every[np.isfinite(every)]
    block = every.reshape(-1, 1024)
    scores = block_scores(block[:, :1].copy(), query_panel(np.ones((1, 1), np.float32)))
    assert np.array_equal(scores[0], block[:, 0].astype(np.float32))
    unit = query_panel(np.eye(1024, dtype=np.float32))
    assert np.array_equal(block_scores(block, unit)[:-1].T, block.astype(np.float32))


def test_a_row_keeps_its_bits_when_rows_are_added_behind_it():
    rng = np.random.default_rng(3)
    block = rng.standard_normal((2 * SLICE_ROWS, 333)).astype(np.float16)
    panel = query_panel(rng.standard_normal((7, 333)).astype(np.float32))
    whole = block_scores(block, panel)
    for n_rows in (1, 2, SLICE_ROWS - 1, SLICE_ROWS + 1, SLICE_ROWS + 50):
        assert np.array_equal(block_scores(block[:n_rows], panel), whole[:, :n_rows])


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_a_few_rows_have_the_bits_that_they_have_in_the_block(data):
    n_rows = data.draw(st.integers(1, 3 * SLICE_ROWS))
    places = np.array(sorted(data.draw(st.sets(st.integers(0, n_rows - 1), min_size=1))))
    rng = np.random.default_rng(n_rows)
    block = rng.standard_normal((n_rows, 77)).astype(np.float16)
    panel = query_panel(rng.standard_normal((5, 77)).astype(np.float32))
    few = scores_in_place(block[places], places, panel)
    assert np.array_equal(few, block_scores(block, panel)[:, places])


def test_a_number_that_is_not_finite_is_named_by_its_place_in_the_block():
    rows = np.ones((2, 8), np.float16)
    rows[1, 3] = np.nan
    with pytest.raises(ValueError, match="row 200 of the block"):
        scores_in_place(rows, np.array([3, 200]), query_panel(np.ones((1, 8), np.float32)))


def test_rows_can_be_eligible_for_some_queries_alone():
    scores = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]], np.float32)
    eligible = np.array([[False, True, True], [True, False, False]])
    keys = top_keys(scores, np.arange(3, dtype=np.uint32), eligible, top_k=2)
    assert as_pairs(keys) == [[(-2.0, 1), (-1.0, 2)], [(-3.0, 0)]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_named(bad):
    block = np.zeros((SLICE_ROWS + 40, 8), np.float16)
    block[SLICE_ROWS + 31, 2] = bad
    panel = query_panel(np.ones((1, 8), np.float32))
    with pytest.raises(ValueError, match=f"row {SLICE_ROWS + 31} of the block"):
        block_scores(block, panel)


def test_the_mean_is_taken_in_double_precision_and_not_normalised():
    signatures = np.array([[2.0**24, 1.0], [1.0, 0.0], [1.0, 0.0]], np.float32)
    panel = query_panel(signatures)
    expected = (signatures.astype(np.float64).sum(axis=0) / 3).astype(np.float32)
    assert np.array_equal(panel.vectors[-1], expected)
    assert panel.n_queries == 3


def test_unusable_queries_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        query_panel(np.zeros((0, 4), np.float32))
    with pytest.raises(ValueError, match="query 1"):
        query_panel(np.array([[0.0, 1.0], [np.nan, 0.0]], np.float32))


def test_queries_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"rows of 4 numbers.*\[3, 5\]"):
        block_scores(np.zeros((3, 5), np.float16), query_panel(np.ones((1, 4), np.float32)))


few_scores = st.sampled_from([-1.0, -0.5, -0.0, 0.0, 1e-45, 0.25, 1.0, 3.0e38])


@st.composite
def tied_scores(draw):
    n_queries, n_rows = draw(st.integers(1, 3)), draw(st.integers(1, 24))
    scores = draw(hnp.arrays(np.float32, (n_queries, n_rows), elements=few_scores.map(np.float32)))
    ranks = np.array(draw(st.permutations(range(n_rows))), np.uint32)
    eligible = draw(hnp.arrays(np.bool_, n_rows))
    return scores, ranks, eligible, draw(st.integers(1, 30))


@given(tied_scores())
@settings(max_examples=150, deadline=None)
def test_top_rows_equal_brute_force_with_ties(case):
    scores, ranks, eligible, top_k = case
    keys = top_keys(scores, ranks, eligible, top_k=top_k)
    assert as_pairs(keys) == brute_force(scores, ranks, eligible, top_k)


@given(tied_scores(), st.data())
@settings(max_examples=150, deadline=None)
def test_merging_is_associative_and_ignores_order(case, data):
    scores, ranks, eligible, top_k = case
    n_rows = scores.shape[1]
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, n_rows - 1)), max_size=5)) | {n_rows})
    bounds = list(itertools.pairwise([0, *[c for c in cuts if c <= n_rows]]))
    parts = [
        top_keys(scores[:, a:b], ranks[a:b], eligible[a:b], top_k=top_k) for a, b in bounds if a < b
    ]
    whole = top_keys(scores, ranks, eligible, top_k=top_k)
    shuffled = data.draw(st.permutations(parts))
    assert np.array_equal(merge_keys(shuffled, top_k=top_k), whole)
    folded = shuffled[0]
    for part in shuffled[1:]:
        folded = merge_keys([part, folded], top_k=top_k)
    assert np.array_equal(folded, whole)
    middle = len(shuffled) // 2
    if middle:
        halves = [
            merge_keys(shuffled[:middle], top_k=top_k),
            merge_keys(shuffled[middle:], top_k=top_k),
        ]
        assert np.array_equal(merge_keys(halves, top_k=top_k), whole)


@given(hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(width=32, allow_nan=False)))
@settings(deadline=None)
def test_keys_keep_every_bit_of_the_score(scores):
    ranks = np.arange(len(scores), dtype=np.uint32)
    back_ranks, back_scores = split_keys(sort_keys(scores, ranks))
    assert np.array_equal(back_ranks, ranks)
    assert np.array_equal(back_scores, scores)


def test_ranks_are_places_in_sorted_order():
    row_ids = np.array(["d", "a", "c", "b"])
    assert ranks_of(np.argsort(row_ids)).tolist() == [3, 0, 2, 1]


def test_a_missing_row_cannot_be_read_as_a_score():
    with pytest.raises(ValueError, match="no row"):
        split_keys(np.array([NO_ROW]))


def test_top_k_below_one_is_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        merge_keys([np.zeros((1, 3), np.uint64)], top_k=0)
