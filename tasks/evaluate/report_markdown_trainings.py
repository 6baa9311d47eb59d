"""What training does, as Markdown: LDS, tail-patch and the closed loop of an evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.evaluate.closed_loop import Verdict, verdicts
from tasks.evaluate.report_data import Place, Results
from tasks.evaluate.report_effects import (
    LOOP_READING,
    TAIL_READING,
    above_ends,
    budget_words,
    mean_of,
    tail_words,
    thousandths,
)
from tasks.evaluate.report_lds import (
    CONTROL_WORDS,
    READING,
    label_words,
    p_words,
    trained_words,
)
from tasks.evaluate.report_markdown_parts import (
    escaped,
    markdown_table,
    method_name,
    place_name,
)
from tasks.evaluate.report_words import ends_of, figure_of, is_level
from tasks.page.text import number, percent


def lds_markdown(results: Results) -> str:
    """Return LDS of every method and its controls; empty where it was not measured."""
    rows = [
        [
            method_name(results, line["method"]),
            escaped(place_name(results, line)),
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
            found.append(f"{escaped(place.name)}: {escaped(words)}")
    return found


def _best_first(line: Mapping[str, Any]) -> tuple[str, str, bool, float]:
    is_control = line.get("kind", "method") != "method"
    return line["task"], line["paradigm"], is_control, -(line["value"] or 0.0)


def _with_ends(line: Mapping[str, Any]) -> str:
    value = figure_of(line["value"]) + (" ≈" if is_level(line) else "")
    ends = ends_of(line["low"], line["high"])
    return f"{value} ({ends})" if ends else value


def tail_patch_markdown(results: Results) -> str:
    """Return tail-patch of every method; empty where it was not measured."""
    rows = [
        [
            method_name(results, line["method"]),
            escaped(place_name(results, line)),
            str(line["k"]),
            thousandths(line["value"]),
            thousandths(line["random"]),
            thousandths(line["above"]) + (f" ({ends})" if (ends := above_ends(line)) else ""),
            f"{number(round(line['tokens']))}, {number(round(line['random_tokens']))}",
            str(line["n_queries"]),
            tail_words(line),
        ]
        for line in sorted(results.tables.tail_patch.to_pylist(), key=_best_first)
    ]
    if not rows:
        return ""
    heads = ["method", "task", "rows", "its rows (mnat)", "random rows (mnat)"]
    heads += ["above random (mnat, 95 %)", "tokens a step: its, random", "queries", "says"]
    return "\n\n".join(["### Tail-patch", markdown_table(heads, rows, n_texts=2), TAIL_READING])


def closed_loop_markdown(results: Results) -> str:
    """Return the closed loop's verdicts and all its arms; empty where it was not measured."""
    rows, arms, budgets = [], [], []
    for place in results.places:
        lines = results.rows_of("closed_loop", place)
        if not lines:
            continue
        budgets.append(f"{escaped(place.name)}: {budget_words(lines[0])}")
        rows += [_loop_row(results, place, one) for one in verdicts(lines)]
        arms += _arm_rows(results, place, lines)
    if not rows:
        return ""
    heads = ["method", "task", "top", "random", "bottom", "± seeds", "random - top (95 %)"]
    heads += ["bottom - random (95 %)", "recovered of the oracle's gain", "verdict"]
    every = ["arm", "task", "loss on target", "losses elsewhere", "purity", "rows", "tokens"]
    parts = [
        "### Closed loop",
        f"{'; '.join(budgets)}.",
        markdown_table(heads, rows, n_texts=2),
        LOOP_READING,
        markdown_table([*every, "steps"], arms, n_texts=2),
    ]
    return "\n\n".join(parts)


def _loop_row(results: Results, place: Place, one: Verdict) -> list[str]:
    apart = [
        f"{own.value:+.4f}" + ("" if own.low is None else f" ({own.low:+.4f} to {own.high:+.4f})")
        for own in (one.top_apart, one.bottom_apart)
    ]
    return [
        method_name(results, one.method),
        escaped(place.name),
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
        name = f"{arm} by {method_name(results, method)}" if method else arm
        means = [mean_of(lines, method, arm, one) for one in ("loss_target", "loss_elsewhere")]
        purity = mean_of(lines, method, arm, "purity")
        sizes = [mean_of(lines, method, arm, one) for one in ("n_rows", "n_tokens", "n_steps")]
        found.append(
            [
                name,
                escaped(place.name),
                *[figure_of(one) for one in means],
                "" if purity is None else percent(purity),
                *[number(round(one or 0)) for one in sizes],
            ]
        )
    return found
