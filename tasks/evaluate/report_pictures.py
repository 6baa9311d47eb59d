"""Pictures of an evaluation as files of their own: for a README, for Prefect, for slides.

Each is one SVG that loads nothing and follows the light or dark scheme of whoever looks.
"""

import base64
import re
from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from storage.files import write_bytes
from tasks.evaluate.report_cost import Mean, lds_of, mean_of, spots, widest_cut
from tasks.evaluate.report_data import (
    DECIDING,
    FAMILIES,
    Contender,
    Place,
    Results,
    present_families,
    read_results,
)
from tasks.evaluate.report_words import figure_of, metric_name, tally
from tasks.page.charts import against_bytes
from tasks.page.markup import TEMPLATES, Content, joined, tag
from tasks.page.text import NOTHING, count, shortened, size

WIDTH, MARGIN = 860, 20
NAME_WIDTH, BYTES_WIDTH = 230, 80
ROW, HEAD = 25, 74
"""Pixels of a line of the picture of methods, and above the first."""
MOST_TASKS = 12
NAMED_ROOM = 0.85
"""Percent of the width that a letter of a label takes."""

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
    results = read_results(folder)
    pictures = {
        "methods.svg": methods_picture(results),
        "bytes.svg": bytes_picture(results),
        "lds.svg": lds_picture(results),
    }
    written = []
    Path(out).mkdir(parents=True, exist_ok=True)
    for name, picture in pictures.items():
        if picture is not None:
            write_bytes(Path(out) / name, f"{picture}\n".encode())
            written.append(Path(out) / name)
    return written


def picture_url(folder: str | Path) -> str:
    """Return the picture of methods as a ``data:`` address.

    Raises:
        NotFoundError: There are no results.
        ValueError: Nothing in them has scores.
    """
    picture = methods_picture(read_results(folder))
    return f"data:image/svg+xml;base64,{base64.b64encode(picture.encode()).decode()}"


def methods_picture(results: Results) -> Markup:
    """Return methods over tasks: the metric that decides, the darker the higher.

    Raises:
        ValueError: Nothing has scores.
    """
    places = [place for place in results.places if results.scored(place)][:MOST_TASKS]
    methods = _ordered(results, places)
    if not methods:
        raise ValueError("no method has scores, so there is nothing to draw.")
    parts = [_title(results, f"{metric_name(DECIDING)}: mean over queries"), *_heads(places)]
    for line, one in enumerate(methods):
        parts += _line(results, places, one, HEAD + line * ROW)
    words = "Bold: best of the methods. ≈ level with it: their difference may be chance."
    bottom = HEAD + len(methods) * ROW + 22
    parts.append(tag("text", words, x=0, y=bottom, class_="axis"))
    alt = f"{metric_name(DECIDING)} of {len(methods)} methods on {count(len(places), 'task')}"
    return _whole(parts, bottom + 6, alt)


def bytes_picture(results: Results) -> Markup | None:
    """Return the published measure over bytes a row, mean over tasks; None without values."""
    key = widest_cut(results)
    found = {one.name: mean_of(results, one.name, key) for one in results.methods}
    return _against_bytes(results, metric_name(key), found, len(results.places))


def lds_picture(results: Results) -> Markup | None:
    """Return LDS over bytes a row; None where it was not measured."""
    found = {one.name: lds_of(results, one.name) for one in results.methods}
    n_tasks = len({line["task"] for line in results.tables.lds.to_pylist()})
    return _against_bytes(results, "LDS", found, n_tasks)


def _against_bytes(
    results: Results, name: str, found: dict[str, Mean | None], n_tasks: int
) -> Markup | None:
    known = {method: mean for method, mean in found.items() if mean is not None}
    if not known:
        return None
    over = f", mean over {count(n_tasks, 'task')}" if n_tasks > 1 else ""
    shown = [one for one in results.methods if one.name in known]
    alt = f"{name} over bytes a row, {len(known)} methods"
    drawn = against_bytes(spots(results, known, named=True), alt=alt, room=NAMED_ROOM)
    parts = [
        _title(results, f"{name} against bytes a row{over}"),
        _families(shown, 44),
        tag("svg", drawn, x=0, y=52, width=WIDTH - 2 * MARGIN, height=300),
    ]
    return _whole(parts, 350, alt)


# -------------------------------------------------------------------------------------- pieces


