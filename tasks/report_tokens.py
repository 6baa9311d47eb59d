"""Tokens of a text as pieces that can be read: characters cut by the tokenizer are made whole.

Tokenizers of bytes cut a character of many scripts into several tokens, each of which decodes to a
replacement mark. Neighbours like that become one piece, whose text is found in the row itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from tasks.page.parts import Weighted

BROKEN = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Piece:
    """One or more tokens: their text, what they add to the score, and their share of it."""

    token: str
    contribution: float
    share: float


def readable_pieces(shares: Sequence[Weighted], text: str) -> tuple[str, list[Piece]]:
    """Return what stands before the first token, and the tokens as pieces of the text.

    Args:
        shares: Tokens at the end of the text, in order.
        text: The text. Where it does not fit the tokens they stay as they are.
    """
    pieces = [
        Piece(
            "".join(t.token for t in run),
            sum(t.contribution for t in run),
            sum(t.share for t in run),
        )
        for is_broken, together in groupby(shares, key=lambda one: BROKEN in one.token)
        for run in ([list(together)] if is_broken else [[one] for one in together])
    ]
    found = _aligned(pieces, text)
    return ("", pieces) if found is None else found


def _aligned(pieces: Sequence[Piece], text: str) -> tuple[str, list[Piece]] | None:
    """Return the pieces with their own words, found from the end of the text backwards."""
    found: list[Piece] = []
    end = len(text)
    for number in range(len(pieces) - 1, -1, -1):
        piece = pieces[number]
        before = pieces[number - 1].token if number else ""
        start = end - len(piece.token)
        if BROKEN in piece.token:
            # a run has at least one character; what is before it says where it begins
            place = text.rfind(before, 0, end - 1) if before else end - 1 - len(before)
            start = place + len(before)
            if place < 0:
                return None
        if start < 0 or (BROKEN not in piece.token and text[start:end] != piece.token):
            return None
        found.append(Piece(text[start:end], piece.contribution, piece.share))
        end = start
    return text[:end], found[::-1]
