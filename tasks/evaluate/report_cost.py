"""The report's sections on what methods store and take, and on those that gave no scores."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup

from tasks.evaluate.report_average import Mean, averaged_words, mean_of, widest_cut
from tasks.evaluate.report_data import DECIDING, Contender, Key, Place, Results
from tasks.evaluate.report_tasks import family_legend, method_cell, with_ends
from tasks.evaluate.report_words import figure_of, metric_name, row_bytes
from tasks.page.charts import Spot, against_bytes
from tasks.page.markup import Content, joined, tag
from tasks.page.parts import Column, figure, more, paragraphs, table
from tasks.page.shell import Section
from tasks.page.text import NOTHING, count, duration, number, shortened, size

REASON_CHARS = 400


def lds_of(results: Results, method: str) -> Mean | None:
    """Return a method's LDS; of several tasks the mean, None where it lacks one."""
    lines = [line for line in results.tables.lds.to_pylist() if line["kind"] == "method"]
    wanted = {(line["task"], line["paradigm"]) for line in lines}
    own = [line for line in lines if line["method"] == method and line["value"] is not None]
    if not own or len(own) < len(wanted):
        return None
    if len(own) == 1:
        return Mean(own[0]["value"], own[0]["low"], own[0]["high"])
    return Mean(float(np.mean([line["value"] for line in own])), None, None)


def storage_section(results: Results) -> Section | None:
    """Return storage against accuracy; None where nothing has scores."""
    measures: list[tuple[str, Mapping[str, Mean]]] = []
    for name, found in (
        *((metric_name(key), _means(results, key)) for key in (widest_cut(results), DECIDING)),
        ("LDS", _lds(results)),
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
        f"{averaged_words(results)}; intervals over queries. LDS: over the tasks that have it. "
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


def _means(results: Results, key: Key) -> dict[str, Mean]:
    found = {one.name: mean_of(results, one.name, key) for one in results.methods}
    return {name: mean for name, mean in found.items() if mean is not None}


def _lds(results: Results) -> dict[str, Mean]:
    found = {one.name: lds_of(results, one.name) for one in results.methods}
    return {name: mean for name, mean in found.items() if mean is not None}


def spots(results: Results, found: Mapping[str, Mean], *, named: bool = False) -> list[Spot]:
    """Return points of methods: numbered as on the page, or labelled with their names."""
    return [
        Spot(
            n_bytes=results.bytes_of(one.name) or 0.0,
            value=found[one.name].value,
            low=found[one.name].low,
            high=found[one.name].high,
            label=one.name if named else str(one.number),
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
    machine = results.about.get("machine", {})
    note = (
        f"Seconds as the machine was ({_machine(machine)}), also where other work shared it. Rows "
        "are read once for all tasks of one pool; the cost is told for each. Peak memory is the "
        "whole process's."
    )
    return Section("Cost", "What each method took", joined(*parts, tag("p", note, class_="note")))


def _costs(results: Results, place: Place) -> Markup:
    names = ("rows", "queries", "tokens/s", "bytes a row", "peak memory")
    columns = [Column("method"), *(Column(name, "number") for name in names), Column("notes")]
    rows = [_cost(results, place, one) for one in results.scored(place)]
    return table(columns, rows, caption=f"Costs on {place.name}", stacks=True)


def _cost(results: Results, place: Place, one: Contender) -> list[Content]:
    line = results.cost(place, one.name) or {}
    speed = line.get("tokens_per_second")
    return [
        method_cell(one),
        duration(line.get("index_seconds")),
        duration(line.get("query_seconds")),
        NOTHING if speed is None else number(round(speed)),
        row_bytes(line.get("bytes_per_row")),
        size(line.get("peak_bytes")),
        shortened("; ".join(line.get("notes") or ()), REASON_CHARS) or NOTHING,
    ]


def _machine(machine: Mapping[str, Any]) -> str:
    cores = machine.get("cores")
    words = [str(machine.get("processor") or ""), f"{cores} cores" if cores else ""]
    words.append(str(machine.get("device") or ""))
    return shortened(", ".join(word for word in words if word), 80)


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
