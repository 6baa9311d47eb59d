"""An evaluation's tables as Markdown between two marks of a page: no number is typed by hand."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from storage.files import write_bytes
from tasks.evaluate.report_cost import seconds_of_rows
from tasks.evaluate.report_data import DECIDING, Contender, Key, Place, Results, read_results
from tasks.evaluate.report_glossary import WORDS, flattered, skipped
from tasks.evaluate.report_markdown_parts import (
    escaped,
    markdown_table,
    method_name,
    place_name,
)
from tasks.evaluate.report_markdown_trainings import (
    closed_loop_markdown,
    lds_markdown,
    tail_patch_markdown,
)
from tasks.evaluate.report_words import (
    UNDECIDED,
    ends_of,
    figure_of,
    metric_name,
    row_bytes,
    tally,
    title,
    verdict_words,
)
from tasks.page.text import duration, number, percent, shortened, size

REASON_CHARS = 300
SHOWN = ("auprc", "auroc", "precision", "mrr")
WORDS_LINK = "[What the words mean](#words)."
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
        f"**{escaped(title(results, found))}.**",
        _made(results),
        _overview(results),
        *(_task(results, place) for place in results.places),
        lds_markdown(results),
        tail_patch_markdown(results),
        closed_loop_markdown(results),
        _costs(results),
        _refusals(results),
        _glossary(),
    ]
    return "\n\n".join(part for part in parts if part)


def _made(results: Results) -> str:
    about = results.about
    machine = about.get("machine", {})
    libraries = about.get("versions", {}).get("libraries", {})
    models = dict.fromkeys(str(place.line["model"]) for place in results.places)
    settings = about.get("settings", {})
    lines = [
        f"- command: `{about.get('command') or 'none'}`".replace("\n", " "),
        f"- model: {escaped(', '.join(models))}; seed {settings.get('seed')}",
        f"- machine: {escaped(', '.join(f'{k} {v}' for k, v in machine.items() if v is not None))}",
        f"- torch {libraries.get('torch')}, transformers {libraries.get('transformers')}",
        f"- date: {about.get('date')}",
        f"- cut to: {_cuts(results)}",
    ]
    return "\n".join(lines)


def _cuts(results: Results) -> str:
    cut = [
        f"{escaped(place.name)} {number(line['n_rows'])} of {number(line['of_rows'])} rows and "
        f"{number(line['n_queries'])} of {number(line['of_queries'])} queries"
        for place in results.places
        for line in [place.line]
        if (line["n_rows"], line["n_queries"]) != (line["of_rows"], line["of_queries"])
    ]
    return "; ".join(cut) or "nothing"


def _marked(results: Results, place: Place, one: Contender, key: Key) -> str:
    found = results.measure(place, one.name, key)
    if found is None:
        return ""
    standing, value = results.standing(place, key), figure_of(found.value)
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
            method_name(results, one.name),
            row_bytes(results.bytes_of(one.name)),
            "" if one.is_control else str(wins[one.name]),
            *[_with_interval(results, place, one, DECIDING) for place in results.places],
        ]
        for one in sorted(scored, key=lambda one: (one.is_control, -wins[one.name], one.number))
    ]
    shuffled = [figure_of(results.shuffled(place, DECIDING)) for place in results.places]
    rows.append(["shuffled right rows", "", "", *shuffled])
    heads = ["method", "a row", "best or level on"]
    heads += [escaped(_marked_name(results, place)) for place in results.places]
    words = (
        f"{metric_name(DECIDING)} (average precision over the whole ranking, mean over queries), "
        "with its 95 % interval over queries. Bold: best of the methods; ≈: level with it; "
        f"{UNDECIDED}: the task decides nothing between methods and is not counted. {WORDS_LINK}"
    )
    return f"{words}\n\n{markdown_table(heads, rows)}"


def _task(results: Results, place: Place) -> str:
    line = place.line
    keys = [key for key in results.metrics(place) if key[0] in SHOWN]
    rows = [
        [
            method_name(results, one.name),
            *[_with_interval(results, place, one, key) for key in (DECIDING, *keys)],
            _length(results, place, one),
        ]
        for one in results.ranked(place)
    ]
    shuffled = [figure_of(results.shuffled(place, key)) for key in (DECIDING, *keys)]
    rows.append(["shuffled right rows", *shuffled, ""])
    heads = ["method", *(metric_name(key) for key in (DECIDING, *keys, BY_LENGTH))]
    words = (
        f"{number(line['n_rows'])} rows, {number(line['n_queries'])} queries, "
        f"base rate {percent(line['positives_share'])}. "
        f"{escaped(verdict_words(results, results.verdict(place)))}"
    )
    head = f"### {escaped(place.name)}: {escaped(line['title'])}"
    notes = [escaped(note) for note in (flattered(results, place), skipped(results, place)) if note]
    parts = [head, words, markdown_table(heads, rows), " ".join([*notes, WORDS_LINK])]
    return "\n\n".join(parts)


def _with_interval(results: Results, place: Place, one: Contender, key: Key) -> str:
    found = results.measure(place, one.name, key)
    marked = _marked(results, place, one, key)
    if found is None or found.low is None:
        return marked
    return f"{marked}<br>({ends_of(found.low, found.high)})"


def _marked_name(results: Results, place: Place) -> str:
    return place.name if results.verdict(place).decides else f"{place.name} {UNDECIDED}"


def _glossary() -> str:
    return "\n".join(["### Words", "", *(f"- **{name}**: {said}" for name, said in WORDS.items())])


def _length(results: Results, place: Place, one: Contender) -> str:
    found = results.measure(place, one.name, BY_LENGTH)
    return "" if found is None else figure_of(found.value)


def _costs(results: Results) -> str:
    lines = results.tables.costs.to_pylist()
    rows = [
        [
            method_name(results, one.name),
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
    words = (
        "### Cost\n\nSeconds as the machine was, also where other work shared it, without loading "
        "the model. What tasks of one pool share counts once. Memory is the largest increase while "
        "a method ran, the model included where it was loaded then."
    )
    made = markdown_table([*heads, "memory increase"], rows)
    return f"{words}\n\n{made}" if rows else ""


def _cost(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    increases = [one["increase_bytes"] for one in lines if one["increase_bytes"] is not None]
    speeds = [line["tokens_per_second"] for line in lines if line["tokens_per_second"]]
    return [
        row_bytes(float(np.median([line["bytes_per_row"] for line in lines]))),
        str(len(lines)),
        duration(seconds_of_rows(lines)),
        duration(sum(line["query_seconds"] for line in lines)),
        number(round(float(np.median(speeds)))) if speeds else "",
        size(max(increases)) if increases else "",
    ]


def _refusals(results: Results) -> str:
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for line in results.tables.refusals.to_pylist():
        known = (line["method"], line["kind"], line["reason"])
        grouped.setdefault(known, []).append(place_name(results, line))
    rows = [
        [
            escaped(method),
            kind,
            escaped(", ".join(where)),
            escaped(shortened(reason, REASON_CHARS)),
        ]
        for (method, kind, reason), where in grouped.items()
    ]
    made = markdown_table(["method", "what", "on", "reason"], rows, n_texts=4)
    return f"### No scores\n\n{made}" if rows else ""
