"""Pictures of an evaluation as files of their own: for a README, for Prefect, for slides.

Each is one SVG that loads nothing and follows the light or dark scheme of whoever looks.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from storage.files import write_bytes
from tasks.evaluate.report_average import (
    Mean,
    averaged_words,
    lds_means,
    lds_words,
    means_of,
    widest_cut,
)
from tasks.evaluate.report_cost import spots
from tasks.evaluate.report_data import (
    DECIDING,
    FAMILIES,
    Contender,
    Measure,
    Place,
    Results,
    present_families,
    read_results,
)
from tasks.evaluate.report_words import UNDECIDED, figure_of, metric_name, row_bytes, tally
from tasks.page.bytes_chart import against_bytes
from tasks.page.markup import TEMPLATES, Content, joined, tag
from tasks.page.text import NOTHING, count, shortened

WIDTH, MARGIN = 860, 20
BYTES_WIDTH = 80
LETTER, BOLD_LETTER = 7.6, 8.2
"""Pixels that a wide letter takes."""
NAME_CHARS = 40
ROW, HEAD = 30, 34
"""Pixels of a line of the picture of methods, and of its title."""
HEAD_LINE, HEAD_GAP = 15, 10
MOST_TASKS = 12
NAMED_HIGH = 380
"""Pixels of the plotting area of values over bytes."""

Attributes = dict[str, Content]


def write_pictures(folder: str | Path, out: str | Path) -> list[Path]:
    """Write the pictures of an evaluation: ``methods.svg``, ``bytes.svg``, and ``lds.svg`` if any.

    Args:
        folder: The evaluation's work folder, or that of its tables.
        out: Where they go.

    Raises:
        NotFoundError: There are no results.
        ValueError: Nothing in them has scores.
    """
    written = []
    Path(out).mkdir(parents=True, exist_ok=True)
    for name, picture in _pictures(read_results(folder)).items():
        path = Path(out) / f"{name}.svg"
        write_bytes(path, f"{picture}\n".encode())
        written.append(path)
    return written


def picture_urls(folder: str | Path) -> dict[str, str]:
    """Return the pictures of `write_pictures` as ``data:`` addresses, by name without ending.

    Raises:
        NotFoundError: There are no results.
        ValueError: Nothing in them has scores.
    """
    return {
        name: f"data:image/svg+xml;base64,{base64.b64encode(picture.encode()).decode()}"
        for name, picture in _pictures(read_results(folder)).items()
    }


def _pictures(results: Results) -> dict[str, Markup]:
    drawn = {
        "methods": methods_picture(results),
        "bytes": bytes_picture(results),
        "lds": lds_picture(results),
    }
    return {name: picture for name, picture in drawn.items() if picture is not None}


def methods_picture(results: Results) -> Markup:
    """Return methods over tasks: the metric that decides, the darker the higher.

    Raises:
        ValueError: Nothing has scores.
    """
    places = [place for place in results.places if results.scored(place)][:MOST_TASKS]
    methods = _ordered(results, places)
    if not methods:
        raise ValueError("no method has scores, so there is nothing to draw.")
    grid = _grid(results, methods, places)
    title_ = _title(results, f"{metric_name(DECIDING)}: mean over queries", grid.wide)
    parts = [title_, *_heads(grid)]
    for line, one in enumerate(methods):
        parts += _line(results, grid, one, grid.top + line * ROW)
    bottom = grid.top + len(methods) * ROW + 8
    for words in _explained(results, places):
        bottom += HEAD_LINE
        parts.append(tag("text", words, x=0, y=bottom, class_="axis"))
    alt = f"{metric_name(DECIDING)} of {len(methods)} methods on {count(len(places), 'task')}"
    return _whole(parts, bottom + 6, alt, grid.wide)


def _explained(results: Results, places: Sequence[Place]) -> list[str]:
    words = [
        "Bold: best of the methods; ≈: level with it, the 95 % interval of their difference "
        "includes 0.",
        "Line below a value: its 95 % interval over queries, on a scale from 0 to 1.",
    ]
    if not all(results.verdict(place).decides for place in places):
        words.append(f"{UNDECIDED}: this task decides nothing between methods.")
    return words


def bytes_picture(results: Results) -> Markup | None:
    """Return the published measure over bytes a row, over the tasks that decide; None without."""
    key = widest_cut(results)
    found = means_of(results, key)
    return _against_bytes(results, metric_name(key), found, averaged_words(results))


def lds_picture(results: Results) -> Markup | None:
    """Return LDS over bytes a row; None where it was not measured."""
    over = lds_words(results)
    return None if over is None else _against_bytes(results, "LDS", lds_means(results), over)


def _against_bytes(results: Results, name: str, known: dict[str, Mean], over: str) -> Markup | None:
    if not known:
        return None
    shown = [one for one in results.methods if one.name in known]
    alt = f"{name} over bytes a row, {len(known)} methods"
    inside, top, tall = WIDTH - 2 * MARGIN, 52, NAMED_HIGH + 60
    named = spots(results, known, name_chars=NAME_CHARS)
    drawn = against_bytes(named, alt=alt, wide=inside, high=NAMED_HIGH)
    parts = [
        _title(results, f"{name} against bytes a row"),
        _families(shown, 44),
        tag("svg", drawn, x=0, y=top, width=inside, height=tall),
    ]
    bottom = top + tall
    bars = " Bars: 95 % intervals." if any(one.low is not None for one in known.values()) else ""
    about = f"{over[0].upper()}{over[1:]}.{bars}"
    for words in _lines(about.split(), int(inside / LETTER)):
        parts.append(tag("text", words, x=0, y=bottom, class_="axis"))
        bottom += HEAD_LINE
    return _whole(parts, bottom - 5, alt)


# -------------------------------------------------------------------------------------- pieces


def _ordered(results: Results, places: Sequence[Place]) -> list[Contender]:
    """Return methods with scores: those that are best or level most often first, controls last."""
    wins = tally([results.verdict(place) for place in places])
    scored = {one.name for place in places for one in results.scored(place)}

    def order(one: Contender) -> tuple[bool, int, float]:
        values = [max(results.value(place, one.name), 0.0) for place in places]
        return one.is_control, -wins[one.name], -sum(values)

    return sorted((one for one in results.methods if one.name in scored), key=order)


def _title(results: Results, words: str, wide: float = WIDTH) -> Markup:
    model = str(results.places[0].line["model"]).rstrip("/").rpartition("/")[2]
    about = f"{shortened(model, 40)}, {str(results.about.get('date', ''))[:10]}"
    end: Attributes = {"x": wide - 2 * MARGIN, "text_anchor": "end"}
    return joined(
        tag("text", words, x=0, y=16, class_="name"),
        tag("text", about, y=16, class_="axis", **end),
    )


def _families(methods: Sequence[Contender], y: int) -> Markup:
    parts, x = [], 0
    for family in present_families(methods):
        parts.append(tag("circle", cx=x + 5, cy=y - 4, r=5, class_=f"dot {FAMILIES[family]}"))
        parts.append(tag("text", family, x=x + 15, y=y, class_="axis"))
        x += 34 + 7 * len(family)
    return joined(*parts)


@dataclass(frozen=True)
class _Grid:
    """Where things stand in the picture of methods, in pixels.

    Attributes:
        wide: The whole picture.
        names: Room of the methods' names.
        cell: Room of a task.
        heads: Each task with the lines of its name.
        top: Where the first method begins.
    """

    wide: float
    names: float
    cell: float
    heads: Sequence[tuple[Place, Sequence[str]]]
    top: float

    def left(self, column: int) -> float:
        """Return where a task's cells begin."""
        return self.names + BYTES_WIDTH + column * self.cell


