"""Strings in shown texts that look private: masked on the page, whatever the release does."""

from collections.abc import Iterable, Mapping, Sequence

from storage.corpus import Row
from tasks.page.parts import Hidden
from tasks.privacy import privacy_check
from tasks.release_config import PrivacyConfig


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


def find_masks(texts: Iterable[str], config: PrivacyConfig) -> Masks:
    """Look for private strings in texts; none when the guard is off.

    Args:
        texts: Everything from rows and queries that the page is going to show.
        config: Which kinds to look for.
    """
    if config.action == "off":
        return Masks({})
    distinct = list(dict.fromkeys(texts))
    check = privacy_check(PrivacyConfig(action="report", kinds=config.kinds))
    if check is None or not distinct:
        return Masks({})
    check.faults([_row(number, text) for number, text in enumerate(distinct)])
    hidden: dict[str, list[Hidden]] = {}
    for hit in sorted(check.hits().to_pylist(), key=lambda one: (one["start"], -one["n_chars"])):
        found = hidden.setdefault(distinct[int(hit["row_id"])], [])
        stop = hit["start"] + hit["n_chars"]
        if not found or hit["start"] >= found[-1].stop:
            found.append(Hidden(hit["start"], stop, hit["shape"]))
        elif stop > found[-1].stop:  # two rules found strings that overlap: hide both
            found[-1] = Hidden(found[-1].start, stop, found[-1].shown)
    return Masks(hidden)


def _row(number: int, text: str) -> Row:
    return Row(
        row_id=str(number),
        text=text,
        prompt_chars=0,
        label=None,
        source="report",
        source_line=number + 1,
        content_hash="",
        n_tokens=0,
    )
