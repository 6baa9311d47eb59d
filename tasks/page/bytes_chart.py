"""Values over bytes a row: numbered points for a page, named ones for a picture of its own.

Points of about the same bytes stand side by side, so that their intervals can be told apart.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tasks.page.labels import Box, Dot, Label, place_labels
from tasks.page.markup import Content, joined, tag
from tasks.page.plots import BOTTOM, HIGH, TOP, frame, percent, picture
from tasks.page.scales import Scale

Attributes = dict[str, Content]
NOTHING_PLACE, FIRST_PLACE, LAST_PLACE = 11.0, 24.0, 94.0
"""Percent of the width: where "nothing stored" stands, and the ends of the logarithmic axis."""
LETTER_ROOM = 2.0
"""Percent of the width that a digit of a number takes, on a phone."""
LABEL_GAP = 13
"""Pixels between the numbers of two points that stand close."""
SIDE_STEP, SIDE_ROOM = 1.6, 10.0
"""Percent of the width between points of the same bytes, and what they take together at most."""
NAMED_HIGH, NAMED_LETTER = 380, 7.0
"""Pixels of the plotting area of the picture with names, and of a letter of one."""


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
    """A spot with its place in percent of the width, and the ends of its group."""

    spot: Spot
    x: float
    group: tuple[float, float]


def against_bytes(spots: Sequence[Spot], *, alt: str) -> Markup:
    """Return values over bytes a row, on a logarithmic axis; no bytes stand to its left.

    Args:
        spots: At least one; labels are a few digits.
        alt: What the picture shows.
    """
    field = _Field(spots, HIGH)
    dots = [field.dot(one) for one in field.placed]
    return picture([*field.ground(), *dots, *_numbers(field)], HIGH + TOP + BOTTOM, alt)


def named_against_bytes(spots: Sequence[Spot], *, alt: str, wide: float) -> Markup:
    """Return `against_bytes` with names that cover nothing, in a picture of a known width.

    Args:
        spots: At least one; labels are names.
        alt: What the picture shows.
        wide: Pixels of the width.
    """
    field = _Field(spots, NAMED_HIGH)
    names = _names(field, wide)
    dots = [field.dot(one) for one in field.placed]
    return picture([*field.ground(), *names, *dots], NAMED_HIGH + TOP + BOTTOM, alt)


class _Field:
    """The axes of a picture and where its points stand."""

    def __init__(self, spots: Sequence[Spot], high: int) -> None:
        ends = [end for one in spots for end in (one.low, one.high, one.value) if end is not None]
        low, highest = min(0.0, *ends), max(ends)
        air = 0.05 * (highest - low)
        top = highest + air if highest > low else 1.0
        self._up, self._high = Scale(low - air if low < 0 else 0.0, top), high
        self._across = _Bytes([one.n_bytes for one in spots])
        self.placed = _side_by_side(spots, self._across)

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


def _side_by_side(spots: Sequence[Spot], across: _Bytes) -> list[_Placed]:
    """Return spots with their places from left to right; the highest of a group on its left."""
    groups: list[list[Spot]] = []
    for one in sorted(spots, key=lambda spot: (across.at(spot.n_bytes), -spot.value)):
        first = across.at(groups[-1][0].n_bytes) if groups else 0.0
        if groups and across.at(one.n_bytes) - first < SIDE_STEP:
            groups[-1].append(one)
        else:
            groups.append([one])
    return [placed for group in groups for placed in _placed(group, across)]


def _placed(group: Sequence[Spot], across: _Bytes) -> list[_Placed]:
    step = min(SIDE_STEP, SIDE_ROOM / max(1, len(group) - 1))
    middle = sum(across.at(one.n_bytes) for one in group) / len(group)
    first = middle - step * (len(group) - 1) / 2
    ends = (first, first + step * (len(group) - 1))
    return [_Placed(one, first + step * number, ends) for number, one in enumerate(group)]


def _numbers(field: _Field) -> list[Markup]:
    """Write each spot's number beside its group, moved down where another stands there already."""
    drawn, taken = [], list[tuple[float, float, float]]()
    for one in sorted(field.placed, key=lambda found: -found.spot.value):
        left, right = one.group
        y = field.down(one.spot.value) + 4
        wide = LETTER_ROOM * len(one.spot.label)
        is_right = right + wide < 97
        start = right if is_right else left - wide
        while any(
            start < stop and first < start + wide and abs(y - above) < LABEL_GAP
            for first, stop, above in taken
        ):
            y += 1
        taken.append((start, start + wide, y))
        side: Attributes = {"dx": 9 if is_right else -9}
        side["text_anchor"] = "start" if is_right else "end"
        place = percent(right if is_right else left)
        drawn.append(tag("text", one.spot.label, x=place, y=y, class_="name small", **side))
    return drawn


def _names(field: _Field, wide: float) -> list[Markup]:
    """Write each spot's name where it covers nothing, with a line where it stands apart."""
    bounds = Box(0.0, 0.0, wide, TOP + NAMED_HIGH)
    dots = [_as_dot(one, field.down, wide) for one in field.placed]
    labels = place_labels(dots, bounds)
    lines = [_lead(label) for label in labels if label.led is not None]
    names = zip(field.placed, dots, labels, strict=True)
    return [*lines, *(_name(one.spot.label, dot, label.box) for one, dot, label in names)]


def _name(words: str, dot: Dot, box: Box) -> Markup:
    """Write a name from the side of its box that is near the point: its width is a guess."""
    where: Attributes = {"x": (box.left + box.right) / 2, "text_anchor": "middle"}
    if box.left >= dot.x:
        where = {"x": box.left, "text_anchor": "start"}
    elif box.right <= dot.x:
        where = {"x": box.right, "text_anchor": "end"}
    return tag("text", words, y=box.bottom - 3, class_="name small", **where)


def _as_dot(one: _Placed, down: Callable[[float], float], wide: float) -> Dot:
    spot, y = one.spot, down(one.spot.value)
    high, low = (y if end is None else down(end) for end in (spot.high, spot.low))
    return Dot(one.x * wide / 100, y, high, low, NAMED_LETTER * len(spot.label))


def _lead(label: Label) -> Markup:
    x1, y1, x2, y2 = label.led or (0.0, 0.0, 0.0, 0.0)
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="tick", stroke_opacity="0.5")
