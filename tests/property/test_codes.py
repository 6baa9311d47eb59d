import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rise_ops.codes import (
    INT8_STEPS,
    Rotation,
    decode,
    draw_rotation,
    encode,
    rotated_numbers,
    unpacked,
)

numbers = st.floats(-1e3, 1e3, width=32, allow_subnormal=False)


@st.composite
def some_rows(draw, multiple_of=1):
    shape = (draw(st.integers(1, 5)), multiple_of * draw(st.integers(1, 12)))
    return draw(hnp.arrays(np.float32, shape, elements=numbers))


@given(some_rows())
@settings(deadline=None)
def test_int8_is_at_most_half_a_step_off(rows):
    codes = encode(rows, "int8")
    assert codes.values.min(initial=0) >= -INT8_STEPS
    error = np.abs(decode(codes).astype(np.float64) - rows)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    assert (error <= largest / 254 * (1 + 1e-5) + 1e-35).all()
    assert np.array_equal(codes.scales == 0, ~decode(codes).any(axis=1))


@given(some_rows(multiple_of=8))
@settings(deadline=None)
def test_signs_come_back_with_the_length_of_the_row(rows):
    codes = encode(rows, "sign")
    signs = unpacked(codes.values)
    assert codes.values.shape == (len(rows), rows.shape[1] // 8)
    mixed = (rows >= 0).any(axis=1)
    assert np.array_equal(signs[mixed], np.where(rows >= 0, 1, -1)[mixed])
    assert codes.values.any(axis=1).all()
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    expected = lengths * np.sqrt(np.pi / 2 / rows.shape[1])
    np.testing.assert_allclose(codes.scales, expected, rtol=1e-6, atol=1e-37)


@given(some_rows(multiple_of=8), st.sampled_from(["float16", "int8", "sign"]))
@settings(deadline=None)
def test_a_row_is_coded_for_itself(rows, code):
    together = encode(rows, code)
    for number in range(len(rows)):
        alone = encode(rows[number : number + 1], code)
        assert np.array_equal(alone.values[0], together.values[number])
        if alone.scales is not None:
            assert alone.scales[0] == together.scales[number]


@pytest.mark.parametrize("code", ["float16", "int8", "sign"])
def test_rows_of_zeros_stay_zero(code):
    codes = encode(np.zeros((3, 16), np.float32), code)
    assert not decode(codes).any()
    assert codes.scales is None or not codes.scales.any()


def test_a_row_without_a_positive_number_keeps_one_bit():
    codes = encode(np.array([[-3, -1, -2, -4, -5, -6, -7, -8]], np.float32), "sign")
    assert codes.values.tolist() == [[0b0100_0000]]


def test_signs_estimate_inner_products_of_gaussian_rows_without_bias():
    rng = np.random.default_rng(5)
    n_rows, n_numbers = 4000, 1024
    rows = rng.standard_normal((n_rows, n_numbers))
    query = rng.standard_normal(n_numbers)
    query /= np.linalg.norm(query)
    # rows with a known part along the query, so that a wrong factor shows
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True) * 0.8 + 0.6 * query
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rotation = draw_rotation(n_numbers, seed=1)
    turned = rotation.apply(rows.astype(np.float32))
    estimates = decode(encode(turned, "sign")) @ rotation.apply(query[None].astype(np.float32))[0]
    errors = estimates - rows @ query
    # the variance of one estimate is (pi / 2 - 1) / D for a row across the query, less along it
    bound = np.sqrt((np.pi / 2 - 1) / n_numbers)
    assert abs(errors.mean()) < 5 * bound / np.sqrt(n_rows) + 0.6 * bound**2
    assert 0.5 * bound < errors.std() < 1.05 * bound


@given(st.integers(1, 200), st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_rotation_keeps_inner_products(n, seed):
    rotation = draw_rotation(n, seed=seed)
    rows = np.random.default_rng(n).standard_normal((4, n)).astype(np.float32)
    turned = rotation.apply(rows).astype(np.float64)
    assert turned.shape == (4, rotated_numbers(n))
    exact = rows.astype(np.float64) @ rows.astype(np.float64).T
    np.testing.assert_allclose(turned @ turned.T, exact, atol=1e-5 * exact.max())


@pytest.mark.parametrize("n_numbers", [8, 64])
def test_rotation_is_signs_and_hadamard_twice(n_numbers):
    hadamard = np.ones((1, 1))
    while len(hadamard) < n_numbers:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    rotation = draw_rotation(n_numbers, seed=3)
    first, second = rotation.signs.astype(np.float64)
    # row vectors, and the Hadamard matrix is symmetric
    matrix = np.diag(first) @ hadamard @ np.diag(second) @ hadamard / n_numbers
    turned = rotation.apply(np.eye(n_numbers, dtype=np.float32))
    np.testing.assert_allclose(turned, matrix, atol=1e-6)


def test_rotation_spreads_one_number_over_all():
    rotation = draw_rotation(4096, seed=0)
    row = np.zeros((1, 4096), np.float32)
    row[0, 17] = 1.0
    assert np.abs(rotation.apply(row)).max() < 6 / np.sqrt(4096)


def test_rotated_rows_do_not_depend_on_their_neighbours():
    rotation = draw_rotation(5000, seed=2)
    rows = np.random.default_rng(0).standard_normal((70, 5000)).astype(np.float32)
    together = rotation.apply(rows)
    assert np.array_equal(rotation.apply(rows[41:44]), together[41:44])


def test_a_seed_gives_this_rotation_forever():
    rotation = draw_rotation(9, seed=7)
    assert rotation.signs.tolist() == [
        [1, 1, -1, -1, 1, -1, 1, -1, 1, -1, -1, 1, -1, 1, 1, -1],
        [-1, 1, -1, 1, 1, 1, 1, -1, 1, -1, -1, 1, -1, -1, 1, 1],
    ]


def test_a_rotation_comes_back_from_its_arrays():
    rotation = draw_rotation(100, seed=1)
    again = Rotation.from_arrays(rotation.to_arrays())
    assert again.n == 100
    assert np.array_equal(again.signs, rotation.signs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rotation_signs": None}, "lacks"),
        ({"rotation_n": np.array([300], np.int32)}, "300 numbers"),
        ({"rotation_signs": np.zeros((2, 128), np.int8)}, r"\+1 and -1"),
        ({"rotation_signs": np.ones(128, np.int8)}, "got"),
    ],
)
def test_arrays_that_are_no_rotation_are_refused(change, message):
    arrays = {**draw_rotation(100, seed=1).to_arrays(), **change}
    given_arrays = {name: array for name, array in arrays.items() if array is not None}
    with pytest.raises(ValueError, match=message):
        Rotation.from_arrays(given_arrays)


def test_what_cannot_be_coded_is_refused():
    with pytest.raises(ValueError, match="row 1 has a number that is not finite"):
        encode(np.array([[0.0], [np.nan]], np.float32), "int8")
    with pytest.raises(ValueError, match="12 is not a multiple of 8"):
        encode(np.ones((1, 12), np.float32), "sign")
    with pytest.raises(ValueError, match="float16 cannot hold"):
        encode(np.full((1, 2), 1e5, np.float32), "float16")
    with pytest.raises(ValueError, match="got \\[2, 3\\]"):
        draw_rotation(4, seed=0).apply(np.ones((2, 3), np.float32))
