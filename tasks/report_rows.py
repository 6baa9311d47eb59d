"""The report's rows: examples at the top, at the cut and passed over; duplicates side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow.compute as pc
from markupsafe import Markup

from storage.corpus import Row
from tasks.page.markup import Content, joined, tag
from tasks.page.parts import differing, more, passage, tokens
from tasks.page.shell import Section
from tasks.page.text import count, number, shortened
from tasks.report_data import ReportData
from tasks.report_examples import Example, Examples
from tasks.report_private import Masks
from tasks.report_tokens import readable_pieces
from tasks.report_words import REASONS, reason_name

ROW_CHARS, QUERY_CHARS = 900, 420
"""Characters of a row and of a query that a card shows."""
ROW_TOKENS, QUERY_TOKENS = 180, 90
"""Tokens likewise."""
PROMPT_CHARS = 240
"""Characters of a prompt shown before highlighted tokens: its end."""
PAIR_CHARS = 600
MOST_PAIRS, MOST_LOOKED_AT = 12, 1000
"""Pairs of duplicates shown, and looked at to find as many."""
ID_CHARS = 40
OPEN_CARDS = 2
"""Cards of a kind that are open from the start; a phone shows one at a time."""


def examples_section(examples: Examples, masks: Masks, *, highlights: bool) -> Section:
    """Return the section with example rows; the first cards are open, more can be."""
    parts: list[Markup] = []
    if highlights:
        parts.append(_reading_help(examples))
    for heading, chosen in (
        ("At the top", examples.top),
        ("Just above the cut", examples.last),
        ("Just below the cut", examples.next),
        ("Passed over", examples.rejected),
    ):
        if chosen:
            cards = [_card(example, masks) for example in chosen]
            parts.append(tag("div", tag("h3", heading), *_opening(cards)))
    return Section("Rows", "What the rows look like, and the query each answers", joined(*parts))


def _opening(cards: Sequence[Markup]) -> list[Markup]:
    """Return the first cards as they are, and the rest to be opened."""
    first, rest = cards[:OPEN_CARDS], cards[OPEN_CARDS:]
    shown = [tag("div", *first, class_="cards")]
    if rest:
        shown.append(more(f"{number(len(rest))} more", tag("div", *rest, class_="cards")))
    return shown


def _reading_help(examples: Examples) -> Markup:
    if examples.no_highlights is not None:
        return tag("p", f"No token highlights: {examples.no_highlights}", class_="note")
    more_and_more = ("a little", "more", "most")
    swatches = {
        sign: [
            tag("mark", words, class_=f"{sign}{level}")
            for words, level in zip(more_and_more, (2, 4, 6), strict=True)
        ]
        for sign in "pn"
    }
    return tag(
        "p",
        "Tinted tokens made the score. They added ",
        *_spaced(swatches["p"]),
        " or took away ",
        *_spaced(swatches["n"]),
        ". The row's tokens add up to its score for the query beside it, and so do the query's.",
        class_="note tokens",
    )


def _spaced(parts: Sequence[Markup]) -> list[Content]:
    spaced: list[Content] = [content for part in parts for content in (part, ", ")]
    return spaced[:-1]


def _card(example: Example, masks: Masks) -> Markup:
    kind = "dropped" if example.reason else "selected" if example.rank else "next"
    halves = [_row_half(example, masks), _query_half(example, masks)]
    return tag(
        "article",
        tag("header", *_title(example)),
        tag("div", *[half for half in halves if half is not None], class_="halves"),
        class_=f"card is-{kind}",
    )


def _title(example: Example) -> list[Content]:
    name = f"Rank {number(example.rank)}" if example.rank else f"Value {number(example.value)}"
    parts: list[Content] = [tag("strong", name)]
    if example.rank:
        parts.append(tag("span", f"value {number(example.value)}"))
    about = example.about or {}
    for key, words in (("percentile", "percentile {}"), ("false_discovery", "false discovery {}")):
        if about.get(key) is not None:
            parts.append(tag("span", words.format(number(about[key]))))
    if example.reason:
        explained = REASONS.get(example.reason, ("", example.detail or ""))[1]
        parts.append(tag("span", reason_name(example.reason), class_="reason", title=explained))
        parts.append(tag("span", shortened(example.detail or explained, 160)))
    parts.append(tag("code", tag("bdi", shortened(example.row.row_id, ID_CHARS))))
    return parts


def _row_half(example: Example, masks: Masks) -> Markup:
    row = example.row
    hidden = masks.of(row.text)
    if example.tokens is not None and masks.allows_tokens(row.text):
        before, pieces = readable_pieces(example.tokens.row, row.text)
        body = tokens(pieces, n_most=ROW_TOKENS, before=before[-PROMPT_CHARS:])
    else:
        body = passage(row.text, ROW_CHARS, prompt_chars=row.prompt_chars, hidden=hidden)
    return tag("div", tag("p", _row_caption(row), class_="caption"), body, class_="half")


def _row_caption(row: Row) -> str:
    label = f", labelled “{shortened(row.label, ID_CHARS)}”" if row.label else ""
    where = f"{shortened(row.source.rpartition('/')[2], ID_CHARS)}:{row.source_line}"
    return f"{count(row.n_tokens, 'token')} from {where}{label}"


def _query_half(example: Example, masks: Masks) -> Markup | None:
    asked = example.answered
    if asked is None:
        return None
    words = asked.prompt + asked.completion
    hidden = masks.of(words)
    if example.tokens is not None and masks.allows_tokens(words):
        before, pieces = readable_pieces(example.tokens.query, words)
        body = tokens(pieces, n_most=QUERY_TOKENS, before=before[-PROMPT_CHARS:])
    else:
        prompt_chars = len(asked.prompt)
        body = passage(words, QUERY_CHARS, prompt_chars=prompt_chars, hidden=hidden)
    caption = f"Strongest for query {shortened(asked.query_id, 20)}: {number(asked.score)}"
    return tag("div", tag("p", caption, class_="caption"), body, class_="half query")


# --------------------------------------------------------------------------------- duplicates


@dataclass(frozen=True)
class Pair:
    """A row that was passed over and the released row that it repeats.

    Attributes:
        dropped: The row that was passed over.
        kept: The one that was taken before.
        reason: Which kind of likeness.
        detail: How alike they are, in the solver's words.
    """

    dropped: Row
    kept: Row
    reason: str
    detail: str


def read_pairs(data: ReportData) -> tuple[Pair, ...]:
    """Return passed-over near duplicates beside what they repeat, in the order of places."""
    released = set(data.attributes.column("row_id").to_pylist()) - data.withdrawn
    found = []
    repeats = pc.starts_with(data.dropped.column("reason"), "duplicate")
    for line in data.dropped.filter(repeats).slice(0, MOST_LOOKED_AT).to_pylist():
        if line["row_id"] in data.withdrawn:
            continue
        kept = _kept_id(line["detail"] or "", released)
        if kept is not None:
            found.append((line["row_id"], kept, line["reason"], line["detail"]))
        if len(found) == MOST_PAIRS:
            break
    ids = [row_id for pair in found for row_id in pair[:2]]
    rows = data.rows(ids)
    return tuple(Pair(rows[pair[0]], rows[pair[1]], pair[2], pair[3]) for pair in found)


def _kept_id(detail: str, released: set[str]) -> str | None:
    """Return the released row that a detail names: ``of <row id>, <how alike>``."""
    parts = detail.removeprefix("of ").split(", ")
    named = (", ".join(parts[:n]) for n in range(1, len(parts) + 1))
    return next((row_id for row_id in named if row_id in released), None)


def duplicates_section(data: ReportData, pairs: Sequence[Pair], masks: Masks) -> Section | None:
    """Return the section with near duplicates; None when they were not looked for."""
    collapse = data.config.collapse
    if collapse.text is None and collapse.signature is None:
        return None
    reasons = data.dropped.column("reason").to_pylist()
    n_dropped = sum(reason.startswith("duplicate") for reason in reasons)
    if not n_dropped:
        words = "No row that was reached repeats one taken before."
        return Section("Duplicates", "Nothing is said twice", tag("p", words))
    cards = [_pair_card(pair, masks) for pair in pairs]
    note = tag(
        "p",
        "Left: passed over. Right: the released row that it repeats. Marked words stand on one "
        f"side only. {number(len(pairs))} of {count(n_dropped, 'row')}.",
        class_="note",
    )
    heading = f"{count(n_dropped, 'row')} said what a released row already says"
    return Section("Duplicates", heading, joined(note, tag("div", *_opening(cards))))


def _pair_card(pair: Pair, masks: Masks) -> Markup:
    left, right = pair.dropped.text, pair.kept.text
    if masks.of(left) or masks.of(right):
        sides = [
            passage(one, PAIR_CHARS, prompt_chars=0, hidden=masks.of(one)) for one in (left, right)
        ]
    else:
        sides = list(differing(left, right, PAIR_CHARS))
    halves = [
        tag("div", tag("p", tag("code", shortened(row.row_id, ID_CHARS)), class_="caption"), side)
        for row, side in zip((pair.dropped, pair.kept), sides, strict=True)
    ]
    title = [
        tag("span", reason_name(pair.reason), class_="reason"),
        tag("span", shortened(pair.detail, 120)),
    ]
    return tag(
        "article",
        tag("header", *title),
        tag("div", *halves, class_="halves even"),
        class_="card is-dropped",
    )
