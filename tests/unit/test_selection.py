import numpy as np
import pytest

from rise_ops.selection import best_rows, rows_above


def case(values, *, eligible=None, ranks=None):
    n_rows = len(values)
    return (
        np.array(values, np.float32),
        np.arange(n_rows, dtype=np.uint32) if ranks is None else np.array(ranks, np.uint32),
        np.ones(n_rows, bool) if eligible is None else np.array(eligible),
    )


def test_best_rows_come_best_first():
    assert best_rows(*case([0.1, 0.9, -0.5, 0.4]), top_k=3).tolist() == [1, 3, 0]


def test_ties_break_by_row_id():
    assert best_rows(*case([0.5, 0.5, 0.5], ranks=[2, 0, 1]), top_k=2).tolist() == [1, 2]
    assert rows_above(*case([0.5, 0.5], ranks=[1, 0]), min_score=0.5).tolist() == [1, 0]


def test_negative_and_positive_zero_tie():
    assert best_rows(*case([-0.0, 0.0], ranks=[0, 1]), top_k=1).tolist() == [0]


def test_rows_without_positions_are_never_selected():
    values = case([0.0, -0.2, -0.1], eligible=[False, True, True])
    assert best_rows(*values, top_k=2).tolist() == [2, 1]
    assert rows_above(*values, min_score=-1.0).tolist() == [2, 1]


def test_more_rows_than_can_be_selected_is_an_error_with_both_numbers():
    with pytest.raises(ValueError, match=r"top_k is 3 but 2 of 3 rows.*between 1 and 2"):
        best_rows(*case([1.0, 2.0, 3.0], eligible=[True, True, False]), top_k=3)


def test_a_threshold_is_inclusive_and_compared_without_rounding_it():
    values = case([0.1, 0.2])
    assert rows_above(*values, min_score=float(np.float32(0.2))).tolist() == [1]
    with pytest.raises(ValueError, match=r"highest of 2 values is 0\.2"):
        rows_above(*values, min_score=float(np.nextafter(np.float32(0.2), np.float32(1))))


def test_a_threshold_that_selects_nothing_says_what_to_do():
    with pytest.raises(ValueError, match=r"min_score is 0\.9.*highest of 2.*0\.25.*lower"):
        rows_above(*case([0.25, 0.1]), min_score=0.9)


def test_no_row_with_positions_is_said_so():
    with pytest.raises(ValueError, match="no row has positions"):
        rows_above(*case([0.0], eligible=[False]), min_score=-1.0)
