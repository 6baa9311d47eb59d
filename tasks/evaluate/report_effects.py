"""The report's section on what training does: LDS, tail-patch, closed loop, with their controls."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from tasks.evaluate.closed_loop import DEVIATIONS_TO_PASS, Apart, Verdict, verdicts
from tasks.evaluate.report_data import Place, Results
from tasks.evaluate.report_lds import (
    CONTROL_WORDS,
    READING,
    label_words,
    p_words,
    trained_words,
)
from tasks.evaluate.report_tasks import method_cell
from tasks.evaluate.report_words import ends_of, figure_of, is_level
from tasks.page.charts import interval
from tasks.page.markup import Content, joined, tag
from tasks.page.parts import Column, more, table
from tasks.page.shell import Section
from tasks.page.text import NOTHING, count, number, percent

Line = Mapping[str, Any]

ARMS = ("base", "random", "oracle")

TAIL_READING = (
    "Change of a query's log-probability after one training step on its strongest rows, in mnat a "
    "token (thousandths of a nat), mean over queries. Above random: the difference from random "
    "rows, query by query, with its 95% interval over queries. Better or worse than random rows: "
    "that interval excludes 0 (not corrected for the number of methods). Tokens are the predicted "
    "ones of a step."
)
"""What the columns of tail-patch are; the same under every table."""

LOOP_READING = (
    "Loss on held-out texts of the target (lower is better) after training on the rows that a "
    "method puts on top, on random rows, and on those at its bottom. Passed: top below random "
    f"below bottom, each by more than {DEVIATIONS_TO_PASS:g} deviations between seeds, and with a "
    "95% interval over held-out texts above 0. Verdicts are not corrected for the number of "
    "methods. Recovered: of what the oracle gains over random rows, the share that top gains."
)
"""What the columns of the closed loop are; the same under every table."""


def effects_section(results: Results) -> Section | None:
    """Return the section; None where no training was measured."""
    parts = []
    for place in results.places:
        found = [
            part
            for part in (_lds(results, place), _tail(results, place), _loop(results, place))
            if part is not None
        ]
        if found:
            parts += [tag("h3", place.name), *found]
    if not parts:
        return None
    return Section("Training", "Do the scores foretell what training does?", joined(*parts))


def _named(results: Results, name: str) -> Content:
    found = results.method(name)
    return name if found is None else method_cell(found)


# ----------------------------------------------------------------------------------------- LDS


def _lds(results: Results, place: Place) -> Markup | None:
    lines = results.rows_of("lds", place)
    if not lines:
        return None
    own = sorted(
        (line for line in lines if line["kind"] == "method"), key=lambda line: -_value(line)
    )
    controls = [line for line in lines if line["kind"] != "method"]
    low = min(0.0, *(_value(line) for line in lines), *(line["low"] or 0.0 for line in lines))
    columns = [Column("method"), Column("LDS", "number"), Column("", "picture")]
    columns += [Column(name, "number") for name in ("± over subsets", "p (Holm)")]
    columns.append(Column("to the label alone"))
    rows = [
        [
            _lds_name(results, line),
            _with_ends(line),
            _bar(results, line, low),
            figure_of(line["deviation"]),
            p_words(line),
            label_words(line),
        ]
        for line in (*own, *controls)
    ]
    asked = (
        "LDS: does the sum of a method's scores over a random subset of the rows foretell a "
        f"query's loss after training on it? {READING} Methods score the short texts that were "
        "trained on."
    )
    made = table(columns, rows, caption=f"LDS on {place.name}", stacks=True)
    notes = [tag("p", note, class_="note") for note in (asked, trained_words(results, place, own))]
    return tag("div", tag("h4", "Linear datamodeling score"), made, *notes)


def _lds_name(results: Results, line: Line) -> Content:
    if line["kind"] == "method":
        return _named(results, line["method"])
    words = CONTROL_WORDS.get(line["kind"], line["kind"])
    return joined(line["method"], " ", tag("span", words, class_="aside"))


def _value(line: Line) -> float:
    return -1.0 if line["value"] is None else float(line["value"])


def _with_ends(line: Line) -> Content:
    ends = ends_of(line["low"], line["high"])
    value = figure_of(line["value"]) + (" ≈" if is_level(line) else "")
    return joined(value, " ", tag("span", ends, class_="aside")) if ends else value


def _bar(results: Results, line: Line, low: float) -> Content:
    if line["value"] is None:
        return ""

    def place(value: float | None) -> float | None:
        return None if value is None else 100 * (value - low) / (1.0 - low)

    zero = [place(0.0) or 0.0]
    found = results.method(line["method"]) if line["kind"] == "method" else None
    style = "k6" if found is None else found.style
    return interval(
        place(line["value"]) or 0.0,
        place(line["low"]),
        place(line["high"]),
        style=style,
        marks=zero,
    )


def _queries(n_queries: int) -> str:
    return count(n_queries, "query", "queries")


# ---------------------------------------------------------------------------------- tail-patch


def _tail(results: Results, place: Place) -> Markup | None:
    lines = results.rows_of("tail_patch", place)
    if not lines:
        return None
    heads = [f"{name} (mnat)" for name in ("its rows", "random rows", "above random")]
    heads += ["95% interval (mnat)", "tokens, its rows", "tokens, random"]
    columns = [Column("method"), *(Column(head, "number") for head in heads), Column("says")]
    rows = [
        [
            _named(results, line["method"]),
            *[thousandths(line[name]) for name in ("value", "random", "above")],
            above_ends(line) or NOTHING,
            number(round(line["tokens"])),
            number(round(line["random_tokens"])),
            tail_words(line),
        ]
        for line in sorted(lines, key=lambda line: -_value(line))
    ]
    first = lines[0]
    note = f"{TAIL_READING} Steps of {count(first['k'], 'row')}, {_queries(first['n_queries'])}."
    made = table(columns, rows, caption=f"Tail-patch on {place.name}", stacks=True)
    return tag("div", tag("h4", "Tail-patch"), made, tag("p", note, class_="note"))


def tail_words(line: Line) -> str:
    """Return what a line of tail-patch says of its method."""
    if line["above_low"] is None:
        return NOTHING
    if line["above_low"] > 0:
        return "better than random rows"
    return "worse than random rows" if line["above_high"] < 0 else "not told from random rows"


def thousandths(nats: float) -> str:
    """Return nats as thousandths, with their sign."""
    return f"{1000 * nats:+.2f}".replace("-", "\N{MINUS SIGN}")


def above_ends(line: Line) -> str:
    """Return the interval of a line of tail-patch above random rows; empty where it has none."""
    low, high = line["above_low"], line["above_high"]
    return "" if low is None else f"{thousandths(low)} to {thousandths(high)}"


# --------------------------------------------------------------------------------- closed loop


def _loop(results: Results, place: Place) -> Markup | None:
    lines = results.rows_of("closed_loop", place)
    if not lines:
        return None
    found = {one.method: one for one in verdicts(lines)}
    columns = [Column("method"), *(Column(name, "number") for name in ("top", "random", "bottom"))]
    columns += [Column("± seeds", "number"), Column("top below random", "number")]
    columns += [Column("bottom above random", "number"), Column("recovered", "number")]
    columns += [Column("purity of top", "number"), Column("verdict")]
    rows = [_loop_row(results, one, lines) for one in found.values()]
    fixed = [f"{arm} {figure_of(mean_of(lines, '', arm))}" for arm in ARMS if _of(lines, "", arm)]
    n_seeds = len({line["seed"] for line in lines})
    note = (
        f"{LOOP_READING} Here: {budget_words(lines[0])}, {count(n_seeds, 'seed')}. Without a "
        f"method: {'; '.join(fixed)}."
    )
    made = table(columns, rows, caption=f"Closed loop on {place.name}", stacks=True)
    arms = more("Every arm, with losses elsewhere", _arms(lines))
    head = tag("h4", "Closed loop")
    return tag("div", head, made, tag("p", note, class_="note"), arms)


def _loop_row(results: Results, one: Verdict, lines: Sequence[Line]) -> list[Content]:
    purity = mean_of(lines, one.method, "top", "purity")
    word = tag("span", "passed", class_="right") if one.passed else "not passed"
    return [
        _named(results, one.method),
        figure_of(one.top),
        figure_of(one.random),
        figure_of(one.bottom),
        figure_of(one.deviation),
        _apart(one.top_apart),
        _apart(one.bottom_apart),
        percent(one.recovered),
        percent(purity),
        word,
    ]


def _apart(one: Apart) -> Content:
    ends = "" if one.low is None else f"({_signed(one.low)} to {_signed(one.high)})"
    return joined(_signed(one.value), " ", tag("span", ends, class_="aside"))


def _signed(value: float | None) -> str:
    return NOTHING if value is None else f"{value:+.4f}".replace("-", "\N{MINUS SIGN}")


def budget_words(line: Line) -> str:
    """Return how many tokens an arm got, and why it got less than was asked for."""
    why = {
        "asked": "",
        "oracle": f" (asked: {number(line['asked_tokens'])}; the target's rows have no more)",
        "pool": f" (asked: {number(line['asked_tokens'])}; that is half of the pool)",
    }
    return f"{number(line['budget'])} predicted tokens an arm{why[line['bound']]}"


def _arms(lines: Sequence[Line]) -> Markup:
    columns = [Column("arm"), Column("rows", "number"), Column("tokens", "number")]
    columns += [Column("steps", "number")]
    columns += [
        Column(name, "number") for name in ("right rows", "loss, target", "loss, elsewhere")
    ]
    rows: list[list[Content]] = []
    for method, arm in dict.fromkeys((line["method"], line["arm"]) for line in lines):
        own = _of(lines, method, arm)
        rows.append(
            [
                f"{arm} by {method}" if method else arm,
                number(round(float(np.mean([line["n_rows"] for line in own])))),
                number(round(float(np.mean([line["n_tokens"] for line in own])))),
                number(round(float(np.mean([line["n_steps"] for line in own])))),
                percent(mean_of(lines, method, arm, "purity")),
                figure_of(mean_of(lines, method, arm)),
                figure_of(mean_of(lines, method, arm, "loss_elsewhere")),
            ]
        )
    return table(columns, rows, caption="Arms of the closed loop, means over seeds")


def _of(lines: Sequence[Line], method: str, arm: str) -> list[Line]:
    return [line for line in lines if line["method"] == method and line["arm"] == arm]


def mean_of(
    lines: Sequence[Line], method: str, arm: str, name: str = "loss_target"
) -> float | None:
    """Return the mean over an arm's seeds; None where the arm has none."""
    values = [line[name] for line in _of(lines, method, arm) if line[name] is not None]
    return float(np.mean(values)) if values else None
