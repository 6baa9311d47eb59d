"""Pictures of numbers as inline SVG, drawn by hand and not by a plotting library.

Places are given in percent of the width and heights in pixels, without a view box: the same
picture fills a phone and a desk, and its letters stay as large as the text around them. Colours
are classes of the page's style sheet, so that pictures follow the light and the dark scheme. The
same numbers always give the same bytes, and a picture is a few kilobytes. None of this can be had
from matplotlib's SVG, which scales letters with the picture and fixes colours when it draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tasks.page.markup import Content, joined, safe, tag
from tasks.page.scales import Scale, tick_label

TOP, BOTTOM = 26, 26
"""Pixels above and below the plotting area, for names of marks and of the axis."""
HIGH, LOW = 240, 180
"""Pixels of the plotting area of a main picture, and of one in a column."""
X_TICKS, Y_TICKS = 5, 4
"""Most tick marks; more would run into each other on a phone."""


Attributes = dict[str, Content]


@dataclass(frozen=True)
class Layer:
    """One part of stacked counts: its name in the legend, its style class, a count for each bin."""

    name: str
    style: str
    counts: Sequence[float]


@dataclass(frozen=True)
class Mark:
    """A vertical line with a name, at a number of the horizontal axis."""

    value: float
    name: str
    style: str = "mark"


@dataclass(frozen=True)
class Point:
    """A point of a scatter plot; ``name`` shows when pointed at."""

    x: float
    y: float
    name: str
    style: str


def histogram(
    edges: Sequence[float],
    layers: Sequence[Layer],
    *,
    alt: str,
    outline: Sequence[float] | None = None,
    marks: Sequence[Mark] = (),
    cap: float | None = None,
) -> Markup:
    """Return stacked counts over equal bins.

    Args:
        edges: Borders of the bins, ascending, one more than bins.
        layers: Drawn from the axis upward in this order.
        alt: What the picture shows, for those who cannot see it.
        outline: Counts that are drawn as a line over the bars.
        marks: Vertical lines.
        cap: Number at the top of the vertical axis; higher bars are cut there.
    """
    totals = [sum(column) for column in zip(*(layer.counts for layer in layers), strict=True)]
    height, highest = HIGH, max([*totals, *(outline or ()), 1.0])
    across, up = Scale(edges[0], edges[-1]), Scale(0.0, cap or highest)
    parts = [frame(across, up, height)]
    floor = [0.0] * len(totals)
    for layer in layers:
        parts.append(_columns(edges, layer, floor, across, up, height))
        floor = [low + more for low, more in zip(floor, layer.counts, strict=True)]
    if outline is not None:
        parts.append(_outline(edges, outline, across, up, height))
    parts += [_mark(mark, across, height) for mark in marks]
    return picture(parts, height + TOP + BOTTOM, alt)


def outlines(layers: Sequence[Layer], *, alt: str, ticks: Sequence[tuple[float, str]]) -> Markup:
    """Return distributions over the same bins, each drawn as one shape over the one before.

    Args:
        layers: Shares, 0 to 1, of each bin.
        alt: What the picture shows.
        ticks: Places on the horizontal axis, in bins, and what stands there.
    """
    height, highest = LOW, max([*(count for layer in layers for count in layer.counts), 1e-9])
    edges = [float(edge) for edge in range(len(layers[0].counts) + 1)]
    across, up = Scale(edges[0], edges[-1]), Scale(0.0, 100 * highest)
    parts = [frame(across, up, height, unit="%", named=ticks)]
    for layer in layers:
        shares = [100 * count for count in layer.counts]
        parts.append(_outline(edges, shares, across, up, height, style=layer.style))
    return picture(parts, height + TOP + BOTTOM, alt)


def scatter(points: Sequence[Point], *, alt: str, names: tuple[str, str]) -> Markup:
    """Return points on two linear axes.

    Args:
        points: At least one.
        alt: What the picture shows.
        names: Of the horizontal and the vertical axis.
    """
    across = _padded([point.x for point in points])
    up, height = _padded([point.y for point in points]), HIGH
    parts = [frame(across, up, height)]
    for point in points:
        place: Attributes = {"cx": percent(across.at(point.x)), "cy": _down(up, point.y, height)}
        parts.append(
            tag("circle", tag("title", point.name), r=4, class_=f"dot {point.style}", **place)
        )
    parts.append(tag("text", names[1], x=0, y=12, class_="axis name"))
    end: Attributes = {
        "x": "100%",
        "y": height + TOP - 6,
        "class_": "axis name",
        "text_anchor": "end",
    }
    parts.append(tag("text", names[0], **end))
    return picture(parts, height + TOP + BOTTOM, alt)


def bar(parts: Sequence[tuple[float, str]], *, marks: Sequence[float] = ()) -> Markup:
    """Return one horizontal bar, for a table's cell; the cell beside it says the number.

    Args:
        parts: Percent of the width, and style class, from left to right.
        marks: Limits to draw across it, in percent.
    """
    drawn, start = [], 0.0
    for width, style in parts:
        shape: Attributes = {
            "x": percent(start),
            "width": percent(max(width, 0.0)),
            "y": 3,
            "height": 12,
        }
        drawn.append(tag("rect", class_=style, **shape))
        start += width
    for place in marks:
        line: Attributes = {"x1": percent(place), "x2": percent(place), "y1": 0, "y2": 18}
        drawn.append(tag("line", class_="limit", **line))
    return tag("svg", *drawn, class_="bar", height=18, width="100%", aria_hidden="true")


def dumbbell(before: float, after: float) -> Markup:
    """Return two dots on a line, for a table's cell: hollow before, filled after.

    Args:
        before: Place in percent of the width.
        after: Likewise.
    """
    low, high = (_inset(place) for place in sorted((before, after)))
    rail = tag("line", x1="0%", x2="100%", y1=10, y2=10, class_="rail")
    link = tag("line", x1=low, x2=high, y1=10, y2=10, class_="link")
    dots = [
        tag("circle", cx=_inset(before), cy=10, r=5, class_="dot before"),
        tag("circle", cx=_inset(after), cy=10, r=6, class_="dot selected"),
    ]
    return tag("svg", rail, link, *dots, class_="bar", height=20, width="100%", aria_hidden="true")


def legend(entries: Sequence[tuple[str, str]]) -> Markup:
    """Return a legend: names and style classes; the class ``outline`` shows a dashed line."""
    items = []
    for name, style in entries:
        line = tag("line", x1=0, x2=18, y1=6, y2=6, class_=style)
        block = tag("rect", x=0, y=0, width=14, height=12, class_=style)
        shape = line if "outline" in style else block
        swatch = tag("svg", shape, width=18, height=12, aria_hidden="true")
        items.append(tag("li", swatch, " ", name))
    return tag("ul", *items, class_="legend")


# ------------------------------------------------------------------------------------- pieces


def picture(parts: Sequence[Markup], height: int, alt: str) -> Markup:
    """Return parts as one picture, as wide as there is room."""
    about: Attributes = {"role": "img", "aria_label": alt, "class_": "plot"}
    return tag("svg", *parts, width="100%", height=height, **about)


def frame(
    across: Scale,
    up: Scale,
    height: int,
    *,
    unit: str = "",
    named: Sequence[tuple[float, str]] | None = None,
) -> Markup:
    """Return grid lines with their numbers written on them, and the horizontal axis."""
    parts = []
    rising = up.ticks(Y_TICKS)
    for value in rising:
        y = _down(up, value, height)
        parts.append(tag("line", x1="0%", x2="100%", y1=y, y2=y, class_="grid"))
        if value > up.low:
            words = f"{tick_label(value, rising)}{unit}"
            parts.append(tag("text", words, x=0, y=y - 4.0, class_="axis"))
    if named is None:
        running = across.ticks(X_TICKS)
        named = [(value, tick_label(value, running)) for value in running]
    for value, words in named:
        place = across.at(value)
        label: Attributes = {
            "x": percent(place),
            "y": height + TOP + 18,
            "text_anchor": _anchor(place),
        }
        parts.append(tag("text", words, class_="axis", **label))
        line: Attributes = {"x1": percent(place), "x2": percent(place)}
        parts.append(tag("line", y1=height + TOP, y2=height + TOP + 5, class_="tick", **line))
    base = height + TOP
    parts.append(tag("line", x1="0%", x2="100%", y1=base, y2=base, class_="base"))
    return joined(*parts)


def _columns(
    edges: Sequence[float],
    layer: Layer,
    floor: Sequence[float],
    across: Scale,
    up: Scale,
    height: int,
) -> Markup:
    drawn = []
    for number, (low, more) in enumerate(zip(floor, layer.counts, strict=True)):
        if more <= 0:
            continue
        left, right = across.at(edges[number]), across.at(edges[number + 1])
        top, bottom = _down(up, low + more, height), _down(up, low, height)
        # a single row among thousands must still be seen
        tall = max(bottom - top, 1.5)
        shape: Attributes = {"x": percent(left), "width": percent((right - left) * 0.94)}
        drawn.append(tag("rect", y=bottom - tall, height=tall, **shape))
    return tag("g", *drawn, class_=layer.style)


def _outline(
    edges: Sequence[float],
    counts: Sequence[float],
    across: Scale,
    up: Scale,
    height: int,
    style: str = "outline",
) -> Markup:
    """Return a stepped line; it is stretched with the picture, its stroke is not."""
    commands = [f"M{across.at(edges[0]):.2f} {height}"]
    for number, value in enumerate(counts):
        y = height - height * up.at(value) / 100
        left, right = across.at(edges[number]), across.at(edges[number + 1])
        commands.append(f"L{left:.2f} {y:.1f}L{right:.2f} {y:.1f}")
    commands.append(f"L{across.at(edges[-1]):.2f} {height}")
    path = tag("path", d="".join(commands), class_=style, vector_effect="non-scaling-stroke")
    box: Attributes = {"viewBox": f"0 0 100 {height}", "preserveAspectRatio": "none", "y": TOP}
    return tag("svg", path, x=0, width="100%", height=height, **box)


def _mark(mark: Mark, across: Scale, height: int) -> Markup:
    place = across.at(mark.value)
    line: Attributes = {"x1": percent(place), "x2": percent(place), "y1": 14, "y2": height + TOP}
    anchor = "start" if place < 50 else "end"
    shift = 5 if place < 50 else -5
    name: Attributes = {"x": percent(place), "dx": shift, "y": 12, "text_anchor": anchor}
    return joined(
        tag("line", class_=mark.style, **line),
        tag("text", mark.name, class_=f"name {mark.style}", **name),
    )


def _padded(values: Sequence[float]) -> Scale:
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.5
    return Scale(low - margin, high + margin)


def _anchor(place: float) -> str:
    return "start" if place < 4 else "end" if place > 96 else "middle"


def percent(place: float) -> str:
    """Return a place as SVG writes it."""
    return f"{safe(float(place))}%"


def _inset(place: float) -> str:
    """Keep a dot's whole disc inside the picture."""
    return percent(3.0 + 0.94 * min(100.0, max(0.0, place)))


def _down(up: Scale, value: float, height: int) -> float:
    return TOP + height - height * up.at(value) / 100
