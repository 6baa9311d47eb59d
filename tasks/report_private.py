"""Strings in shown texts that look private: masked on the page, whatever the release does."""

from collections.abc import Iterable, Mapping, Sequence

from tasks.page.parts import Hidden
from tasks.privacy import find_private, shape
from tasks.release_config import PrivacyConfig

SEARCHED_CHARS = 20_000
"""Characters searched of a text, from its beginning: more than a page ever shows."""


class Masks:
    """What to hide in texts that the page shows.

    A page travels farther than the data it describes: what looks like an address, a number or a
    key is shown as its shape alone.
    """

    def __init__(self, hidden: Mapping[str, Sequence[Hidden]]) -> None:
        """Use `find_masks`."""
        self._hidden = hidden

    def of(self, text: str) -> Sequence[Hidden]:
        """Return the stretches of a text that are hidden, in order."""
        return self._hidden.get(text, ())

    def allows_tokens(self, text: str) -> bool:
        """Tell whether a text may be shown by tokens: all of it was searched, nothing found."""
        return len(text) <= SEARCHED_CHARS and not self.of(text)


def find_masks(texts: Iterable[str], config: PrivacyConfig) -> Masks:
    """Look for private strings in texts; none when the guard is off.

    Args:
        texts: Everything from rows and queries that the page is going to show.
        config: Which kinds to look for.
    """
    if config.action == "off":
        return Masks({})
    found = {text: _hidden(text, config) for text in dict.fromkeys(texts)}
    return Masks({text: hidden for text, hidden in found.items() if hidden})


def _hidden(text: str, config: PrivacyConfig) -> list[Hidden]:
    hidden: list[Hidden] = []
    for one in find_private(text[:SEARCHED_CHARS], config.kinds, config.phone_regions):
        if not hidden or one.start >= hidden[-1].stop:
            words = text[one.start : one.stop]
            hidden.append(Hidden(one.start, one.stop, shape(words, one.kind)))
        elif one.stop > hidden[-1].stop:  # two rules found strings that overlap: hide both
            hidden[-1] = Hidden(hidden[-1].start, one.stop, hidden[-1].shown)
    return hidden
