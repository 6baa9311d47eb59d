"""The report of an evaluation: one HTML page that says which method to trust, on what, and why.

It is drawn from the tables alone and lies beside them: the same tables always give the same page,
but for token highlights, which need the index and the model that RISE scored with.
"""

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from storage.files import write_bytes
from tasks.config import RuntimeConfig
from tasks.evaluate.report_cost import cost_section, refusals_section, storage_section
from tasks.evaluate.report_data import DECIDING, Results, Verdict, read_results
from tasks.evaluate.report_effects import effects_section
from tasks.evaluate.report_examples import Highlights, choose_examples, examples_section
from tasks.evaluate.report_glossary import glossary_section, words_link
from tasks.evaluate.report_highlights import find_highlights
from tasks.evaluate.report_setup import asked_section, lineage_section
from tasks.evaluate.report_tasks import family_legend, method_cell, task_section, value_cell
from tasks.evaluate.report_words import (
    UNDECIDED,
    metric_name,
    row_bytes,
    standfirst,
    tally,
    title,
    verdict_words,
)
from tasks.page.markup import Content, joined, tag
from tasks.page.parts import Column, more, table
from tasks.page.shell import Headline, Section, WrittenPage, page
from tasks.page.text import NOTHING, number

REPORT_FILE = "report.html"


def write_evaluation_report(
    folder: str | Path,
    *,
    highlights: bool = False,
    runtime: RuntimeConfig = RuntimeConfig(),  # noqa: B008 - frozen
) -> WrittenPage:
    """Draw the page of an evaluation, in place of an earlier one.

    Args:
        folder: The work folder, or that of its tables.
        highlights: Run the model on the examples; where that cannot be, the page says why.
        runtime: Device and batch size, for highlights.

    Raises:
        NotFoundError: There are no results.
        CorruptionError: A table is missing or damaged.
        ValueError: The tables are of another version of this program.
    """
    results = read_results(folder)
    html, headline, no_highlights = _drawn(results, highlights=highlights, runtime=runtime)
    data = html.encode()
    path = results.folder / REPORT_FILE
    write_bytes(path, data)
    return WrittenPage(str(path), headline, len(data), no_highlights)


def _drawn(
    results: Results, *, highlights: bool, runtime: RuntimeConfig
) -> tuple[str, str, str | None]:
    examples = choose_examples(results)
    found: Highlights = {}
    reason: str | None = None
    if highlights:
        found, reason = find_highlights(results, examples, runtime)
    verdicts = [results.verdict(place) for place in results.places]
    sections = [
        _verdict_section(results, verdicts),
        asked_section(results),
        storage_section(results),
        *(task_section(results, place) for place in results.places),
        effects_section(results),
        examples_section(examples, found, reason),
        cost_section(results),
        refusals_section(results),
        glossary_section(),
        lineage_section(results),
    ]
    top = _headline(results, verdicts)
    footer = (
        "Drawn from the tables of the evaluation, which lie beside this page. It loads nothing and "
        "runs no script."
    )
    shown = [section for section in sections if section is not None]
    return page(top, shown, footer=footer), top.title, reason


def _headline(results: Results, verdicts: Sequence[Verdict]) -> Headline:
    n_queries = sum(place.line["n_queries"] for place in results.places)
    numbers = [
        (number(len(results.methods)), "methods"),
        (number(len(results.places)), "tasks" if len(results.places) != 1 else "task"),
        (number(n_queries), "queries"),
        (number(results.tables.costs.num_rows), "results"),
        (number(len(results.tables.refusals)), "without scores"),
    ]
    return Headline(
        kicker="Evaluation",
        title=f"{title(results, verdicts)}.",
        standfirst=standfirst(results, verdicts),
        numbers=numbers,
    )


def _verdict_section(results: Results, verdicts: Sequence[Verdict]) -> Section:
    """Return what each task says, and all tasks and methods by the metric that decides."""
    rows: list[list[Content]] = [[one.place.name, verdict_words(results, one)] for one in verdicts]
    columns = [Column("task"), Column("which method to trust", "wide")]
    body: list[Markup] = [table(columns, rows, caption="Verdicts", stacks=True)]
    if len(results.places) > 1:
        body += [family_legend(results), _overview(results, verdicts)]
        note = (
            f"{metric_name(DECIDING)}: {DECIDING_WORDS}, its 95% interval over queries below. "
            f"Bold: best of the methods; ≈: level with it; {UNDECIDED}: the task decides nothing "
            "between methods, and is not counted."
        )
        body.append(tag("p", note, " ", words_link(), class_="note"))
    return Section("Result", "Which method to trust", joined(*body))


DECIDING_WORDS = "average precision over the whole ranking, mean over queries"


def _overview(results: Results, verdicts: Sequence[Verdict]) -> Markup:
    wins = tally(verdicts)
    columns = [Column("method"), Column("a row", "number"), Column("best or level", "number")]
    columns += [
        Column(one.place.name + ("" if one.decides else f" {UNDECIDED}"), "number")
        for one in verdicts
    ]
    scored = [one for one in results.methods if results.bytes_of(one.name) is not None]
    ordered = sorted(scored, key=lambda one: (one.is_control, -wins[one.name], one.number))
    rows = [
        [
            method_cell(one),
            row_bytes(results.bytes_of(one.name)),
            NOTHING if one.is_control else number(wins[one.name]),
            *[value_cell(results, place, one.name, DECIDING) for place in results.places],
        ]
        for one in ordered
    ]
    made = table(columns, rows, caption="All methods on all tasks")
    return made if len(rows) <= 30 else more("All methods on all tasks", made)
