"""Blocks of a page: tables, facts, figures, highlighted tokens, texts side by side."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from markupsafe import Markup

from tasks.page import text
from tasks.page.markup import Content, joined, rendered, tag

TOKEN_LEVELS = 6
"""Shades of a highlighted token on each side of zero."""
LEAST_LEVEL = 0.04
"""Tokens below this part of the strongest one stay plain."""
DIFF_WORDS = 400
"""Words compared of each of two texts; comparing takes their product."""


class Weighted(Protocol):
    """A token and what it adds to a score."""

    @property
    def token(self) -> str:
        """Its text."""
        ...

    @property
    def contribution(self) -> float:
        """What it adds; may be negative."""
        ...

    @property
    def share(self) -> float:
        """Contribution over score."""
        ...


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its heading.
        kind: ``text``, ``number`` (right-aligned) or ``picture`` (takes the room that is left).
    """

    name: str
    kind: str = "text"


def table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[Content]],
    *,
    caption: str | None = None,
    stacks: bool = False,
) -> Markup:
    """Return a table; it scrolls by itself where it is wider than the page.

    Args:
        columns: Headings; the first column's cells name their rows.
        rows: Cells, as many as columns; strings are shown as they are, numbers grouped.
        caption: What the table says, for those who cannot see the page around it.
        stacks: On a phone every row becomes a block with a line a cell; for tables too wide there.
    """
    return rendered(
        "table.html",
        columns=columns,
        rows=[
            [_cell(cell, column) for cell, column in zip(row, columns, strict=True)] for row in rows
        ],
        caption=caption,
        stacks=stacks,
    )


def _cell(cell: Content, column: Column) -> Content:
    if column.kind == "number" and isinstance(cell, int | float):
        return text.number(cell)
    return text.NOTHING if cell is None else cell


def facts(values: Mapping[str, Content]) -> Markup:
    """Return names and values, one a line."""
    lines = [tag("div", tag("dt", name), tag("dd", value)) for name, value in values.items()]
    return tag("dl", *lines, class_="facts")


def figure(
    heading: str, picture: Markup, *, note: Content = None, legend: Markup | None = None
) -> Markup:
    """Return a picture under a heading that says what it shows, with a note below."""
    return tag(
        "figure",
        tag("figcaption", tag("h3", heading)),
        legend,
        picture,
        None if note is None else tag("p", note, class_="note"),
    )


def more(summary: str, content: Markup) -> Markup:
    """Return content that opens when its summary is clicked; print shows it."""
    return tag("details", tag("summary", summary), content)


@dataclass(frozen=True)
class Hidden:
    """A stretch of a text that is not shown.

    Attributes:
        start: Its first character, from 0.
        stop: The character after it.
        shown: What stands in its place.
    """

    start: int
    stop: int
    shown: str


def passage(
    words: str, n_chars: int, *, prompt_chars: int = 0, hidden: Sequence[Hidden] = ()
) -> Markup:
    """Return a text from a row as a block: line breaks kept, its own direction, cut if long.

    Args:
        words: The text.
        n_chars: Characters of it that are shown.
        prompt_chars: Leading characters that are its prompt; they are set back.
        hidden: Stretches that are masked, in order, without overlap.
    """
    shown, place = [], 0
    for one in hidden:
        if one.start >= n_chars:
            break
        shown += _plain(words, place, one.start, prompt_chars)
        shown.append(tag("span", one.shown, class_="masked"))
        place = one.stop
    stop = max(place, min(n_chars, len(words)))
    shown += _plain(words, place, stop, prompt_chars)
    if stop < len(words):
        left_out = f" … [{text.number(len(words) - stop)} characters more]"
        shown.append(tag("span", left_out, class_="prompt"))
    return tag("div", *shown, class_="text", dir="auto")


def _plain(words: str, start: int, stop: int, prompt_chars: int) -> list[Content]:
    cut = min(max(prompt_chars, start), stop)
    parts: list[Content] = []
    if start < cut:
        parts.append(tag("span", words[start:cut], class_="prompt"))
    if cut < stop:
        parts.append(words[cut:stop])
    return parts


def tokens(shares: Sequence[Weighted], *, n_most: int, before: str = "") -> Markup:
    """Return tokens in order, tinted by what they add to a score; negative ones are underlined.

    Args:
        shares: Tokens in the order of the text.
        n_most: Tokens shown; of a longer text the stretch around its strongest token.
        before: What stands before the first token and adds nothing, such as a prompt.
    """
    strongest = max((abs(one.contribution) for one in shares), default=0.0)
    start = _window(shares, n_most)
    shown = shares[start : start + n_most]
    lead = "… " if start else before
    parts: list[Content] = [tag("span", lead, class_="prompt")] if lead else []
    parts += [_token(one, strongest) for one in shown]
    if start + n_most < len(shares):
        parts.append(" …")
    return tag("div", *parts, class_="text tokens", dir="auto")


def _window(shares: Sequence[Weighted], n_most: int) -> int:
    if len(shares) <= n_most:
        return 0
    peak = max(range(len(shares)), key=lambda place: abs(shares[place].contribution))
    return min(max(0, peak - n_most // 2), len(shares) - n_most)


def _token(one: Weighted, strongest: float) -> Content:
    part = abs(one.contribution) / strongest if strongest > 0 else 0.0
    if part < LEAST_LEVEL:
        return one.token
    level = min(TOKEN_LEVELS, 1 + int(part * TOKEN_LEVELS))
    sign = "p" if one.contribution > 0 else "n"
    return tag("mark", one.token, class_=f"{sign}{level}", title=_signed(one.share))


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}% of the score".replace("-", "\N{MINUS SIGN}")


def differing(words: str, other: str, n_chars: int) -> tuple[Markup, Markup]:
    """Return two texts with what only one of them has marked.

    Args:
        words: One text.
        other: The other.
        n_chars: Characters shown of each.
    """
    left, right = (_words(text.excerpt(one, n_chars)) for one in (words, other))
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
    shown: tuple[list[Content], list[Content]] = ([], [])
    for kind, left_start, left_stop, right_start, right_stop in matcher.get_opcodes():
        for side, run in zip(
            shown, (left[left_start:left_stop], right[right_start:right_stop]), strict=True
        ):
            if run:
                same = kind == "equal"
                side.append("".join(run) if same else tag("mark", "".join(run), class_="only"))
    blocks = [tag("div", *side, class_="text", dir="auto") for side in shown]
    return blocks[0], blocks[1]


def _words(words: str) -> list[str]:
    pieces = re.findall(r"\s+|[^\s]+", words)
    if len(pieces) <= 2 * DIFF_WORDS:
        return pieces
    return [*pieces[: 2 * DIFF_WORDS], " …"]


def paragraphs(*texts: Content) -> Markup:
    """Return each text as a paragraph."""
    return joined(*(tag("p", one) for one in texts))
