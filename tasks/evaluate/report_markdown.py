"""An evaluation's tables as Markdown between two marks of a page: no number is typed by hand."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from storage.files import write_bytes
from tasks.evaluate.closed_loop import Verdict, verdicts
from tasks.evaluate.report_cost import seconds_of_rows
from tasks.evaluate.report_data import DECIDING, Contender, Key, Place, Results, read_results
from tasks.evaluate.report_effects import budget_words, mean_of, tail_words
from tasks.evaluate.report_glossary import WORDS, flattered, skipped
from tasks.evaluate.report_lds import (
    CONTROL_WORDS,
    READING,
    is_level,
    label_words,
    p_words,
    trained_words,
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
        f"**{_text(title(results, found))}.**",
        _made(results),
        _overview(results),
        *(_task(results, place) for place in results.places),
        _lds(results),
        _tail_patch(results),
        _closed_loop(results),
        _costs(results),
        _refusals(results),
        _glossary(),
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
            _name(results, one.name),
            row_bytes(results.bytes_of(one.name)),
            "" if one.is_control else str(wins[one.name]),
            *[_with_interval(results, place, one, DECIDING) for place in results.places],
        ]
        for one in sorted(scored, key=lambda one: (one.is_control, -wins[one.name], one.number))
    ]
    shuffled = [figure_of(results.shuffled(place, DECIDING)) for place in results.places]
    rows.append(["shuffled right rows", "", "", *shuffled])
    heads = ["method", "a row", "best or level on"]
    heads += [_text(_marked_name(results, place)) for place in results.places]
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
            _name(results, one.name),
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
        f"{_text(verdict_words(results, results.verdict(place)))}"
    )
    head = f"### {_text(place.name)}: {_text(line['title'])}"
    notes = [_text(note) for note in (flattered(results, place), skipped(results, place)) if note]
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


# ----------------------------------------------------------------------------- what training does


def _lds(results: Results) -> str:
    rows = [
        [
            _name(results, line["method"]),
            _text(_place(results, line)),
            CONTROL_WORDS.get(line["kind"], "method"),
            _with_ends(line),
            figure_of(line["deviation"]),
            p_words(line),
            label_words(line),
            f"{line['n_subsets']}, {line['n_queries']}",
        ]
        for line in sorted(results.tables.lds.to_pylist(), key=_best_first)
    ]
    if not rows:
        return ""
    heads = ["method", "task", "is", "LDS (95 %)", "± over subsets", "p (Holm)"]
    heads += ["to the label alone", "subsets, queries"]
    made = markdown_table(heads, rows, n_texts=3)
    return "\n\n".join(["### LDS", made, READING, *_trained(results)])


def _trained(results: Results) -> list[str]:
    """Return what was trained for LDS, a paragraph a task."""
    found = []
    for place in results.places:
        lines = [line for line in results.rows_of("lds", place) if line["kind"] == "method"]
        words = trained_words(results, place, lines) if lines else ""
        if words:
            found.append(f"{_text(place.name)}: {_text(words)}")
    return found


def _best_first(line: Mapping[str, Any]) -> tuple[str, str, bool, float]:
    is_control = line.get("kind", "method") != "method"
    return line["task"], line["paradigm"], is_control, -(line["value"] or 0.0)


def _with_ends(line: Mapping[str, Any]) -> str:
    value = figure_of(line["value"]) + (" ≈" if is_level(line) else "")
    ends = ends_of(line["low"], line["high"])
    return f"{value} ({ends})" if ends else value


def _tail_patch(results: Results) -> str:
    rows = [
        [
            _name(results, line["method"]),
            _text(_place(results, line)),
            str(line["k"]),
            _thousandths(line["value"]),
            _thousandths(line["random"]),
            _with_interval_of(line, "above", _thousandths),
            f"{number(round(line['tokens']))}, {number(round(line['random_tokens']))}",
            str(line["n_queries"]),
            tail_words(line),
        ]
        for line in sorted(results.tables.tail_patch.to_pylist(), key=_best_first)
    ]
    heads = ["method", "task", "rows", "its rows (mnat a token)", "random rows"]
    heads += ["above random, paired (95 %)", "tokens a step: its, random", "queries", "says"]
    return f"### Tail-patch\n\n{markdown_table(heads, rows, n_texts=2)}" if rows else ""


def _thousandths(value: float | None) -> str:
    return "" if value is None else f"{1000 * value:+.2f}"


def _with_interval_of(
    line: Mapping[str, Any], name: str, words: Callable[[float | None], str]
) -> str:
    low, high = line[f"{name}_low"], line[f"{name}_high"]
    value = words(line[name])
    return value if low is None else f"{value} ({words(low)} to {words(high)})"


def _closed_loop(results: Results) -> str:
    rows, arms, budgets = [], [], []
    for place in results.places:
        lines = results.rows_of("closed_loop", place)
        if not lines:
            continue
        budgets.append(f"{_text(place.name)}: {budget_words(lines[0])}")
        rows += [_loop_row(results, place, one) for one in verdicts(lines)]
        arms += _arm_rows(results, place, lines)
    if not rows:
        return ""
    heads = ["method", "task", "top", "random", "bottom", "± seeds", "random - top (95 %)"]
    heads += ["bottom - random (95 %)", "recovered of the oracle's gain", "verdict"]
    every = ["arm", "task", "loss on target", "losses elsewhere", "purity", "rows", "tokens"]
    words = f"Held-out loss on the target (lower is better). {'; '.join(budgets)}."
    parts = [
        "### Closed loop",
        words,
        markdown_table(heads, rows, n_texts=2),
        markdown_table([*every, "steps"], arms, n_texts=2),
    ]
    return "\n\n".join(parts)


def _loop_row(results: Results, place: Place, one: Verdict) -> list[str]:
    apart = [
        f"{own.value:+.4f}" + ("" if own.low is None else f" ({own.low:+.4f} to {own.high:+.4f})")
        for own in (one.top_apart, one.bottom_apart)
    ]
    return [
        _name(results, one.method),
        _text(place.name),
        *[figure_of(own) for own in (one.top, one.random, one.bottom, one.deviation)],
        *apart,
        "" if one.recovered is None else percent(one.recovered),
        "passed" if one.passed else "not passed",
    ]


def _arm_rows(
    results: Results, place: Place, lines: Sequence[Mapping[str, Any]]
) -> list[list[str]]:
    """Return a row for each arm, means over its seeds."""
    found = []
    for method, arm in dict.fromkeys((line["method"], line["arm"]) for line in lines):
        name = f"{arm} by {_name(results, method)}" if method else arm
        means = [mean_of(lines, method, arm, one) for one in ("loss_target", "loss_elsewhere")]
        purity = mean_of(lines, method, arm, "purity")
        sizes = [mean_of(lines, method, arm, one) for one in ("n_rows", "n_tokens", "n_steps")]
        found.append(
            [
                name,
                _text(place.name),
                *[figure_of(one) for one in means],
                "" if purity is None else percent(purity),
                *[number(round(one or 0)) for one in sizes],
            ]
        )
    return found


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
