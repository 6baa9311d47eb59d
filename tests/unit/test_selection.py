import numpy as np
import pytest

from rise_ops.selection import reaches, value_order


def order(values, *, eligible=None, ranks=None, prefer="highest"):
    n_rows = len(values)
    return value_order(
        np.array(values, np.float32),
        np.arange(n_rows, dtype=np.uint32) if ranks is None else np.array(ranks, np.uint32),
        np.ones(n_rows, bool) if eligible is None else np.array(eligible),
        prefer=prefer,
    ).tolist()


def test_rows_come_best_first_or_worst_first():
    assert order([0.1, 0.9, -0.5, 0.4]) == [1, 3, 0, 2]
    assert order([0.1, 0.9, -0.5, 0.4], prefer="lowest") == [2, 0, 3, 1]


@pytest.mark.parametrize("prefer", ["highest", "lowest"])
def test_ties_break_by_row_id(prefer):
    assert order([0.5, 0.5, 0.5], ranks=[2, 0, 1], prefer=prefer) == [1, 2, 0]
    assert order([-0.0, 0.0], ranks=[1, 0], prefer=prefer) == [1, 0]


def test_rows_that_are_not_eligible_are_left_out():
    assert order([0.0, -0.2, -0.1], eligible=[False, True, True]) == [2, 1]


def test_a_threshold_is_inclusive_and_compared_without_rounding_it():
    values = np.array([0.1, 0.2], np.float32)
    limit = float(np.float32(0.2))
    assert reaches(values, limit, "highest").tolist() == [False, True]
    above = float(np.nextafter(limit, 1.0))
    assert reaches(values, above, "highest").tolist() == [False, False]
    assert reaches(values, limit, "lowest").tolist() == [True, True]
    assert reaches(values, float(np.nextafter(limit, 0.0)), "lowest").tolist() == [True, False]
