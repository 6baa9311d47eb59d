"""What the guards found: overlap with queries and evaluation sets, strings that look private."""

from collections import Counter
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from tasks.page.markup import Content, joined, tag
from tasks.page.parts import Column, passage, table
from tasks.page.plots import bar
from tasks.page.shell import Section
from tasks.page.text import count, listed, number, percent, shortened
from tasks.report_data import ReportData
from tasks.report_private import Masks
from tasks.report_words import quoted

SHOWN_LEAKS = 20
SHOWN_PRIVATE = 20
EXCERPT_CHARS = 220
ID_CHARS = 36
KINDS: Mapping[str, tuple[str, str]] = {
    "email": ("e-mail address", "e-mail addresses"),
    "phone": ("phone number", "phone numbers"),
    "secret": ("key or password", "keys or passwords"),
}
"""What a private string looks like, one and many."""


def leakage_section(data: ReportData, masks: Masks) -> Section:
    """Return what was found to overlap with queries and evaluation sets."""
    if data.config.leakage.action == "off":
        return Section("Leakage", "Nobody looked for leaks", _off("leakage"))
    found = data.leakage
    compared = tag("p", _compared(data), class_="note")
    if found.num_rows == 0:
        heading = "No overlap with what is asked or tested"
        return Section("Leakage", heading, joined(tag("p", "No row was found."), compared))
    rows, kept = _rows(found), set(data.attributes.column("row_id").to_pylist())
    n_kept, n_all = len(rows & kept), len(rows)
    heading = (
        f"{count(n_kept, 'released row')} share text with queries or evaluation sets"
        if n_kept
        else f"{count(n_all, 'row')} shared text with queries or evaluation sets; none is released"
    )
    body = joined(_leaks_by_set(found), compared, _leaks(data, found, masks))
    return Section("Leakage", heading, body)


def _compared(data: ReportData) -> str:
    """Return what the guard compared with, as far as the release says."""
    about = data.release.manifest.get("guards", {}).get("leakage", {})
    sets = [
        f"{count(facts['texts'], 'text')} of {quoted(name)}"
        for name, facts in about.items()
        if isinstance(facts, Mapping) and "texts" in facts
    ]
    shared = f"shares {data.config.leakage.ngram} words in a row, or everything, with one of"
    return f"Looked for: a row that {shared} {listed(sets) or 'the queries'}."


def _leaks_by_set(found: pa.Table) -> Markup:
    names, kinds_of = found.column("set").to_pylist(), found.column("kind").to_pylist()
    counted = Counter(zip(names, kinds_of, strict=True))
    most = max(counted.values())
    kinds = {"exact": "the same text", "ngram": "words in a row"}
    lines = [
        [shortened(name, ID_CHARS), kinds.get(kind, kind), bar([(100 * n / most, "dropped")]), n]
        for (name, kind), n in sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:12]
    ]
    columns = [Column("set"), Column("overlap"), Column("", "picture"), Column("hits", "number")]
    return table(columns, lines, caption="Overlaps by set and kind")


def _leaks(data: ReportData, found: pa.Table, masks: Masks) -> Markup:
    kept = set(data.attributes.column("row_id").to_pylist())
    order = pc.sort_indices(found, sort_keys=[("share", "descending"), ("row_id", "ascending")])
    lines = [
        [
            shortened(hit["row_id"], ID_CHARS),
            f"{shortened(hit['set'], ID_CHARS)}: {shortened(hit['other_id'], ID_CHARS)}",
            percent(hit["share"]),
            "released" if hit["row_id"] in kept else "removed",
            passage(hit["excerpt"], EXCERPT_CHARS, hidden=masks.of(hit["excerpt"])),
        ]
        for hit in found.take(order[:SHOWN_LEAKS]).to_pylist()
        if hit["row_id"] not in data.withdrawn
    ]
    columns = [
        Column("row"),
        Column("overlaps with"),
        Column("share of it", "number"),
        Column("row is"),
        Column("words that both have", "wide"),
    ]
    note = _shown(len(lines), found.num_rows)
    return tag("div", table(columns, lines, caption="Closest overlaps", stacks=True), note)


def leak_texts(data: ReportData) -> list[str]:
    """Return the excerpts that the page may show."""
    found: list[str] = data.leakage.column("excerpt").to_pylist()
    return found[:1000]


def privacy_section(data: ReportData) -> Section:
    """Return the strings that look private, by shape alone."""
    if data.config.privacy.action == "off":
        return Section("Privacy", "Nobody looked for private strings", _off("privacy"))
    found = data.privacy
    if found.num_rows == 0:
        kinds = listed([_kind(kind, 2) for kind in data.config.privacy.kinds], last="or")
        words = f"No row that was looked at holds what looks like {kinds}."
        return Section("Privacy", "Nothing that looks private", tag("p", words))
    rows, kept = _rows(found), set(data.attributes.column("row_id").to_pylist())
    n_kept = len(rows & kept)
    heading = (
        f"{count(n_kept, 'released row')} may hold something private"
        if n_kept
        else f"{count(len(rows), 'row')} looked private; none is released"
    )
    by_kind = sorted(Counter(found.column("kind").to_pylist()).items())
    what = listed([f"{number(n)} {_kind(kind, n)}" for kind, n in by_kind])
    words = f"Found: {what}. Only their shapes are shown, here and everywhere on this page."
    return Section("Privacy", heading, joined(tag("p", words), _private(found, kept)))


def _private(found: pa.Table, kept: set[str]) -> Markup:
    lines: list[list[Content]] = [
        [
            shortened(hit["row_id"], ID_CHARS),
            _kind(hit["kind"], 1),
            tag("code", shortened(hit["shape"], 48)),
            hit["start"],
            "released" if hit["row_id"] in kept else "removed",
        ]
        for hit in found.slice(0, SHOWN_PRIVATE).to_pylist()
    ]
    columns = [
        Column("row"),
        Column("looks like"),
        Column("shape"),
        Column("at character", "number"),
        Column("row is"),
    ]
    shown = table(columns, lines, caption="Strings that look private", stacks=True)
    return tag("div", shown, _shown(len(lines), found.num_rows))


def _kind(kind: str, n: int) -> str:
    one, many = KINDS.get(kind, (kind, f"{kind}s"))
    return one if n == 1 else many


def _rows(found: pa.Table) -> set[str]:
    return set(found.column("row_id").to_pylist())


def _shown(n_shown: int, n_all: int) -> Markup | None:
    if n_shown == n_all:
        return None
    words = f"{number(n_shown)} of {count(n_all, 'hit')}; all are in the release's folder."
    return tag("p", words, class_="note")


def _off(guard: str) -> Markup:
    return tag("p", "The settings switched this guard off: ", tag("code", f"{guard}.action: off"))
