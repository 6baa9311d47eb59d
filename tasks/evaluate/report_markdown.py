"""An evaluation's tables as Markdown between two marks of a page: no number is typed by hand."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from storage.files import write_bytes
from tasks.evaluate.closed_loop import verdicts
from tasks.evaluate.report_data import DECIDING, Contender, Key, Place, Results, read_results
from tasks.evaluate.report_effects import CONTROL_WORDS
from tasks.evaluate.report_words import (
    ends_of,
    figure_of,
    metric_name,
    tally,
    title,
    verdict_words,
)
from tasks.page.text import duration, number, percent, shortened, size

REASON_CHARS = 300
SHOWN = ("auprc", "auroc", "precision", "mrr")
BY_LENGTH: Key = ("length_correlation", None)


def write_markdown(folder: str | Path, path: str | Path, *, name: str = "results") -> Path:
    """Write an evaluation's tables between its marks in a page; what is around them stays.

    Args:
        folder: The evaluation's work folder, or that of its tables.
        path: The page; made, or given marks at its end, where it has none.
        name: Of the marks, so that one page can hold several evaluations.

    Raises:
        NotFoundError: There are no results.
        ValueError: The name is not of letters, digits and dashes, or an end mark is missing.
    """
    if not re.fullmatch(r"[A-Za-z0-9-]+", name):
        raise ValueError(f"name {name!r}: expected letters, digits and dashes.")
    words = results_markdown(read_results(folder))
    page = Path(path)
    begin, end = f"<!-- evaluation {name}: begin -->", f"<!-- evaluation {name}: end -->"
    old = page.read_text("utf-8") if page.is_file() else "# Results\n"
    if begin not in old:
        old = f"{old.rstrip()}\n\n{begin}\n{end}\n"
    before, _, rest = old.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{page}: {begin} has no {end} behind it; put it back.")
    page.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(page, f"{before}{begin}\n{words}\n{end}{after}".encode())
    return page


def results_markdown(results: Results) -> str:
    """Return an evaluation as Markdown: how it was made, then its tables."""
    found = [results.verdict(place) for place in results.places]
    parts = [
        f"**{_text(title(results, found))}.**",
        _made(results),
        _overview(results),
        *(_task(results, place) for place in results.places),
        _lds(results),
        _tail_patch(results),
        _closed_loop(results),
        _costs(results),
        _refusals(results),
    ]
    return "\n\n".join(part for part in parts if part)


def markdown_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, n_texts: int = 1
) -> str:
    """Return a table; behind the first ``n_texts`` columns all are aligned to the right."""
    marks = ["---"] * n_texts + ["---:"] * (len(columns) - n_texts)
    lines = [columns, marks, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(words: str) -> str:
    """Return text of which nothing acts as Markdown or ends a cell."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(words.split()))


def _made(results: Results) -> str:
    about = results.about
    machine = about.get("machine", {})
    libraries = about.get("versions", {}).get("libraries", {})
    models = dict.fromkeys(str(place.line["model"]) for place in results.places)
    settings = about.get("settings", {})
    lines = [
        f"- command: `{about.get('command') or 'none'}`".replace("\n", " "),
        f"- model: {_text(', '.join(models))}; seed {settings.get('seed')}",
        f"- machine: {_text(', '.join(f'{k} {v}' for k, v in machine.items() if v is not None))}",
        f"- torch {libraries.get('torch')}, transformers {libraries.get('transformers')}",
        f"- date: {about.get('date')}",
        f"- cut to: {_cuts(results)}",
    ]
    return "\n".join(lines)


def _cuts(results: Results) -> str:
    cut = [
        f"{_text(place.name)} {number(line['n_rows'])} of {number(line['of_rows'])} rows and "
        f"{number(line['n_queries'])} of {number(line['of_queries'])} queries"
        for place in results.places
        for line in [place.line]
        if (line["n_rows"], line["n_queries"]) != (line["of_rows"], line["of_queries"])
    ]
    return "; ".join(cut) or "nothing"


def _name(results: Results, name: str) -> str:
    found = results.method(name)
    return f"**{_text(name)}**" if found is not None and found.family == "RISE" else _text(name)


def _marked(results: Results, place: Place, one: Contender, key: Key) -> str:
    found = results.measure(place, one.name, key)
    if found is None:
        return ""
    standing, value = results.standing(place, key, controls=False), figure_of(found.value)
    if one.name == standing.best:
        return f"**{value}**"
    return f"{value} ≈" if one.name in standing.level else value


def _overview(results: Results) -> str:
    if len(results.places) < 2:
        return ""
    wins = tally([results.verdict(place) for place in results.places])
    scored = [one for one in results.methods if results.bytes_of(one.name) is not None]
    rows = [
        [
            _name(results, one.name),
            size(results.bytes_of(one.name)),
            "" if one.is_control else str(wins[one.name]),
            *[_marked(results, place, one, DECIDING) for place in results.places],
        ]
        for one in sorted(scored, key=lambda one: (one.is_control, -wins[one.name], one.number))
    ]
    chance = [figure_of(results.chance(place, DECIDING)) for place in results.places]
    rows.append(["chance", "", "", *chance])
    heads = ["method", "a row", "best or level on"]
    heads += [_text(place.name) for place in results.places]
    words = (
        f"{metric_name(DECIDING)} (average precision over the whole ranking, mean over queries). "
        "Bold: best of the methods; ≈: level with it, the 95 % interval of their difference over "
        "queries includes 0."
    )
    return f"{words}\n\n{markdown_table(heads, rows)}"


