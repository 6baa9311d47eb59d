"""Where names of points stand, so that they cover as little as can be: others, points, intervals.

Every name tries places around its point: close by first, then farther off, with a line that leads
to it. Each takes the cheapest place given where the others stand, round after round. Pixels, with
the vertical axis downward; the same points always give the same places.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

TALL = 13.0
"""Pixels that a name is high."""
RADIUS = 7.0
"""Pixels around a point that stay free."""
BESIDE = 9.0
"""Pixels from a point to its name, without a line."""
DISTANCES = (20.0, 30.0, 42.0, 56.0, 72.0, 90.0, 110.0)
ANGLES = (-30, 30, -150, 150, -60, 60, -120, 120, 0, 180, -90, 90)
"""Degrees from the right, clockwise."""
LED = 8.0
"""What a line costs; a covered square pixel costs 1."""
A_PIXEL = 0.2
"""What a pixel of a line costs."""
CROSSED = 8.0
"""What two pixels of a line over a name or a point cost."""
OUTSIDE = 1e4
"""What a place costs that leaves the picture: less than none at all."""
ROUNDS = 6

Line = tuple[float, float, float, float]


@dataclass(frozen=True)
class Box:
    """A rectangle."""

    left: float
    top: float
    right: float
    bottom: float

    def shared(self, other: "Box") -> float:
        """Return the square pixels that both cover."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, wide) * max(0.0, high)

    def holds(self, other: "Box") -> bool:
        """Return whether the other lies within."""
        return (
            self.left <= other.left
            and self.top <= other.top
            and other.right <= self.right
            and other.bottom <= self.bottom
        )


@dataclass(frozen=True)
class Dot:
    """A point with its interval and the pixels that its name takes."""

    x: float
    y: float
    high: float
    low: float
    wide: float

    @cached_property
    def point(self) -> Box:
        """What the point itself keeps free."""
        return Box(self.x - RADIUS, self.y - RADIUS, self.x + RADIUS, self.y + RADIUS)

    @cached_property
    def bar(self) -> Box:
        """What the line of its interval takes."""
        return Box(self.x - 2, min(self.high, self.y), self.x + 2, max(self.low, self.y))


@dataclass(frozen=True)
class Label:
    """Where a name stands.

    Attributes:
        box: What it covers.
        led: Ends of the line from the point to it; None where it stands beside its point.
        cost: Of the place, before what is covered.
    """

    box: Box
    led: Line | None
    cost: float


def place_labels(dots: Sequence[Dot], bounds: Box) -> list[Label]:
    """Return a place for the name of each point.

    Args:
        dots: In the order in which they choose.
        bounds: What no name leaves.
    """
    places = [[*_places(dot, bounds)] for dot in dots]
    chosen = [own[0] for own in places]
    for _ in range(ROUNDS):
        before = list(chosen)
        for number, own in enumerate(places):
            others = chosen[:number] + chosen[number + 1 :]
            around = [*dots[:number], *dots[number + 1 :]]
            costs = [_cost(one, dots[number], around, others) for one in own]
            chosen[number] = own[costs.index(min(costs))]
        if chosen == before:
            break
    return chosen


def _places(dot: Dot, bounds: Box) -> Iterator[Label]:
    half = TALL / 2
    beside = (
        (dot.x + BESIDE, dot.y - half, 0.0),
        (dot.x - BESIDE - dot.wide, dot.y - half, 1.0),
        (dot.x - dot.wide / 2, dot.y - BESIDE - TALL, 2.0),
        (dot.x - dot.wide / 2, dot.y + BESIDE, 2.0),
    )
    for left, top, cost in beside:
        yield _within(Label(_box(left, top, dot.wide), None, cost), bounds)
    for distance in DISTANCES:
        for angle in ANGLES:
            across, down = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            x, y = dot.x + distance * across, dot.y + distance * down
            before = 0.5 if abs(across) < 0.01 else float(across < 0)  # share of the name left of x
            led = (dot.x + 5 * across, dot.y + 5 * down, x, y)
            cost = LED + A_PIXEL * distance
            yield _within(Label(_box(x - before * dot.wide, y - half, dot.wide), led, cost), bounds)


def _box(left: float, top: float, wide: float) -> Box:
    return Box(left, top, left + wide, top + TALL)


def _within(label: Label, bounds: Box) -> Label:
    if bounds.holds(label.box):
        return label
    return replace(label, cost=label.cost + OUTSIDE)


def _cost(label: Label, dot: Dot, around: Sequence[Dot], others: Sequence[Label]) -> float:
    """Return what a place costs: its own price, and what it covers and crosses."""
    cost = label.cost + label.box.shared(dot.point) + label.box.shared(dot.bar)
    for other in around:
        cost += label.box.shared(other.point) + label.box.shared(other.bar)
        cost += _crossed(label.led, other.point)
    for one in others:
        cost += label.box.shared(one.box)
        cost += _crossed(label.led, one.box) + _crossed(one.led, label.box)
    return cost


def _crossed(line: Line | None, box: Box) -> float:
    """Return the cost of the part of a line that lies in a box."""
    if line is None:
        return 0.0
    x1, y1, x2, y2 = line
    if max(x1, x2) < box.left or min(x1, x2) > box.right:
        return 0.0
    if max(y1, y2) < box.top or min(y1, y2) > box.bottom:
        return 0.0
    n_steps = max(1, round(math.hypot(x2 - x1, y2 - y1) / 2))
    shares = [step / n_steps for step in range(n_steps)]
    inside = sum(
        box.left < x1 + (x2 - x1) * share < box.right
        and box.top < y1 + (y2 - y1) * share < box.bottom
        for share in shares
    )
    return CROSSED * inside
