"""How many rows are left after each step, and what every constraint cost in value."""

from collections import Counter
from collections.abc import Mapping

from markupsafe import Markup

from storage.corpus import Corpus
from storage.refs import CorpusRef
from tasks.page.markup import Content, joined, tag
from tasks.page.parts import Column, figure, table
from tasks.page.plots import bar
from tasks.page.shell import Section
from tasks.page.text import count, number
from tasks.report_data import ReportData
from tasks.report_words import REASONS, reason_name


def reasons(data: ReportData) -> dict[str, int]:
    """Return how many rows were passed over for each reason, most first."""
    counted = Counter(data.dropped.column("reason").to_pylist())
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def funnel_section(data: ReportData) -> Section:
    """Return the section that follows the number of rows from the raw records to the release."""
    passed = reasons(data)
    parts = [_funnel(data, passed)]
    return Section("Selection", _heading(passed, data), joined(*parts))


def _heading(passed: Mapping[str, int], data: ReportData) -> str:
    if not passed:
        return "Nothing stood between a row's value and its place"
    return (
        f"{count(sum(passed.values()), 'row')} had to make room; the places went to the next best"
        if data.n_released
        else f"{count(sum(passed.values()), 'row')} were passed over"
    )


def _funnel(data: ReportData, passed: Mapping[str, int]) -> Markup:
    corpus = Corpus(CorpusRef(data.root, data.lineage["corpus"]))
    batches = [corpus.manifest(batch["id"]) for batch in data.lineage["batches"]]
    n_rejected = sum(int(batch["n_rejected"]) for batch in batches)
    n_rows = data.values.num_rows
    n_empty = n_rows - data.n_candidates
    n_passed = sum(passed.values())
    n_left = data.n_candidates - data.n_released - n_passed
    n_raw = n_rows + n_rejected
    lines: list[tuple[str, str, int, int, str]] = [
        ("raw records", "", n_raw, 0, "candidate"),
        ("rejected when read", "they failed the checks of ingest", n_rejected, n_rows, "rest"),
        ("without a value", "nothing to predict in them", n_empty, n_rows - n_empty, "rest"),
        (
            "not reached",
            "their values lie on the other side of the cut",
            n_left,
            data.n_candidates - n_left,
            "candidate",
        ),
    ]
    base = data.n_candidates - n_left
    for reason, n in passed.items():
        base -= n
        explained = REASONS.get(reason, ("", ""))[1]
        lines.append((f"passed over: {reason_name(reason)}", explained, n, base, "dropped"))
    lines.append(("released", "", data.n_released, 0, "selected"))
    rows = [_step(*line, n_raw=n_raw) for line in lines if line[2] or line[0] == "released"]
    columns = [Column("step"), Column("", "picture"), Column("rows", "number")]
    picture = table(columns, rows, caption="Rows left out at every step")
    return figure(f"From {count(n_raw, 'record')} to {count(data.n_released, 'row')}", picture)


def _step(name: str, explained: str, n: int, base: int, style: str, *, n_raw: int) -> list[Content]:
    scale = 100 / max(1, n_raw)
    # a step of one row among a million must still be seen
    width = max(n * scale, 0.6) if n else 0.0
    drawn = bar([(min(base * scale, 100 - width), "blank"), (width, style)])
    cell = joined(name, tag("div", explained, class_="note") if explained else None)
    return [cell, drawn, number(n)]