def _task(results: Results, place: Place) -> str:
    line = place.line
    keys = [key for key in results.metrics(place) if key[0] in SHOWN]
    rows = [
        [
            _name(results, one.name),
            _with_interval(results, place, one),
            *[_marked(results, place, one, key) for key in keys],
            _length(results, place, one),
        ]
        for one in results.ranked(place)
    ]
    chance = [figure_of(results.chance(place, key)) for key in (DECIDING, *keys)]
    rows.append(["chance", *chance, ""])
    heads = ["method", f"{metric_name(DECIDING)} (95 %)"]
    heads += [*(metric_name(key) for key in keys), metric_name(BY_LENGTH)]
    words = (
        f"{number(line['n_rows'])} rows, {number(line['n_queries'])} queries, "
        f"{percent(line['positives_share'])} of all pairs right. "
        f"{_text(verdict_words(results, results.verdict(place)))}"
    )
    head = f"### {_text(place.name)}: {_text(line['title'])}"
    return f"{head}\n\n{words}\n\n{markdown_table(heads, rows)}"


def _with_interval(results: Results, place: Place, one: Contender) -> str:
    found = results.measure(place, one.name, DECIDING)
    marked = _marked(results, place, one, DECIDING)
    if found is None or found.low is None:
        return marked
    return f"{marked} ({ends_of(found.low, found.high)})"


def _length(results: Results, place: Place, one: Contender) -> str:
    found = results.measure(place, one.name, BY_LENGTH)
    return "" if found is None else figure_of(found.value)


# ----------------------------------------------------------------------------- what training does


def _lds(results: Results) -> str:
    rows = [
        [
            _name(results, line["method"]),
            _text(_place(results, line)),
            CONTROL_WORDS.get(line["kind"], "method"),
            _with_ends(line),
            figure_of(line["deviation"]),
            f"{line['n_subsets']}, {line['n_queries']}",
        ]
        for line in sorted(results.tables.lds.to_pylist(), key=_best_first)
    ]
    heads = ["method", "task", "is", "LDS (95 %)", "± over subsets", "subsets, queries"]
    return f"### LDS\n\n{markdown_table(heads, rows, n_texts=3)}" if rows else ""


def _best_first(line: Mapping[str, Any]) -> tuple[str, str, bool, float]:
    is_control = line.get("kind", "method") != "method"
    return line["task"], line["paradigm"], is_control, -(line["value"] or 0.0)


def _with_ends(line: Mapping[str, Any]) -> str:
    value = figure_of(line["value"])
    ends = ends_of(line["low"], line["high"])
    return f"{value} ({ends})" if ends else value


def _tail_patch(results: Results) -> str:
    rows = [
        [
            _name(results, line["method"]),
            _text(_place(results, line)),
            str(line["k"]),
            f"{1000 * line['value']:+.2f}" if line["value"] is not None else "",
            f"{1000 * line['random']:+.2f}" if line["random"] is not None else "",
            str(line["n_queries"]),
        ]
        for line in sorted(results.tables.tail_patch.to_pylist(), key=_best_first)
    ]
    heads = ["method", "task", "rows", "its rows (mnat a token)", "random rows", "queries"]
    return f"### Tail-patch\n\n{markdown_table(heads, rows, n_texts=2)}" if rows else ""


def _closed_loop(results: Results) -> str:
    rows = []
    for place in results.places:
        lines = results.rows_of("closed_loop", place)
        for one in verdicts(lines) if lines else ():
            losses = [figure_of(own) for own in (one.top, one.random, one.bottom, one.deviation)]
            verdict = "passed" if one.passed else "not passed"
            rows.append([_name(results, one.method), _text(place.name), *losses, verdict])
    heads = ["method", "task", "top", "random", "bottom", "± seeds", "verdict"]
    words = "### Closed loop\n\nHeld-out loss on the target (lower is better)."
    return f"{words}\n\n{markdown_table(heads, rows, n_texts=2)}" if rows else ""


# ------------------------------------------------------------------------------- costs, refusals


def _costs(results: Results) -> str:
    lines = results.tables.costs.to_pylist()
    rows = [
        [
            _name(results, one.name),
            one.positions,
            *_cost([c for c in lines if c["method"] == one.name]),
        ]
        for one in results.methods
        if any(c["method"] == one.name for c in lines)
    ]
    heads = [
        "method",
        "positions of rows",
        "a row",
        "tasks",
        "rows, all tasks",
        "queries, all tasks",
        "tokens/s",
    ]
    words = "### Cost\n\nSeconds as the machine was, also where other work shared it."
    made = markdown_table([*heads, "peak memory"], rows)
    return f"{words}\n\n{made}" if rows else ""


def _cost(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    speeds = [line["tokens_per_second"] for line in lines if line["tokens_per_second"]]
    return [
        size(float(np.median([line["bytes_per_row"] for line in lines]))),
        str(len(lines)),
        duration(sum(line["index_seconds"] for line in lines)),
        duration(sum(line["query_seconds"] for line in lines)),
        number(round(float(np.median(speeds)))) if speeds else "",
        size(max(line["peak_bytes"] for line in lines)),
    ]


def _refusals(results: Results) -> str:
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for line in results.tables.refusals.to_pylist():
        known = (line["method"], line["kind"], line["reason"])
        grouped.setdefault(known, []).append(_place(results, line))
    rows = [
        [_text(method), kind, _text(", ".join(where)), _text(shortened(reason, REASON_CHARS))]
        for (method, kind, reason), where in grouped.items()
    ]
    made = markdown_table(["method", "what", "on", "reason"], rows, n_texts=4)
    return f"### No scores\n\n{made}" if rows else ""


def _place(results: Results, line: Mapping[str, Any]) -> str:
    found = (one.name for one in results.places if one.key == (line["task"], line["paradigm"]))
    return next(found, json.dumps(line["task"])[1:-1])
