"""Pictures of methods side by side: curves, amounts against quality, intervals for table cells.

Drawn as those in `plots` are: places in percent of the width, heights in pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tasks.page.markup import Content, joined, tag
from tasks.page.plots import BOTTOM, HIGH, TOP, frame, percent, picture
from tasks.page.scales import Scale

Attributes = dict[str, Content]
NOTHING_PLACE, FIRST_PLACE, LAST_PLACE = 11.0, 24.0, 94.0
"""Percent of the width: where "nothing stored" stands, and the ends of the logarithmic axis."""
LETTER_ROOM = 2.0
"""Percent of the width that a letter of a label takes, on a phone."""
LABEL_GAP = 13
"""Pixels between the numbers of two points that stand close."""
SIDE_STEP, SIDE_ROOM = 1.6, 10.0
"""Percent of the width between points of the same bytes, and what they take together at most."""


@dataclass(frozen=True)
class Curve:
    """A line through points; ``style`` is a class, ``name`` shows when pointed at."""

    name: str
    style: str
    points: Sequence[tuple[float, float]]


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


def curves(lines: Sequence[Curve], *, alt: str, name: str) -> Markup:
    """Return lines over two axes from 0 to 1.

    Args:
        lines: Drawn in this order, the last on top.
        alt: What the picture shows.
        name: Of the horizontal axis.
    """
    across, up = Scale(0.0, 1.0), Scale(0.0, 1.0)
    drawn = [
        tag(
            "path",
            tag("title", line.name),
            d=_path(line.points, across, up),
            class_=f"curve {line.style}",
            vector_effect="non-scaling-stroke",
        )
        for line in lines
    ]
    box: Attributes = {"viewBox": f"0 0 100 {HIGH}", "preserveAspectRatio": "none", "y": TOP}
    inside = tag("svg", *drawn, x=0, width="100%", height=HIGH, **box)
    return picture([frame(across, up, HIGH), inside, _axis_name(name)], HIGH + TOP + BOTTOM, alt)


def against_bytes(spots: Sequence[Spot], *, alt: str, room: float = LETTER_ROOM) -> Markup:
    """Return values over bytes a row, on a logarithmic axis; no bytes stand to its left.

    Points of about the same bytes stand side by side, so that their intervals can be told apart.

    Args:
        spots: At least one.
        alt: What the picture shows.
        room: Percent of the width that a letter of a label takes.
    """
    ends = [end for one in spots for end in (one.low, one.high, one.value) if end is not None]
    low, high = min(0.0, *ends), max(ends)
    air = 0.05 * (high - low)
    up = Scale(low - air if low < 0 else 0.0, high + air if high > low else 1.0)
    across = _Bytes([one.n_bytes for one in spots])
    base = HIGH + TOP
    parts = [frame(Scale(0.0, 1.0), up, HIGH, named=across.ticks())]
    groups = _side_by_side(spots, across)
    parts += [_spot(one, x, up) for group in groups for one, x in group]
    parts += _labels(groups, up, room)
    if up.low < 0:
        y = TOP + HIGH - HIGH * up.at(0.0) / 100
        parts.append(tag("line", x1="0%", x2="100%", y1=y, y2=y, class_="tick"))
    return picture(parts, base + BOTTOM, alt)


def interval(
    value: float, low: float | None, high: float | None, *, style: str, marks: Sequence[float] = ()
) -> Markup:
    """Return a value with its interval, for a table's cell.

    Args:
        value: In percent of the width, as the ends are.
        low: Lower end; None where there is none.
        high: Upper end.
        style: Class of the value.
        marks: Dashed lines across, such as where chance is.
    """
    parts = [tag("line", x1="0%", x2="100%", y1=10, y2=10, class_="rail")]
    for place in marks:
        parts.append(
            tag(
                "line",
                x1=percent(_cut(place)),
                x2=percent(_cut(place)),
                y1=1,
                y2=19,
                class_="limit",
            )
        )
    if low is not None and high is not None:
        ends: Attributes = {"x1": percent(_cut(low)), "x2": percent(_cut(high))}
        parts.append(tag("line", y1=10, y2=10, class_=f"whisker {style}", **ends))
    parts.append(tag("circle", cx=percent(_cut(value)), cy=10, r=5, class_=f"dot {style}"))
    return tag("svg", *parts, class_="bar", height=20, width="100%", aria_hidden="true")


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


def _side_by_side(spots: Sequence[Spot], across: _Bytes) -> list[list[tuple[Spot, float]]]:
    """Return spots with their places, those of about the same bytes together, from left to right.

    The highest of a group stands on its left.
    """
    groups: list[list[Spot]] = []
    for one in sorted(spots, key=lambda spot: (across.at(spot.n_bytes), -spot.value)):
        first = across.at(groups[-1][0].n_bytes) if groups else 0.0
        if groups and across.at(one.n_bytes) - first < SIDE_STEP:
            groups[-1].append(one)
        else:
            groups.append([one])
    return [_placed(group, across) for group in groups]


def _placed(group: Sequence[Spot], across: _Bytes) -> list[tuple[Spot, float]]:
    step = min(SIDE_STEP, SIDE_ROOM / max(1, len(group) - 1))
    middle = sum(across.at(one.n_bytes) for one in group) / len(group)
    first = middle - step * (len(group) - 1) / 2
    return [(one, first + step * number) for number, one in enumerate(group)]


def _spot(one: Spot, place: float, up: Scale) -> Markup:
    x, y = percent(place), _down(up, one.value)
    parts = []
    if one.low is not None and one.high is not None:
        ends: Attributes = {"y1": _down(up, one.low), "y2": _down(up, one.high)}
        parts.append(tag("line", x1=x, x2=x, class_=f"whisker thin {one.style}", **ends))
    title = tag("title", one.name)
    return joined(*parts, tag("circle", title, cx=x, cy=y, r=5, class_=f"dot {one.style}"))


def _labels(groups: Sequence[Sequence[tuple[Spot, float]]], up: Scale, room: float) -> list[Markup]:
    """Write each spot's label beside its group, moved down where another stands there already."""
    drawn, taken = [], list[tuple[float, float, float]]()
    beside = [(one, group[0][1], group[-1][1]) for group in groups for one, _ in group]
    for one, left, right in sorted(beside, key=lambda found: -found[0].value):
        y = _down(up, one.value) + 4
        wide = room * len(one.label)
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
        drawn.append(tag("text", one.label, x=place, y=y, class_="name small", **side))
    return drawn


def _axis_name(name: str) -> Markup:
    end: Attributes = {"x": "100%", "y": HIGH + TOP - 6, "text_anchor": "end"}
    return tag("text", name, class_="axis name", **end)


def _path(points: Sequence[tuple[float, float]], across: Scale, up: Scale) -> str:
    places = [f"{across.at(x):.2f} {HIGH - HIGH * up.at(y) / 100:.1f}" for x, y in points]
    return f"M{'L'.join(places)}" if places else ""


def _down(up: Scale, value: float) -> float:
    return TOP + HIGH - HIGH * up.at(value) / 100


def _cut(place: float) -> float:
    return 2.0 + 0.96 * min(100.0, max(0.0, place))
