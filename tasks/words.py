"""The words of a text, as texts are compared: without case, punctuation and Unicode's spellings.

Two texts count as the same words when they differ only in

- case, and compatibility forms (NFKC: full-width letters, ligatures, superscripts, accents
  written as one character or as two),
- punctuation, white space, control and invisible characters (soft hyphens, zero-width joiners).

A word is a run of letters, digits and the marks that belong to them; a hyphen, an apostrophe or
an underscore ends it. Chinese characters and kana stand for themselves, one word each, because
those scripts put no spaces. Thai, Lao, Khmer and Burmese put none either, and are not cut: there
a word is what stands between two spaces.
"""

import functools
import re
import string
import unicodedata
from collections.abc import Sequence
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

UNKNOWN = -1
"""Number of words that a vocabulary does not have, and of the end of a text."""

_TEXT_END = b"\0"
"""Put behind the words of a text; no text has it as a word."""

CACHED_CHARS = 40
"""Pieces up to this long are folded once: words of a language, not lines without a space."""

_IDEOGRAPHS = "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
_INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff"
)
_END_OF_MARKS = 0x1F000
"""No mark beyond here, but for variation selectors, which are invisible."""


def word_bytes(text: str) -> bytes:
    """Return the words of a text in UTF-8, with spaces between them."""
    if text.isascii():
        return text.encode().translate(_ASCII)
    # nothing in folding or in what a word is looks past white space, so pieces can be cached
    pieces = [piece if piece.isascii() else _words_of_piece(piece) for piece in text.split()]
    return " ".join(pieces).encode().translate(_ASCII)


def words_of(text: str) -> list[str]:
    """Return the words of a text."""
    return word_bytes(text).decode().split()


def folded(text: str) -> str:
    """Return a text without case, compatibility forms and invisible characters.

    Source: toNFKC_Casefold of The Unicode Standard, section 3.13.
    """
    if text.isascii():
        return text.lower()
    bare = _invisible().sub("", unicodedata.normalize("NFD", text))
    once = unicodedata.normalize("NFKC", bare.casefold())
    return unicodedata.normalize("NFKC", _invisible().sub("", once.casefold()))


class Vocabulary:
    """Numbers for words, given in the order in which words are first met."""

    def __init__(self) -> None:
        self._numbers = {_TEXT_END: UNKNOWN - 1}

    def __len__(self) -> int:
        """Return how many words have a number."""
        return len(self._numbers) - 1

    def learn(self, texts: Sequence[str]) -> None:
        """Give every word of the texts a number."""
        for text in texts:
            for word in word_bytes(text).split():
                self._numbers.setdefault(word, len(self._numbers) - 1)

    def numbers(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Return the words of several texts, laid end to end.

        Returns:
            Numbers, int32 [n_words + n_texts], `UNKNOWN` for words without one and behind each
            text; and the places where the texts end, int64 [n_texts].
        """
        words = b" ".join(part for text in texts for part in (word_bytes(text), _TEXT_END)).split()
        numbers = np.fromiter(
            map(self._numbers.get, words, repeat(UNKNOWN)), np.int32, count=len(words)
        )
        ends = np.flatnonzero(numbers == UNKNOWN - 1)
        numbers[ends] = UNKNOWN
        return numbers, ends


def _ascii_table() -> bytes:
    """Return what becomes of each byte: lower case, or a space; those above ASCII stay."""
    kept = {ord(one): ord(one.lower()) for one in string.ascii_letters + string.digits}
    return bytes(kept.get(code, code if code > 127 else ord(" ")) for code in range(256))


_ASCII = _ascii_table()


def _words_of_piece(piece: str) -> str:
    return _cached_words(piece) if len(piece) <= CACHED_CHARS else _unicode_words(piece)


@functools.lru_cache(maxsize=1 << 16)
def _cached_words(piece: str) -> str:
    return _unicode_words(piece)


def _unicode_words(text: str) -> str:
    return " ".join(_unicode_word().findall(folded(text)))


@functools.cache
def _invisible() -> re.Pattern[str]:
    return re.compile(f"[{_INVISIBLE}]")


@functools.cache
def _unicode_word() -> re.Pattern[str]:
    marks = "".join(
        re.escape(chr(code))
        for code in range(_END_OF_MARKS)
        if unicodedata.category(chr(code)).startswith("M")
    )
    letter = f"[^\\W_{_IDEOGRAPHS}]"
    return re.compile(f"[{_IDEOGRAPHS}][{marks}]*|{letter}(?:{letter}|[{marks}])*")
