"""Values over bytes a row, with a label at each point that covers no other point.

Points of about the same bytes stand side by side, so that their intervals can be told apart.
Places are in percent of the width, and labels keep their pixels from their points: what does not
touch at the least width does not touch at a greater one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tasks.page.labels import Box, Dot, Label, place_labels
from tasks.page.markup import Content, joined, tag
from tasks.page.plots import BOTTOM, HIGH, TOP, frame, percent, picture
from tasks.page.scales import Scale

Attributes = dict[str, Content]
NOTHING_PLACE, FIRST_PLACE, LAST_PLACE = 17.0, 29.0, 94.0
"""Percent of the width: where "nothing stored" stands, and the ends of the logarithmic axis."""
SIDE_STEP, SIDE_ROOM = 8.0, 15.0
"""Pixels between points of the same bytes, and percent of the width that they take at most."""
LEAST_WIDTH = 330.0
"""Pixels of the width of a picture on a phone."""
LETTER, CAPITAL = 7.0, 9.0
"""Pixels that a letter of a label takes, about."""
TICK_WIDTH = 28.0
"""Pixels that the numbers of the vertical axis take."""


@dataclass(frozen=True)
class Spot:
    """A value with its interval at a number of bytes; ``label`` is short and stands beside it."""

    n_bytes: float
    value: float
    low: float | None
    high: float | None
    label: str
    name: str
    style: str


@dataclass(frozen=True)
class _Placed:
    """A spot with its place in percent of the width."""

    spot: Spot
    x: float


def against_bytes(
    spots: Sequence[Spot], *, alt: str, wide: float = LEAST_WIDTH, high: int = HIGH
) -> Markup:
    """Return values over bytes a row, on a logarithmic axis; no bytes stand to its left.

    Args:
        spots: At least one.
        alt: What the picture shows.
        wide: Pixels of the least width that it is shown at.
        high: Pixels of its plotting area.
    """
    field = _Field(spots, high, step=100 * SIDE_STEP / wide)
    points = [field.as_dot(one, wide) for one in field.placed]
    placed = place_labels(points, Box(TICK_WIDTH, 0.0, wide, TOP + high))
    labels = map(_label, field.placed, points, placed)
    parts = [*field.ground(), *labels, *map(field.dot, field.placed)]
    return picture(parts, high + TOP + BOTTOM, alt)


class _Field:
    """The axes of a picture and where its points stand."""

    def __init__(self, spots: Sequence[Spot], high: int, *, step: float) -> None:
        ends = [end for one in spots for end in (one.low, one.high, one.value) if end is not None]
        low, highest = min(0.0, *ends), max(ends)
        air = 0.05 * (highest - low)
        top = highest + air if highest > low else 1.0
        self._up, self._high = Scale(low - air if low < 0 else 0.0, top), high
        self._across = _Bytes([one.n_bytes for one in spots])
        self.placed = _side_by_side(spots, self._across, step)

    def down(self, value: float) -> float:
        """Return pixels from the top."""
        return TOP + self._high - self._high * self._up.at(value) / 100

    def ground(self) -> list[Markup]:
        """Return the axes, and the line of zero where values lie below it."""
        parts = [frame(Scale(0.0, 1.0), self._up, self._high, named=self._across.ticks())]
        if self._up.low < 0:
            y = self.down(0.0)
            parts.append(tag("line", x1="0%", x2="100%", y1=y, y2=y, class_="tick"))
        return parts

    def as_dot(self, one: _Placed, wide: float) -> Dot:
        """Return a point in pixels, as labels are placed."""
        spot, y = one.spot, self.down(one.spot.value)
        high, low = (y if end is None else self.down(end) for end in (spot.high, spot.low))
        letters = sum(CAPITAL if letter.isupper() else LETTER for letter in spot.label)
        return Dot(one.x * wide / 100, y, high, low, letters)

    def dot(self, one: _Placed) -> Markup:
        """Return a point; its interval lies over it, as it is often the longer one."""
        x, spot = percent(one.x), one.spot
        about = tag("title", spot.name)
        y = self.down(spot.value)
        parts = [tag("circle", about, cx=x, cy=y, r=5, class_=f"dot {spot.style}")]
        if spot.low is not None and spot.high is not None:
            ends: Attributes = {"y1": self.down(spot.low), "y2": self.down(spot.high)}
            parts.append(tag("line", x1=x, x2=x, class_="mark", **ends))
        return joined(*parts)


class _Bytes:
    """A logarithmic axis of bytes; nothing has a place of its own left of it."""

    def __init__(self, amounts: Sequence[float]) -> None:
        stored = [math.log10(max(amount, 1.0)) for amount in amounts if amount > 0]
        low, high = (min(stored), max(stored)) if stored else (0.0, 1.0)
        if high - low < 0.6:
            low, high = low - 0.5, high + 0.5
        self._has_nothing = any(amount <= 0 for amount in amounts)
        self._scale = Scale(low, high)

    def at(self, n_bytes: float) -> float:
        """Return a place in percent."""
        if n_bytes <= 0:
            return NOTHING_PLACE
        first = FIRST_PLACE if self._has_nothing else NOTHING_PLACE
        return first + (LAST_PLACE - first) * self._scale.at(math.log10(max(n_bytes, 1.0))) / 100

    def ticks(self) -> list[tuple[float, str]]:
        """Return places, 0 to 1, and words."""
        found = [(NOTHING_PLACE / 100, "none")] if self._has_nothing else []
        return found + [(self.at(amount) / 100, _bytes(amount)) for amount in self._amounts()]

    def _amounts(self) -> list[float]:
        """Return powers of ten on the axis; with steps between where they are few."""
        first, last = math.floor(self._scale.low), math.ceil(self._scale.high)
        steps: tuple[int, ...] = (1,) if last - first > 2 else (1, 3)
        made = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        return [one for one in made if self._scale.low <= math.log10(one) <= self._scale.high]


def _bytes(amount: float) -> str:
    for unit in ("B", "KB", "MB"):
        if amount < 1000:
            return f"{amount:g} {unit}"
        amount /= 1000
    return f"{amount:g} GB"


def _side_by_side(spots: Sequence[Spot], across: _Bytes, step: float) -> list[_Placed]:
    """Return spots with their places from left to right; the highest of a group on its left."""
    groups: list[list[Spot]] = []
    for one in sorted(spots, key=lambda spot: (across.at(spot.n_bytes), -spot.value)):
        first = across.at(groups[-1][0].n_bytes) if groups else 0.0
        if groups and across.at(one.n_bytes) - first < step:
            groups[-1].append(one)
        else:
            groups.append([one])
    return [placed for group in groups for placed in _placed(group, across, step)]


def _placed(group: Sequence[Spot], across: _Bytes, step: float) -> list[_Placed]:
    step = min(step, SIDE_ROOM / max(1, len(group) - 1))
    middle = sum(across.at(one.n_bytes) for one in group) / len(group)
    first = middle - step * (len(group) - 1) / 2
    return [_Placed(one, first + step * number) for number, one in enumerate(group)]


def _label(one: _Placed, point: Dot, label: Label) -> Markup:
    """Write a label so many pixels from its point, with a line where it stands apart.

    It begins or ends at the side that is near the point: how wide its letters are is a guess.
    """
    left, right = label.box.left - point.x, label.box.right - point.x
    where: Attributes = {"x": (left + right) / 2, "text_anchor": "middle"}
    if left >= 0:
        where = {"x": left, "text_anchor": "start"}
    elif right <= 0:
        where = {"x": right, "text_anchor": "end"}
    parts = [tag("text", one.spot.label, y=label.box.bottom - 3, class_="name small", **where)]
    if label.led is not None:
        x1, y1, x2, y2 = label.led
        ends: Attributes = {"x1": x1 - point.x, "y1": y1, "x2": x2 - point.x, "y2": y2}
        parts.insert(0, tag("line", class_="lead", **ends))
    return tag("svg", *parts, x=percent(one.x))
