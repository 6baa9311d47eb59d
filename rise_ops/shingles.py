"""Hashes of word n-grams, all texts at once: what MinHash takes as the set of a text."""

import numpy as np
from jaxtyping import Int64, UInt64

_ODD = 0x9E37_79B9_7F4A_7C15
"""Base of the polynomial: 2**64 over the golden ratio, odd."""


def shingle_hashes(
    words: UInt64[np.ndarray, " words"],
    offsets: Int64[np.ndarray, " bounds"],
    *,
    n_words: int,
) -> tuple[UInt64[np.ndarray, " shingles"], Int64[np.ndarray, " bounds"]]:
    """Return a hash of every run of ``n_words`` words of each text.

    A text with fewer words is one shingle of all of them, a text without words one of none.

    Args:
        words: Hashes of the words of all texts, laid end to end.
        offsets: Where each text begins, and the end; int64 [texts + 1].
        n_words: Words of a shingle, at least 1.

    Returns:
        Hashes laid end to end and, as before, where each text's begin.
    """
    counts = np.diff(offsets)
    powers = _powers(n_words)
    rolled = np.zeros(len(words), np.uint64)
    for place, power in enumerate(powers[: len(words)]):
        rolled[: len(words) - place] += words[place:] * power
    n_shingles = np.maximum(counts - n_words + 1, 1)
    starts = np.concatenate([[0], np.cumsum(n_shingles)])
    within = np.arange(starts[-1]) - np.repeat(starts[:-1], n_shingles)
    firsts = np.repeat(offsets[:-1], n_shingles) + within
    # a text without words at the very end begins behind the last word
    shingles = np.append(rolled, np.uint64(0))[np.minimum(firsts, len(words))]
    for text in np.flatnonzero(counts < n_words):
        own = words[offsets[text] : offsets[text + 1]]
        shingles[starts[text]] = (own * powers[: len(own)]).sum(dtype=np.uint64)
    return mixed(shingles), starts


def mixed(numbers: UInt64[np.ndarray, "*any"]) -> UInt64[np.ndarray, "*any"]:
    """Return well mixed bits of every number, one to one (the finaliser of SplitMix64)."""
    mix = numbers ^ (numbers >> np.uint64(30))
    mix *= np.uint64(0xBF58_476D_1CE4_E5B9)
    mix ^= mix >> np.uint64(27)
    mix *= np.uint64(0x94D0_49BB_1331_11EB)
    return mix ^ (mix >> np.uint64(31))


def _powers(n_words: int) -> UInt64[np.ndarray, " powers"]:
    return np.array([pow(_ODD, place, 2**64) for place in range(n_words)], np.uint64)
