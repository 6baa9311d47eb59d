"""The report's sections on what methods store and take, and on those that gave no scores."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from tasks.evaluate.report_average import (
    Mean,
    averaged_words,
    lds_means,
    lds_words,
    means_of,
    widest_cut,
)
from tasks.evaluate.report_data import DECIDING, Contender, Place, Results
from tasks.evaluate.report_tasks import family_legend, method_cell, with_ends
from tasks.evaluate.report_words import figure_of, metric_name, row_bytes
from tasks.page.bytes_chart import Spot, against_bytes
from tasks.page.markup import Content, joined, tag
from tasks.page.parts import Column, figure, more, paragraphs, table
from tasks.page.shell import Section
from tasks.page.text import NOTHING, count, duration, number, shortened, size

REASON_CHARS = 400


def storage_section(results: Results) -> Section | None:
    """Return storage against accuracy; None where nothing has scores."""
    measures: list[tuple[str, Mapping[str, Mean]]] = []
    for name, found in (
        *((metric_name(key), means_of(results, key)) for key in (widest_cut(results), DECIDING)),
        ("LDS", lds_means(results)),
    ):
        if found and name not in dict(measures):
            measures.append((name, found))
    if not measures:
        return None
    pictures = [
        figure(f"{name} against bytes a row", _picture(results, name, found))
        for name, found in measures
    ]
    note = (
        "Each point is a method with its 95% interval. Metrics: "
        f"{averaged_words(results)}; intervals over queries. {_lds_note(results)}"
        "A point's number is that of the table below. Methods without a value on every task are "
        "left out."
    )
    body = joined(
        family_legend(results),
        tag("div", *pictures, class_="columns"),
        tag("p", note, class_="note"),
        _table(results, measures),
    )
    return Section("Storage", "How much accuracy a byte buys", body)


def _lds_note(results: Results) -> str:
    words = lds_words(results)
    return "" if words is None else f"LDS: {words}; intervals over subsets and queries. "


def spots(
    results: Results, found: Mapping[str, Mean], *, name_chars: int | None = None
) -> list[Spot]:
    """Return points of methods: numbered as on the page, or with so much of their names."""
    return [
        Spot(
            n_bytes=results.bytes_of(one.name) or 0.0,
            value=found[one.name].value,
            low=found[one.name].low,
            high=found[one.name].high,
            label=str(one.number) if name_chars is None else shortened(one.name, name_chars),
            name=f"{one.name}: {figure_of(found[one.name].value)}",
            style=one.style,
        )
        for one in results.methods
        if one.name in found
    ]


def _picture(results: Results, name: str, found: Mapping[str, Mean]) -> Markup:
    best = max(found, key=lambda method: found[method].value)
    alt = f"{name} of {len(found)} methods over bytes a row; highest: {best}."
    return against_bytes(spots(results, found), alt=alt)


def _table(results: Results, measures: list[tuple[str, Mapping[str, Mean]]]) -> Markup:
    columns = [Column("method"), Column("number", "number"), Column("a row", "number")]
    columns += [Column(name, "number") for name, _ in measures]
    scored = [one for one in results.methods if results.bytes_of(one.name) is not None]
    rows: list[list[Content]] = [
        [
            method_cell(one),
            str(one.number),
            row_bytes(results.bytes_of(one.name)),
            *[_value(found.get(one.name)) for _, found in measures],
        ]
        for one in sorted(scored, key=lambda one: (results.bytes_of(one.name) or 0.0, one.number))
    ]
    return table(columns, rows, caption="Storage and accuracy")


def _value(found: Mean | None) -> Content:
    return NOTHING if found is None else with_ends(figure_of(found.value), found.low, found.high)


# ---------------------------------------------------------------------------------------- cost


def cost_section(results: Results) -> Section | None:
    """Return what methods took, a table a task; None where nothing ran."""
    parts = []
    for number_, place in enumerate(results.places):
        if results.scored(place):
            made = _costs(results, place)
            parts.append(tag("div", tag("h3", place.name), made) if number_ == 0 else made)
            if number_:
                parts[-1] = more(place.name, made)
    if not parts:
        return None
    note = (
        f"Seconds {_where(results.about.get('machine', {}))}, also where other work shared it. "
        "Rows are read once for all tasks of one pool; the cost is told for each. Loading the "
        "model is in neither; empty where it was in memory. Memory is what the process held at "
        "most beyond what it held when the method began, the model included only where it was "
        "loaded then; empty where parts were kept from before."
    )
    return Section("Cost", "What each method took", joined(*parts, tag("p", note, class_="note")))


def _costs(results: Results, place: Place) -> Markup:
    lines = [results.cost(place, one.name) or {} for one in results.scored(place)]
    on_device = any(line.get("device_peak_bytes") is not None for line in lines)
    names = ("rows", "queries", "loading", "tokens/s", "bytes a row", "memory increase")
    columns = [Column("method"), *(Column(name, "number") for name in names)]
    columns += [Column("device memory", "number")] if on_device else []
    columns.append(Column("notes"))
    rows = [_cost(results, place, one, on_device=on_device) for one in results.scored(place)]
    return table(columns, rows, caption=f"Costs on {place.name}", stacks=True)


def _cost(results: Results, place: Place, one: Contender, *, on_device: bool) -> list[Content]:
    line = results.cost(place, one.name) or {}
    speed = line.get("tokens_per_second")
    return [
        method_cell(one),
        duration(line.get("index_seconds")),
        duration(line.get("query_seconds")),
        duration(line.get("load_seconds")),
        NOTHING if speed is None else number(round(speed)),
        row_bytes(line.get("bytes_per_row")),
        size(line.get("increase_bytes")),
        *([size(line.get("device_peak_bytes"))] if on_device else []),
        shortened("; ".join(line.get("notes") or ()), REASON_CHARS) or NOTHING,
    ]


def _where(machine: Mapping[str, Any]) -> str:
    """Return of which machine seconds are, or of how many."""
    several = machine.get("machines")
    if several:
        return f"of {several} machines, which the column machine of the table costs tells apart"
    words = [str(machine.get("processor") or "")]
    words += [
        count(machine[f"{one}s"], one) for one in ("core", "thread") if machine.get(f"{one}s")
    ]
    words += [str(machine.get(one) or "") for one in ("gpu", "device")]
    known = shortened(", ".join(word for word in words if word), 120)
    return f"as the machine was ({known})" if known else "as the machine was"


def seconds_of_rows(lines: Sequence[Mapping[str, Any]]) -> float:
    """Return what a method's tasks took for rows together; what a pool's tasks share counts once.

    Args:
        lines: Of the table of costs, of one method.
    """
    # of two tasks, the very same seconds can only be those of one index
    known = {(line["pool"], float(line["index_seconds"])) for line in lines}
    return sum(seconds for _, seconds in known)


# ------------------------------------------------------------------------------------ refusals


def refusals_section(results: Results) -> Section | None:
    """Return methods without scores and why; the same reason on several tasks is said once."""
    grouped: dict[tuple[str, str, str], list[str]] = {}
    places = {place.key: place.name for place in results.places}
    for line in results.tables.refusals.to_pylist():
        where = places.get((line["task"], line["paradigm"]), line["task"])
        grouped.setdefault((line["method"], line["kind"], line["reason"]), []).append(where)
    if not grouped:
        return None
    columns = [Column("method"), Column("what"), Column("on"), Column("reason", "wide")]
    rows: list[list[Content]] = [
        [method, kind, ", ".join(where), _reason(reason)]
        for (method, kind, reason), where in grouped.items()
    ]
    words = "Refused: the method does not run on this task here. Failed: it should have run."
    body = joined(paragraphs(words), table(columns, rows, caption="No scores", stacks=True))
    n_methods = len({method for method, _, _ in grouped})
    return Section("Refusals", f"{count(n_methods, 'method')} without some scores", body)


def _reason(reason: str) -> Content:
    first = shortened(reason, REASON_CHARS)
    return first if len(reason) <= REASON_CHARS else more(first, tag("pre", reason))
