"""What the selection changed: lengths, sources, labels and languages, before and after."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from tasks.page.markup import Content, tag
from tasks.page.parts import Column, figure, table
from tasks.page.plots import Layer, dumbbell, legend, outlines
from tasks.page.shell import Section
from tasks.page.text import count, number, percent, shortened
from tasks.report_data import ReportData
from tasks.report_words import quoted

SHOWN_VALUES = 8
"""Sources, labels or languages drawn one by one; the rest is one line."""
NAME_CHARS = 44
NO_VALUE = "none"

FIELDS = {"label": "Label", "source": "Source", "language": "Language"}
ENTRIES = (("candidates", "filled"), ("released", "over"))
LENGTH_BINS = 24


def counts(data: ReportData, field: str) -> tuple[dict[str, int], dict[str, int]]:
    """Return how many candidates and how many released rows have each value of a field.

    Empty where the release recorded no such counts. A row without a value counts as `NO_VALUE`.
    """
    about = data.statistics.get(field, {})
    names = ("before", "after")
    before, after = (
        {one["value"] or NO_VALUE: one[name] for one in about.get("values", ()) if one[name]}
        for name in names
    )
    for name, found in zip(names, (before, after), strict=True):
        rest = about.get("other", {}).get(name, 0)
        if rest:
            found["other"] = found.get("other", 0) + rest
    return before, after


def mix_section(data: ReportData) -> Section | None:
    """Return the section with what changed; None when nothing was counted."""
    if not data.statistics:
        return None
    blocks = [_lengths(data), *(_shares(data, field) for field in FIELDS)]
    return Section("Mix", _heading(data.statistics), tag("div", *blocks, class_="columns"))


def _heading(statistics: Mapping[str, Any]) -> str:
    rows, tokens = statistics["rows"], statistics["tokens"]
    part = percent(tokens["after"] / tokens["before"]) if tokens["before"] else "none"
    return (
        f"{count(rows['after'], 'row')} and {part} of the tokens are left of "
        f"{count(rows['before'], 'candidate')}"
    )


def _lengths(data: ReportData) -> Markup | None:
    """Return lengths before and after in bins of equal width on a logarithmic axis."""
    before = data.candidate_tokens
    after = data.attributes.column("n_tokens").to_numpy()
    if not len(before) or not len(after):
        return None
    low, high = max(1, int(before.min())), max(2, int(before.max()) + 1)
    edges = np.geomspace(low, max(high, low + 1), LENGTH_BINS + 1)
    layers = [
        Layer(name, style, (np.histogram(found, edges)[0] / len(found)).tolist())
        for (name, style), found in zip(ENTRIES, (before, after), strict=True)
    ]
    step = LENGTH_BINS // 4
    ticks = [(float(at), number(round(edges[at]))) for at in range(0, LENGTH_BINS + 1, step)]
    medians = int(np.median(before)), int(np.median(after))
    picture = outlines(
        layers,
        ticks=ticks,
        alt="Lengths of candidates and released rows in tokens; their medians are "
        f"{number(medians[0])} and {number(medians[1])}.",
    )
    note = "Share of the rows by length in tokens; each step is the same factor."
    return figure(_moved(*medians), picture, legend=legend(ENTRIES), note=note)


def _moved(before: int, after: int) -> str:
    median = f"a median of {count(after, 'token')}"
    if after == before:
        return f"Released rows are as long as the candidates: {median}"
    way = "longer" if after > before else "shorter"
    return f"Released rows are {way} than the candidates: {median}, not {number(before)}"


def _shares(data: ReportData, field: str) -> Markup | None:
    before, after = counts(data, field)
    if not before or set(before) | set(after) == {NO_VALUE}:
        return None
    n_before, n_after = sum(before.values()), sum(after.values()) or 1
    part = {name: (before.get(name, 0) / n_before, after.get(name, 0) / n_after) for name in before}
    ordered = sorted(part, key=lambda name: (-max(part[name]), name))
    shown, rest = ordered[:SHOWN_VALUES], ordered[SHOWN_VALUES:]
    brief = names_without_folder(part) if field == "source" else {}
    lines = [_line(shortened(brief.get(name, name), NAME_CHARS), *part[name]) for name in shown]
    if rest:
        sums = [sum(part[name][side] for name in rest) for side in (0, 1)]
        lines.append(_line(f"{number(len(rest))} others", sums[0], sums[1]))
    columns = [
        Column(FIELDS[field].lower()),
        Column("before → after", "picture"),
        Column("before", "number"),
        Column("after", "number"),
    ]
    note = _note(data.statistics[field])
    picture = table(columns, lines, caption=f"{FIELDS[field]}s before and after")
    return figure(_finding(field, part, brief), picture, note=note)


def _line(name: str, before: float, after: float) -> list[Content]:
    return [name, dumbbell(100 * before, 100 * after), percent(before), percent(after)]


def names_without_folder(names: Iterable[str]) -> dict[str, str]:
    """Return names of files without the folders that all of them lie in."""
    parts = {name: name.split("/") for name in names}
    n_same = 0
    for column in zip(*(part[:-1] for part in parts.values()), strict=False):
        if len(set(column)) > 1:
            break
        n_same += 1
    return {name: "/".join(part[n_same:]) for name, part in parts.items()}


def _finding(field: str, part: Mapping[str, tuple[float, float]], brief: Mapping[str, str]) -> str:
    name = max(part, key=lambda one: (abs(part[one][1] - part[one][0]), one))
    before, after = part[name]
    if abs(after - before) < 0.01:
        return f"{FIELDS[field]}s keep their shares"
    way = "rises" if after > before else "falls"
    shown = quoted(brief.get(name, name))
    return f"{FIELDS[field]} {shown} {way} from {percent(before)} to {percent(after)}"


def _note(about: Mapping[str, Any]) -> str | None:
    sampled = about.get("sampled")
    if not sampled:
        return None
    return (
        f"Found by {about['library']} on samples of {number(sampled['before'])} and "
        f"{number(sampled['after'])} rows."
    )
