"""Names of points in a picture: they cover nothing, stay inside, and lines lead to their points."""

import math
from itertools import combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.page.labels import BESIDE, RADIUS, Box, Dot, place_labels

PAPER = Box(0.0, 0.0, 820.0, 400.0)


def dot(x: float, y: float, *, bar: float = 15.0, wide: float = 100.0) -> Dot:
    return Dot(x, y, y - bar, y + bar, wide)


def crowd(n: int) -> list[Dot]:
    """Points of about the same bytes and values, as variants of one method are."""
    return [dot(400.0 + 13.0 * number, 200.0 + 4.0 * (number % 3)) for number in range(n)]


def test_a_name_alone_stands_right_of_its_point() -> None:
    (label,) = place_labels([dot(100.0, 50.0)], PAPER)
    assert label.led is None
    assert label.box.left == 100.0 + BESIDE


@pytest.mark.parametrize("x", [2.0, 815.0])
def test_a_name_stays_inside(x: float) -> None:
    (label,) = place_labels([dot(x, 200.0)], PAPER)
    assert PAPER.holds(label.box)


@pytest.mark.parametrize("n", [2, 5, 10, 20])
def test_names_of_a_crowd_cover_neither_each_other_nor_a_point(n: int) -> None:
    dots = crowd(n)
    labels = place_labels(dots, PAPER)
    for one, other in combinations(labels, 2):
        assert one.box.shared(other.box) == 0.0
    for label in labels:
        assert PAPER.holds(label.box)
        assert sum(label.box.shared(own.point) for own in dots) == 0.0


def test_a_line_leads_from_its_point_to_its_name() -> None:
    dots = crowd(10)
    led = [(own, label) for own, label in zip(dots, place_labels(dots, PAPER), strict=True)]
    led = [(own, label) for own, label in led if label.led is not None]
    assert led
    for own, label in led:
        x1, y1, x2, y2 = label.led or (0.0,) * 4
        assert math.dist((x1, y1), (own.x, own.y)) < RADIUS
        assert label.box.left - 1e-6 <= x2 <= label.box.right + 1e-6
        assert label.box.top <= y2 <= label.box.bottom


def test_a_name_leaves_the_bar_of_another_point_free() -> None:
    tall = Dot(350.0, 20.0, 10.0, 390.0, 40.0)  # its bar stands where the other's name would
    label = place_labels([dot(300.0, 200.0), tall], PAPER)[0]
    assert label.box.shared(tall.bar) == 0.0
    assert label.led is None  # left of its point is free


def test_a_line_does_not_run_through_a_name() -> None:
    dots = crowd(10)
    labels = place_labels(dots, PAPER)
    for one, other in permutations(labels, 2):
        if one.led is not None:
            x1, y1, x2, y2 = one.led
            middle = Box((x1 + x2) / 2, (y1 + y2) / 2, (x1 + x2) / 2 + 0.1, (y1 + y2) / 2 + 0.1)
            assert middle.shared(other.box) == 0.0


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, unique=True))
def test_points_that_stand_apart_have_their_names_beside_them(
    places: list[tuple[int, int]],
) -> None:
    dots = [dot(20.0 + 200.0 * x, 30.0 + 38.0 * y) for x, y in places]
    for own, label in zip(dots, place_labels(dots, PAPER), strict=True):
        assert label.led is None
        assert label.box.left == own.x + BESIDE
