import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rise_ops import integer_scoring
from rise_ops.codes import RowCodes, decode, encode
from rise_ops.integer_scoring import (
    MOST_NUMBERS,
    code_scores,
    integer_panel,
    integer_products,
    integer_products_are_exact,
    plain_products,
)
from rise_ops.scoring import query_panel

CODES = ["int8", "sign"]
needs_fast_product = pytest.mark.skipif(
    not integer_products_are_exact(), reason="this processor has no exact int8 product"
)


def gaussian(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def part_of(codes, rows):
    return RowCodes(codes.values[rows], codes.scales[rows])


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("n_queries", [1, 6])
def test_scores_equal_the_float64_product_of_decoded_rows(code, n_queries):
    codes = encode(gaussian(0, 300, 128), code)
    queries = gaussian(1, n_queries, 128)
    scores = code_scores(codes, integer_panel(query_panel(queries)))
    decoded = (decode(codes).astype(np.float64) / codes.scales[:, None]).round()
    exact = queries.astype(np.float64) @ decoded.T * codes.scales
    # queries are rounded to 2^-22 of their largest number
    np.testing.assert_allclose(scores[:-1], exact, rtol=3e-7, atol=2e-5)
    np.testing.assert_allclose(scores[-1], exact.mean(axis=0), rtol=3e-7, atol=2e-5)


@given(
    st.integers(1, 40),
    st.integers(1, 30),
    st.floats(-60, 60),
    st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_queries_in_integers_are_the_queries_to_22_bits(n_queries, n_numbers, exponent, seed):
    queries = gaussian(seed, n_queries, n_numbers) * np.float32(2.0**exponent)
    panel = query_panel(queries)
    integers = integer_panel(panel)
    back = integers.numbers * integers.steps[:, None]
    largest = np.abs(panel.vectors).max(axis=1, keepdims=True)
    assert (np.abs(back - panel.vectors) <= largest * 2.0**-22).all()
    low, middle, high = integers.digits.reshape(3, *panel.vectors.shape).astype(np.int64)
    assert np.array_equal(low + 256 * middle + 65536 * high, integers.numbers)


@pytest.mark.parametrize("code", CODES)
def test_a_score_has_the_same_bits_wherever_its_row_lies(code, monkeypatch):
    codes = encode(gaussian(2, 700, 352), code)
    panel = integer_panel(query_panel(gaussian(3, 9, 352)))
    whole = code_scores(codes, panel)
    for rows in (slice(0, 1), slice(13, 14), slice(5, 600), slice(699, None), slice(None, None, 3)):
        assert np.array_equal(code_scores(part_of(codes, rows), panel), whole[:, rows])
    monkeypatch.setattr(integer_scoring, "_SLICE_BYTES", 352 * 21)
    assert np.array_equal(code_scores(codes, panel), whole)


@needs_fast_product
@pytest.mark.parametrize("n_numbers", [2, 3, 8, 100, 1000])
def test_fast_and_plain_products_are_equal(n_numbers):
    rng = np.random.default_rng(n_numbers)
    panel = integer_panel(query_panel(gaussian(4, 33, n_numbers)))
    for rows in (
        rng.integers(-127, 128, (50, n_numbers)).astype(np.int8),
        np.full((3, n_numbers), 127, np.int8),
        np.full((3, n_numbers), -127, np.int8),
    ):
        assert np.array_equal(integer_products(panel, rows), plain_products(panel, rows))


@needs_fast_product
def test_the_longest_rows_do_not_overflow():
    ones = np.full((1, MOST_NUMBERS), 1.0, np.float32)
    panel = integer_panel(query_panel(np.concatenate([ones, -ones])))
    panel.digits[:] = np.where(panel.digits < 0, -128, 127)
    rows = np.full((1, MOST_NUMBERS), -127, np.int8)
    exact = panel.digits.astype(np.int64) @ rows.T.astype(np.int64)
    low, middle, high = exact.reshape(3, -1, 1)
    expected = low + 256 * middle + 65536 * high
    assert np.array_equal(integer_products(panel, rows), expected)


@pytest.mark.parametrize("code", CODES)
def test_without_the_fast_product_no_bit_changes(code, monkeypatch):
    codes = encode(gaussian(5, 90, 64), code)
    panel = integer_panel(query_panel(gaussian(6, 4, 64)))
    usual = code_scores(codes, panel)
    monkeypatch.setattr(integer_scoring, "integer_products_are_exact", lambda: False)
    assert np.array_equal(code_scores(codes, panel), usual)


def test_a_product_that_saturates_is_not_used(monkeypatch):
    def saturating(left, right):
        sums = left.long() @ right.long()
        return sums.clamp(-(2**15), 2**15 - 1).int()

    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    monkeypatch.setattr(torch, "_int_mm", saturating)
    assert not integer_products_are_exact.__wrapped__()
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    assert not integer_products_are_exact.__wrapped__()


@pytest.mark.parametrize("code", CODES)
def test_scores_are_linear_in_the_query(code):
    codes = encode(gaussian(7, 40, 64), code)
    queries = gaussian(8, 8, 64)
    scores = code_scores(codes, integer_panel(query_panel(queries)))
    np.testing.assert_allclose(scores[-1], scores[:-1].mean(axis=0), atol=1e-5)


@pytest.mark.parametrize("code", CODES)
def test_rows_of_zeros_score_zero(code):
    rows = gaussian(9, 4, 16)
    rows[2] = 0.0
    scores = code_scores(encode(rows, code), integer_panel(query_panel(gaussian(1, 3, 16))))
    assert not scores[:, 2].any()
    assert scores[:, [0, 1, 3]].all()


def test_rows_of_one_number():
    rows, queries = gaussian(0, 30, 1), gaussian(1, 3, 1)
    scores = code_scores(encode(rows, "int8"), integer_panel(query_panel(queries)))
    np.testing.assert_allclose(scores[:-1], queries @ rows.T, rtol=1e-6)


def test_arrays_that_cannot_be_written_to_are_scored():
    codes, panel = (
        encode(gaussian(0, 5, 16), "int8"),
        integer_panel(query_panel(gaussian(1, 2, 16))),
    )
    for array in (codes.values, codes.scales, panel.digits, panel.numbers, panel.steps):
        array.flags.writeable = False
    assert code_scores(codes, panel).shape == (3, 5)


def test_what_does_not_fit_is_refused():
    panel = integer_panel(query_panel(gaussian(0, 2, 16)))
    with pytest.raises(ValueError, match="rows of 16 numbers, as the queries have, got 8"):
        code_scores(encode(gaussian(0, 2, 8), "sign"), panel)
    with pytest.raises(ValueError, match="use block_scores"):
        code_scores(encode(gaussian(0, 2, 16), "float16"), panel)
    codes = encode(gaussian(0, 3, 16), "int8")
    codes.scales[1] = np.inf
    with pytest.raises(ValueError, match="row 1 of the block has a scale that is not finite"):
        code_scores(codes, panel)
