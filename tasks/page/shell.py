"""The page around its sections: head, style, headline, contents.

The page's policy lets a browser load nothing and run nothing, from anywhere, itself included.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from markupsafe import Markup

from tasks.page.markup import TEMPLATES, rendered


@dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes:
        name: Its short name, in the contents and as its anchor: letters and spaces.
        heading: What it says in one line.
        body: Its content.
    """

    name: str
    heading: str
    body: Markup

    @property
    def anchor(self) -> str:
        """Its id in the page."""
        return self.name.lower().replace(" ", "-")


@dataclass(frozen=True)
class Headline:
    """The top of a page.

    Attributes:
        kicker: A line above: what kind of page this is, of what.
        title: The result in one sentence.
        standfirst: How it came about, in one or two sentences.
        numbers: Key numbers and what each counts.
    """

    kicker: str
    title: str
    standfirst: str
    numbers: Sequence[tuple[str, str]] = field(default=())


@dataclass(frozen=True)
class WrittenPage:
    """A page that was written.

    Attributes:
        path: Where it is.
        title: Its headline.
        n_bytes: Its size.
        no_highlights: Why it has no token highlights; None when it has, or none were wanted.
    """

    path: str
    title: str
    n_bytes: int
    no_highlights: str | None


def page(headline: Headline, sections: Sequence[Section], *, footer: str) -> str:
    """Return a whole HTML page that needs nothing but itself.

    Args:
        headline: Its top.
        sections: In the order to read.
        footer: Last line.
    """
    style, digest = _style()
    html = rendered(
        "page.html",
        headline=headline,
        sections=sections,
        footer=footer,
        style=Markup(style),
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'",
    )
    return f"{html}\n"


@lru_cache(maxsize=1)
def _style() -> tuple[str, str]:
    """Return the style sheet, and its digest as a content security policy wants it."""
    style = (TEMPLATES / "page.css").read_text("utf-8")
    return style, base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
