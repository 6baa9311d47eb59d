"""Pictures of methods side by side: curves, and intervals for table cells.

Drawn as those in `plots` are: places in percent of the width, heights in pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tasks.page.markup import Content, tag
from tasks.page.plots import BOTTOM, HIGH, TOP, frame, percent, picture
from tasks.page.scales import Scale

Attributes = dict[str, Content]


@dataclass(frozen=True)
class Curve:
    """A line through points; ``style`` is a class, ``name`` shows when pointed at."""

    name: str
    style: str
    points: Sequence[tuple[float, float]]


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
    parts.append(tag("circle", cx=percent(_cut(value)), cy=10, r=5, class_=f"dot {style}"))
    if low is not None and high is not None:  # over the dot, which is often the longer one
        ends: Attributes = {"x1": percent(_cut(low)), "x2": percent(_cut(high))}
        parts.append(tag("line", y1=10, y2=10, class_="mark", **ends))
    return tag("svg", *parts, class_="bar", height=20, width="100%", aria_hidden="true")


def _axis_name(name: str) -> Markup:
    end: Attributes = {"x": "100%", "y": HIGH + TOP - 6, "text_anchor": "end"}
    return tag("text", name, class_="axis name", **end)


def _path(points: Sequence[tuple[float, float]], across: Scale, up: Scale) -> str:
    places = [f"{across.at(x):.2f} {HIGH - HIGH * up.at(y) / 100:.1f}" for x, y in points]
    return f"M{'L'.join(places)}" if places else ""


def _cut(place: float) -> float:
    return 2.0 + 0.96 * min(100.0, max(0.0, place))
