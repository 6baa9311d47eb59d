"""Names of points in a picture: they cover nothing, stay inside, and lines lead to their points."""

import math
from itertools import combinations

import pytest
from hypothesis import given
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
        assert sum(label.box.shared(own.boxes[0]) for own in dots) == 0.0


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


@given(st.lists(st.tuples(st.floats(0, 820), st.floats(30, 380)), min_size=1, max_size=12))
def test_every_point_has_a_name_and_the_same_points_the_same_places(
    places: list[tuple[float, float]],
) -> None:
    dots = [dot(x, y) for x, y in places]
    labels = place_labels(dots, PAPER)
    assert len(labels) == len(dots)
    assert labels == place_labels(dots, PAPER)