def _grid(results: Results, methods: Sequence[Contender], places: Sequence[Place]) -> _Grid:
    """Return places that no two texts share; many tasks make the picture wider."""
    longest = max(len(shortened(one.name, NAME_CHARS)) for one in methods)
    names = 17 + BOLD_LETTER * longest + 12
    pieces = [_pieces(_head(results, place)) for place in places]
    needed = 8 + LETTER * max(len(piece) for own in pieces for piece in own)
    cell = max(needed, (WIDTH - 2 * MARGIN - names - BYTES_WIDTH) / len(places))
    heads = [
        (place, _lines(own, int((cell - 8) / LETTER)))
        for place, own in zip(places, pieces, strict=True)
    ]
    n_lines = max(len(lines) for _, lines in heads)
    wide = 2 * MARGIN + names + BYTES_WIDTH + cell * len(places)
    return _Grid(wide, names, cell, heads, HEAD + HEAD_LINE * n_lines + HEAD_GAP)


def _head(results: Results, place: Place) -> str:
    decides = results.verdict(place).decides
    return shortened(place.name, NAME_CHARS) + ("" if decides else f" {UNDECIDED}")


def _pieces(name: str) -> list[str]:
    """Return a name in the pieces that a line may end with."""
    return re.findall(r"[^\s-]+-?|-", name)


