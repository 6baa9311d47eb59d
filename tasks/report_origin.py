"""The report's frame: what was asked, and the way from the raw sources to the released rows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from storage.corpus import Corpus
from storage.refs import CorpusRef
from tasks.page.markup import Content, joined, tag
from tasks.page.parts import Column, facts, more, passage, table
from tasks.page.shell import Section
from tasks.page.text import NOTHING, count, listed, number, shortened, size
from tasks.report_data import ReportData
from tasks.report_examples import Example
from tasks.report_private import Masks
from tasks.report_words import quoted, settings_in_words

SHOWN_QUERIES = 4
"""Queries shown as they are."""
QUERY_CHARS = 280
SHA_CHARS = 12
MOST_BATCHES = 6
MOST_FILES = 24
MOST_SOURCES = 6


def asked_section(data: ReportData, masks: Masks) -> Section:
    """Return what was asked: queries, and the settings in words."""
    queries = data.query_set.queries()
    n_queries = queries.num_rows
    labels = Counter(label for label in queries.column("label").to_pylist() if label)
    about = {
        "Query set": f"{data.query_set.ref.name}, version {data.query_set.ref.version}",
        "Queries": _labelled(n_queries, labels),
        **settings_in_words(data.config, n_queries=n_queries),
    }
    shown = shown_queries(data)
    blocks = [
        tag(
            "div",
            tag("p", tag("code", tag("bdi", shortened(query["row_id"], 40))), class_="caption"),
            passage(
                query["text"],
                QUERY_CHARS,
                prompt_chars=query["prompt_chars"],
                hidden=masks.of(query["text"]),
            ),
        )
        for query in shown
    ]
    heading = f"Which rows help with {count(n_queries, 'query', 'queries')}?"
    note = (
        f"{number(len(shown))} of {count(n_queries, 'query', 'queries')}. Grey text is the prompt: "
        "it is read, but only what follows it counts."
    )
    examples = joined(tag("div", *blocks, class_="columns"), tag("p", note, class_="note"))
    return Section("Question", heading, joined(facts(about), tag("div", examples)))


def shown_queries(data: ReportData) -> list[dict[str, Any]]:
    """Return queries spread evenly over the set: row_id, text, prompt_chars."""
    queries = data.query_set.queries().select(["row_id", "text", "prompt_chars"])
    n = min(SHOWN_QUERIES, queries.num_rows)
    places = [number * queries.num_rows // n for number in range(n)]
    found: list[dict[str, Any]] = queries.take(places).to_pylist()
    return found


def _labelled(n_queries: int, labels: Counter[str]) -> str:
    if not labels:
        return number(n_queries)
    if list(labels.values()) == [n_queries]:
        return f"{number(n_queries)}, labelled {quoted(next(iter(labels)))}"
    kinds = [f"{number(n)} {quoted(label)}" for label, n in labels.most_common(6)]
    more_kinds = f" and {number(len(labels) - 6)} more labels" if len(labels) > 6 else ""
    return f"{number(n_queries)}: {listed(kinds)}{more_kinds}"


# ------------------------------------------------------------------------------------ lineage


def lineage_section(data: ReportData, examples: Sequence[Example]) -> Section:
    """Return the way from the raw sources to the release's files, and forward for a few rows."""
    stations = [tag("li", tag("h4", name), *parts) for name, parts in _stations(data)]
    body = [tag("ol", *stations, class_="way"), _forward(data, examples), _files(data)]
    return Section("Lineage", "From source line to released row, station by station", joined(*body))


def _stations(data: ReportData) -> list[tuple[str, list[Content]]]:
    lineage = data.lineage
    corpus = Corpus(CorpusRef(data.root, lineage["corpus"]))
    index, scores = lineage["index"], data.scores.manifest
    return [
        ("Sources", [_sources(data)]),
        (f"Corpus {quoted(lineage['corpus'])}", _batches(lineage["batches"], corpus)),
        (
            f"Index {quoted(index['name'])}",
            [
                _ids(id=index["id"], model=_model_name(data)),
                _counted(count(scores["n_rows"], "row"), "have a signature"),
            ],
        ),
        (
            f"Queries {quoted(lineage['query_set']['name'])}",
            [
                _ids(version=lineage["query_set"]["version"]),
                _counted(count(data.query_set.manifest["n_queries"], "query", "queries"), ""),
            ],
        ),
        (
            "Scores",
            [
                _ids(id=lineage["scores"]["id"]),
                _counted(count(data.n_candidates, "candidate"), "with a value"),
            ],
        ),
        (
            f"Release {quoted(lineage['release']['name'])}",
            [
                _ids(id=lineage["release"]["id"]),
                _counted(count(data.n_released, "row"), "released"),
            ],
        ),
    ]