def _ordered(results: Results, places: Sequence[Place]) -> list[Contender]:
    """Return methods with scores: those that are best or level most often first, controls last."""
    wins = tally([results.verdict(place) for place in places])
    scored = {one.name for place in places for one in results.scored(place)}

    def order(one: Contender) -> tuple[bool, int, float]:
        values = [max(results.value(place, one.name), 0.0) for place in places]
        return one.is_control, -wins[one.name], -sum(values)

    return sorted((one for one in results.methods if one.name in scored), key=order)


def _title(results: Results, words: str) -> Markup:
    model = str(results.places[0].line["model"]).rstrip("/").rpartition("/")[2]
    about = f"{shortened(model, 40)}, {str(results.about.get('date', ''))[:10]}"
    end: Attributes = {"x": WIDTH - 2 * MARGIN, "text_anchor": "end"}
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


def _cell_width(places: Sequence[Place]) -> float:
    return (WIDTH - 2 * MARGIN - NAME_WIDTH - BYTES_WIDTH) / max(1, len(places))


def _heads(places: Sequence[Place]) -> list[Markup]:
    """Return names of the tasks over their columns, on up to two lines."""
    wide = _cell_width(places)
    n_chars = max(6, int(wide / 6.6))
    parts = [tag("text", "bytes a row", x=NAME_WIDTH, y=HEAD - 10, class_="axis")]
    for column, place in enumerate(places):
        x = NAME_WIDTH + BYTES_WIDTH + (column + 0.5) * wide
        lines = _two_lines(place.name, n_chars)
        for number, words in enumerate(lines):
            y = HEAD - 10 - 15 * (len(lines) - 1 - number)
            parts.append(tag("text", words, x=x, y=y, text_anchor="middle", class_="axis"))
    return parts


def _two_lines(name: str, n_chars: int) -> list[str]:
    if len(name) <= n_chars:
        return [name]
    first, _, rest = name.partition(" ") if " " in name else name.partition("-")
    return [shortened(one, n_chars) for one in (first, rest) if one]


def _line(results: Results, places: Sequence[Place], one: Contender, y: int) -> list[Markup]:
    middle = y + ROW / 2 + 4
    n_bytes = results.bytes_of(one.name)
    stored = "none" if not n_bytes else size(n_bytes).replace(" bytes", " B")
    parts = [
        tag("circle", cx=5, cy=y + ROW / 2, r=5, class_=f"dot {one.style}"),
        tag("text", shortened(one.name, 34), x=17, y=middle, class_="name"),
        tag("text", stored, x=NAME_WIDTH, y=middle, class_="axis"),
    ]
    wide = _cell_width(places)
    for column, place in enumerate(places):
        parts.append(_cell(results, place, one, NAME_WIDTH + BYTES_WIDTH + column * wide, y))
    return parts


def _cell(results: Results, place: Place, one: Contender, x: float, y: int) -> Markup:
    wide = _cell_width([p for p in results.places if results.scored(p)][:MOST_TASKS])
    found = results.measure(place, one.name, DECIDING)
    if found is None:
        dash: Attributes = {"x": x + wide / 2, "y": y + ROW / 2 + 4, "text_anchor": "middle"}
        return tag("text", NOTHING, class_="axis", **dash)
    standing = results.standing(place, DECIDING, controls=False)
    words = figure_of(found.value) + (" ≈" if one.name in standing.level else "")
    strength = f"{0.06 + 0.5 * min(1.0, max(0.0, found.value)):.2f}"
    box: Attributes = {"x": x + 1, "y": y + 1, "width": wide - 2, "height": ROW - 2}
    place_: Attributes = {"x": x + wide / 2, "y": y + ROW / 2 + 4, "text_anchor": "middle"}
    style = "name" if one.name == standing.best else "cell"
    return joined(
        tag("rect", rx=2, class_=f"block {one.style}", fill_opacity=strength, **box),
        tag("text", words, class_=style, **place_),
    )


def _whole(parts: Sequence[Markup], height: int, alt: str) -> Markup:
    """Return a whole file: the parts on paper of their own, with the colours of the page."""
    inside = tag(
        "svg",
        *parts,
        x=MARGIN,
        y=MARGIN,
        width=WIDTH - 2 * MARGIN,
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
        viewBox=f"0 0 {WIDTH} {height + 2 * MARGIN}",
        width=WIDTH,
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