def _lines(pieces: Sequence[str], n_chars: int) -> list[str]:
    """Put pieces together again, as many a line as it holds."""
    lines: list[str] = []
    for piece in pieces:
        gap = "" if not lines or lines[-1].endswith("-") else " "
        if lines and len(lines[-1]) + len(gap) + len(piece) <= n_chars:
            lines[-1] += gap + piece
        else:
            lines.append(piece)
    return lines


def _heads(grid: _Grid) -> list[Markup]:
    """Return names of the tasks over their columns, on as many lines as they need."""
    bottom = grid.top - HEAD_GAP
    parts = [tag("text", "bytes a row", x=grid.names, y=bottom, class_="axis")]
    for column, (_, lines) in enumerate(grid.heads):
        x = grid.left(column) + grid.cell / 2
        for number, words in enumerate(lines):
            y = bottom - HEAD_LINE * (len(lines) - 1 - number)
            parts.append(tag("text", words, x=x, y=y, text_anchor="middle", class_="axis"))
    return parts


def _line(results: Results, grid: _Grid, one: Contender, y: float) -> list[Markup]:
    middle = y + ROW / 2 + 4
    n_bytes = results.bytes_of(one.name)
    stored = row_bytes(n_bytes).replace(" bytes", " B")
    parts = [
        tag("circle", cx=5, cy=y + ROW / 2, r=5, class_=f"dot {one.style}"),
        tag("text", shortened(one.name, NAME_CHARS), x=17, y=middle, class_="name"),
        tag("text", stored, x=grid.names, y=middle, class_="axis"),
    ]
    for column, (place, _) in enumerate(grid.heads):
        parts.append(_cell(results, grid, (place, one), grid.left(column), y))
    return parts


def _cell(
    results: Results, grid: _Grid, asked: tuple[Place, Contender], x: float, y: float
) -> Markup:
    place, one = asked
    found = results.measure(place, one.name, DECIDING)
    middle = x + grid.cell / 2
    if found is None:
        dash: Attributes = {"x": middle, "y": y + ROW / 2 + 4, "text_anchor": "middle"}
        return tag("text", NOTHING, class_="axis", **dash)
    standing = results.standing(place, DECIDING)
    words = figure_of(found.value) + (" ≈" if one.name in standing.level else "")
    strength = f"{0.06 + 0.5 * min(1.0, max(0.0, found.value)):.2f}"
    box: Attributes = {"x": x + 1, "y": y + 1, "width": grid.cell - 2, "height": ROW - 2}
    style = "name" if one.name == standing.best else "cell"
    return joined(
        tag("rect", rx=2, class_=f"block {one.style}", fill_opacity=strength, **box),
        tag("text", words, class_=style, x=middle, y=y + ROW / 2 + 1, text_anchor="middle"),
        _interval(found, x + 6, grid.cell - 12, y + ROW - 6),
    )


def _interval(found: Measure, x: float, wide: float, y: float) -> Markup:
    """Return a thin line from end to end of an interval, on a rail from 0 to 1."""
    if found.low is None or found.high is None:
        return joined()
    low, high = (min(1.0, max(0.0, end)) for end in (found.low, found.high))
    ends = (x + wide * low, max(x + wide * high, x + wide * low + 1.5))
    rail: Attributes = {"x1": x, "x2": x + wide, "y1": y, "y2": y, "stroke_opacity": "0.35"}
    whisker: Attributes = {"x1": ends[0], "x2": ends[1], "y1": y, "y2": y}
    return joined(
        tag("line", class_="tick", **rail),
        tag("line", class_="base", stroke_width=2.5, **whisker),
    )


def _whole(parts: Sequence[Markup], height: float, alt: str, wide: float = WIDTH) -> Markup:
    """Return a whole file: the parts on paper of their own, with the colours of the page."""
    inside = tag(
        "svg",
        *parts,
        x=MARGIN,
        y=MARGIN,
        width=wide - 2 * MARGIN,
        height=height,
        overflow="visible",
    )
    return tag(
        "svg",
        tag("title", alt),
        tag("style", Markup(_style())),
        tag("rect", width="100%", height="100%", style="fill: var(--paper)"),
        inside,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {wide:g} {height + 2 * MARGIN:g}",
        width=wide,
        height=height + 2 * MARGIN,
        role="img",
    )


def _style() -> str:
    """Return the part of the page's style sheet that pictures need."""
    style = (TEMPLATES / "page.css").read_text("utf-8")
    colours = style.partition("* { box-sizing")[0]
    wanted = [
        part
        for part in re.split(r"(?=/\* ---- )", style)
        if part.startswith(("/* ---- pictures", "/* ---- methods by family"))
    ]
    return colours + "".join(wanted) + "svg text.cell { fill: var(--ink); }\n"