def _model_name(data: ReportData) -> str:
    """Return the model's name where the index remembers one, and its fingerprint."""
    remembered = (data.index.remembered_model() if data.index else None) or {}
    fingerprint = str(data.lineage["model"].get("model", ""))[:SHA_CHARS]
    # a folder's path says where it lay on one machine
    name = str(remembered.get("name", "")).rstrip("/").rpartition("/")[2]
    return " ".join(part for part in (name, fingerprint) if part) or "unknown"


def _sources(data: ReportData) -> Markup:
    released = sorted(data.lineage["sources"], key=lambda one: -one["n_released"])
    names = [
        f"{shortened(one['source'], 60)} ({count(one['n_released'], 'row')} released)"
        for one in released[:MOST_SOURCES]
    ]
    if len(released) > MOST_SOURCES:
        names.append(f"{number(len(released) - MOST_SOURCES)} more")
    return tag("ul", *[tag("li", tag("bdi", name)) for name in names], class_="plain")


def _batches(batches: Sequence[Mapping[str, Any]], corpus: Corpus) -> list[Content]:
    lines = []
    for batch in batches[:MOST_BATCHES]:
        about = corpus.manifest(batch["id"])
        lines.append(
            tag(
                "li",
                "batch ",
                tag("code", batch["id"]),
                f": {count(about['n_rows'], 'row')}, {number(about['n_rejected'])} rejected, "
                f"{number(batch['n_released'])} released",
            )
        )
    if len(batches) > MOST_BATCHES:
        lines.append(tag("li", f"{number(len(batches) - MOST_BATCHES)} batches more"))
    return [tag("ul", *lines, class_="plain")]


def _ids(**ids: str) -> Markup:
    parts = [joined(f"{name} ", tag("code", shortened(value, 40))) for name, value in ids.items()]
    spaced: list[Content] = [parts[0]]
    for part in parts[1:]:
        spaced += [", ", part]
    return tag("p", *spaced, class_="caption")


def _counted(amount: str, words: str) -> Markup:
    return tag("p", tag("strong", amount), f" {words}", class_="count")


def _forward(data: ReportData, examples: Sequence[Example]) -> Markup:
    """Return the way of a few rows, from their line in a source to their place in the release."""
    block_rows = data.lineage["index"]["identity"].get("block_rows")
    places = _lineage_ids(data, [example.row.row_id for example in examples])
    lines = []
    for example in examples:
        row = example.row
        place = (
            "row {1} of block {0}".format(*divmod(example.position, block_rows))
            if block_rows
            else f"row {example.position}"
        )
        lines.append(
            [
                f"{shortened(row.source, 48)}:{row.source_line}",
                shortened(row.row_id, 32),
                shortened(places.get(row.row_id, NOTHING), 32),
                place,
                number(example.value),
                f"rank {number(example.rank)}" if example.rank else "not released",
            ]
        )
    columns = [
        Column("source line"),
        Column("row"),
        Column("batch:position"),
        Column("index"),
        Column("value", "number"),
        Column("release"),
    ]
    note = tag(
        "p",
        "For any other row or line: ",
        tag("code", "rise lineage ROW"),
        " or ",
        tag("code", "rise lineage SOURCE:LINE"),
        ".",
        class_="note",
    )
    heading = tag("h3", "Some rows, forward")
    return tag(
        "div", heading, table(columns, lines, caption="Ways of single rows", stacks=True), note
    )


def _lineage_ids(data: ReportData, row_ids: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for known in (data.attributes, data.dropped):
        wanted = pc.is_in(known.column("row_id"), pa.array(row_ids, pa.string()))
        lines = known.filter(wanted).select(["row_id", "lineage_id"]).to_pylist()
        found |= {line["row_id"]: line["lineage_id"] for line in lines}
    return found


def _files(data: ReportData) -> Markup:
    entries = data.release.manifest["files"]
    lines = [
        [
            tag("code", entry["name"]),
            entry.get("rows"),
            size(entry["bytes"]),
            tag("code", f"{entry['sha256'][:SHA_CHARS]}…"),
        ]
        for entry in entries[:MOST_FILES]
    ]
    columns = [
        Column("file"),
        Column("rows", "number"),
        Column("size", "number"),
        Column("sha256"),
    ]
    left_out = len(entries) - len(lines)
    note = f"{number(left_out)} files more. " if left_out > 0 else ""
    content = joined(
        table(columns, lines, caption="Files of the release", stacks=True),
        tag("p", f"{note}Whole checksums are in manifest.json.", class_="note"),
    )
    return more(f"{count(len(entries), 'file')}, each with its checksum", content)
