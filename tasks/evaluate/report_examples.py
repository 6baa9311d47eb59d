"""The report's examples: a query of each task, the top rows of RISE beside those of a rival."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from tasks.evaluate.report_data import Contender, Place, Results
from tasks.evaluate.report_words import figure_of
from tasks.page.markup import Content, joined, tag
from tasks.page.parts import more, passage, tokens
from tasks.page.shell import Section
from tasks.page.text import count, shortened
from tasks.release_config import PrivacyConfig
from tasks.report_private import Masks, find_masks
from tasks.report_tokens import readable_pieces

if TYPE_CHECKING:
    from tasks.attribution import TokenContributions

RISE = "RISE"
ROW_CHARS, QUERY_CHARS, PROMPT_CHARS = 420, 420, 160
ROW_TOKENS, QUERY_TOKENS = 120, 90
OPEN_QUERIES = 1
"""Queries of a task that are shown from the start; the others open when clicked."""
ID_CHARS = 32


@dataclass(frozen=True)
class Asked:
    """A query with what two methods put on top.

    Attributes:
        place: The task.
        query: Its line of the table of examples.
        sides: Method, and its lines, best first: RISE, then its best rival; one where there is one.
    """

    place: Place
    query: Mapping[str, Any]
    sides: tuple[tuple[Contender, tuple[Mapping[str, Any], ...]], ...]


@dataclass(frozen=True)
class Highlighted:
    """A row and a query read again: whole, as the example's texts are cut.

    Attributes:
        tokens: What the tokens of both add to their score.
        row: The row's text.
        query: The query's text.
    """

    tokens: "TokenContributions"
    row: str
    query: str


Highlights = Mapping[tuple[str, str, str, str, str], Highlighted]
"""By task, paradigm, method, query and row."""


def choose_examples(results: Results) -> list[Asked]:
    """Return the queries that the page shows, in the order of the tasks."""
    found = []
    for place in results.places:
        sides = _sides(results, place)
        lines = results.rows_of("examples", place)
        if not sides or not lines:
            continue
        for query_id in dict.fromkeys(line["query_id"] for line in lines):
            own = [line for line in lines if line["query_id"] == query_id]
            query = next(line for line in own if line["rank"] == 0)
            found.append(
                Asked(place, query, tuple((one, _rows_of(own, one.name)) for one in sides))
            )
    return found


def _sides(results: Results, place: Place) -> list[Contender]:
    """Return the best RISE of a task and the best of the others, controls left out."""
    ranked = [one for one in results.ranked(place) if not one.is_control]
    ours = next((one for one in ranked if one.family == RISE), None)
    rival = next((one for one in ranked if one.family != RISE), None)
    return [one for one in (ours, rival) if one is not None]


def _rows_of(lines: Sequence[Mapping[str, Any]], method: str) -> tuple[Mapping[str, Any], ...]:
    own = [line for line in lines if line["method"] == method and line["rank"] > 0]
    return tuple(sorted(own, key=lambda line: int(line["rank"])))


def examples_section(
    examples: Sequence[Asked], highlights: Highlights, no_highlights: str | None
) -> Section | None:
    """Return the section; None without examples.

    Args:
        examples: See `choose_examples`.
        highlights: What tokens add to scores, where it is known.
        no_highlights: Why there are none; None when there are, or none were wanted.
    """
    if not examples:
        return None
    masks = _masks(examples, highlights)
    parts: list[Markup] = [_reading_help(highlights, no_highlights)]
    for place in dict.fromkeys(one.place.key for one in examples):
        own = [one for one in examples if one.place.key == place]
        cards = [_card(one, highlights, masks) for one in own]
        body = [tag("div", *cards[:OPEN_QUERIES], class_="cards")]
        if cards[OPEN_QUERIES:]:
            rest = tag("div", *cards[OPEN_QUERIES:], class_="cards")
            body.append(more(f"{count(len(cards) - OPEN_QUERIES, 'query', 'queries')} more", rest))
        parts.append(tag("div", tag("h3", own[0].place.name), *body))
    return Section("Examples", "What the methods put on top", joined(*parts))


def _masks(examples: Sequence[Asked], highlights: Highlights) -> Masks:
    texts = [one.query["text"] for one in examples]
    texts += [line["text"] for one in examples for _, lines in one.sides for line in lines]
    texts += [text for one in highlights.values() for text in (one.row, one.query)]
    return find_masks(texts, PrivacyConfig())


def _reading_help(highlights: Highlights, no_highlights: str | None) -> Markup:
    words: list[Content] = ["Teal: the row is right for the query. Prompts are grey. "]
    if no_highlights is not None:
        words.append(f"No token highlights: {no_highlights}")
    elif highlights:
        words += [
            "Tinted tokens made the score of RISE: they added ",
            tag("mark", "a little", class_="p2"),
            " or ",
            tag("mark", "much", class_="p6"),
            ", or took away ",
            tag("mark", "a little", class_="n2"),
            " or ",
            tag("mark", "much", class_="n6"),
            "; those of a row add up to it. The query's are tinted for its first row.",
        ]
    return tag("p", *words, class_="note tokens")


def _card(one: Asked, highlights: Highlights, masks: Masks) -> Markup:
    halves = [_side(one, method, lines, highlights, masks) for method, lines in one.sides]
    even = "halves even" if len(halves) > 1 else "halves"
    label = f"labelled “{shortened(one.query['label'], ID_CHARS)}”"
    head = tag(
        "header",
        tag("strong", "Query"),
        tag("span", label),
        tag("code", tag("bdi", shortened(one.query["query_id"], ID_CHARS))),
    )
    return tag(
        "article",
        head,
        tag("div", _query(one, highlights, masks), class_="query"),
        tag("div", *halves, class_=even),
        class_="card is-selected",
    )


def _query(one: Asked, highlights: Highlights, masks: Masks) -> Markup:
    text = one.query["text"]
    found = next(
        (_found(one, m, line, highlights) for m, lines in one.sides for line in lines), None
    )
    if found is not None and masks.allows_tokens(found.query):
        before, pieces = readable_pieces(found.tokens.query, found.query)
        return tokens(pieces, n_most=QUERY_TOKENS, before=before[-PROMPT_CHARS:])
    n_prompt = one.query["prompt_chars"]
    return passage(text, QUERY_CHARS, prompt_chars=n_prompt, hidden=masks.of(text))


def _found(
    one: Asked, method: Contender, line: Mapping[str, Any], highlights: Highlights
) -> Highlighted | None:
    query_id = one.query["query_id"]
    return highlights.get((*one.place.key, method.name, query_id, line["row_id"]))


def _side(
    one: Asked,
    method: Contender,
    lines: Sequence[Mapping[str, Any]],
    highlights: Highlights,
    masks: Masks,
) -> Markup:
    name = tag("h4", tag("span", method.name, class_=f"family {method.style}"))
    n_right = sum(line["is_positive"] for line in lines)
    words = f"{n_right} of the {len(lines)} highest are right"
    shown = [_row(one, method, line, highlights, masks) for line in lines]
    return tag("div", name, tag("p", words, class_="caption"), *shown, class_="half")


def _row(
    one: Asked, method: Contender, line: Mapping[str, Any], highlights: Highlights, masks: Masks
) -> Markup:
    found, text = _found(one, method, line, highlights), line["text"]
    if found is not None and masks.allows_tokens(found.row):
        before, pieces = readable_pieces(found.tokens.row, found.row)
        body = tokens(pieces, n_most=ROW_TOKENS, before=before[-PROMPT_CHARS:])
    else:
        body = passage(text, ROW_CHARS, prompt_chars=line["prompt_chars"], hidden=masks.of(text))
    verdict = "right" if line["is_positive"] else "other"
    about = (
        f"{line['rank']}. {verdict}, “{shortened(line['label'], ID_CHARS)}”, "
        f"score {figure_of(line['score'])}"
    )
    style = "right" if line["is_positive"] else "wrong"
    return tag("div", tag("p", about, class_=f"caption {style}"), body, class_="example")
