"""Which texts share n consecutive words: a table of the small side's n-grams, asked by the large.

Words are numbers, so an n-gram is n integers. Each distinct n-gram of the small side gets a 64-bit
polynomial hash of its words; the table is built only with a multiplier under which no two of them
collide. A window of the large side that hits a hash is then compared word by word with the one
n-gram that has it. What is reported is therefore an overlap of words, never one of hashes.

Nearly all windows miss. A table of bits, small enough for the cache, answers for most of them
before the sorted hashes are searched.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt64

MULTIPLIERS = tuple(
    np.uint64(value)
    for value in (0x9E37_79B9_7F4A_7C15, 0xD6E8_FEB8_6659_FD93, 0xA076_1D64_78BD_642F)
)
"""Odd numbers with well mixed bits, tried in this order."""

HASH_BITS = 64
FILTER_BITS_EACH = 16
"""Bits of the filter an n-gram: about one window in 16 that is not there passes."""

LEAST_FILTER = 1 << 12
_SPREAD = np.uint64(0xFF51_AFD7_ED55_8CCD)


@dataclass(frozen=True)
class NgramTable:
    """The n-grams of the small side.

    Attributes:
        n: Words of an n-gram.
        n_texts: Texts of the small side.
        words: int32, all texts laid end to end, a negative number behind each.
        starts: int64 [n_ngrams], where an n-gram stands in ``words``, by ascending hash.
        hashes: uint64 [n_ngrams], ascending, all different.
        offsets: int64 [n_ngrams + 1] into ``texts``.
        texts: int32, the texts that have an n-gram, ascending for each.
        n_ngrams: int32 [n_texts], distinct n-grams of each text that are in the table.
    """

    n: int
    n_texts: int
    words: Int32[np.ndarray, " words"]
    starts: Int64[np.ndarray, " ngrams"]
    hashes: UInt64[np.ndarray, " ngrams"]
    offsets: Int64[np.ndarray, " bounds"]
    texts: Int32[np.ndarray, " postings"]
    n_ngrams: Int32[np.ndarray, " texts"]
    _multiplier: np.uint64
    _hash_bits: int
    _filter: Bool[np.ndarray, " bits"]

    def find(
        self, words: Int32[np.ndarray, " words"]
    ) -> tuple[Int64[np.ndarray, " hits"], Int64[np.ndarray, " hits"]]:
        """Return the places in ``words`` where an n-gram of the table begins, and which it is.

        Args:
            words: Any texts laid end to end, a negative number between them and for every word
                that the small side does not have.
        """
        places = _whole_windows(words, self.n)
        if not len(places) or not len(self.hashes):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        hashes = _hashes(words, self.n, self._multiplier, self._hash_bits)[places]
        passed = self._filter[_filter_places(hashes, len(self._filter))]
        places, hashes = places[passed], hashes[passed]
        ngrams = np.searchsorted(self.hashes, hashes)
        there = ngrams < len(self.hashes)
        there[there] = self.hashes[ngrams[there]] == hashes[there]
        places, ngrams = places[there], ngrams[there].astype(np.int64)
        same = _same_words(words, places, self.words, self.starts[ngrams], self.n)
        return places[same], ngrams[same]


def ngram_table(
    words: Int32[np.ndarray, " words"],
    ends: Int64[np.ndarray, " texts"],
    *,
    n: int,
    hash_bits: int = HASH_BITS,
) -> NgramTable:
    """Return the table of all n-grams of some texts.

    Args:
        words: The texts laid end to end, a negative number behind each.
        ends: Places of those numbers, ascending, one a text.
        n: Words of an n-gram, at least 1.
        hash_bits: Fewer make collisions likely; only tests want that.

    Raises:
        ValueError: ``n`` is below 1, or the hash cannot tell the n-grams apart.
    """
    if n < 1:
        raise ValueError(f"an n-gram has at least 1 word, got n = {n}")
    places = _whole_windows(words, n)
    for multiplier in MULTIPLIERS:
        hashes = _hashes(words, n, multiplier, hash_bits)[places]
        order = np.argsort(hashes, kind="stable")
        hashes, ordered = hashes[order], places[order]
        first = np.concatenate([np.ones(min(len(hashes), 1), np.bool_), hashes[1:] != hashes[:-1]])
        ngram = np.cumsum(first) - 1
        starts = ordered[first]
        if _same_words(words, ordered, words, starts[ngram], n).all():
            break
    else:
        raise ValueError(
            f"{len(places)} n-grams cannot be told apart by {hash_bits} bits of hash; give all 64"
        )
    text = np.searchsorted(ends, ordered)
    # in order already: places ascend among equal hashes, and texts with them
    repeated = (ngram[1:] == ngram[:-1]) & (text[1:] == text[:-1])
    fresh = np.concatenate([first[:1], ~repeated])
    found, text = ngram[fresh], text[fresh]
    return NgramTable(
        n=n,
        n_texts=len(ends),
        words=words,
        starts=starts,
        hashes=hashes[first],
        offsets=np.searchsorted(found, np.arange(len(starts) + 1)),
        texts=text.astype(np.int32),
        n_ngrams=np.bincount(text, minlength=len(ends)).astype(np.int32),
        _multiplier=multiplier,
        _hash_bits=hash_bits,
        _filter=_bit_filter(hashes[first]),
    )


def without_common(
    table: NgramTable, set_of: Int32[np.ndarray, " texts"], most: Int64[np.ndarray, " sets"]
) -> tuple[NgramTable, Int64[np.ndarray, " sets"]]:
    """Leave out n-grams that stand in more than ``most`` texts of a set: they are its form.

    Args:
        table: The n-grams of all sets.
        set_of: int32 [n_texts], the set of each text, from 0.
        most: int64 [n_sets], texts of a set that an n-gram may stand in.

    Returns:
        The table without them in the texts of that set, and how many were left out of each set.
    """
    ngram = np.repeat(np.arange(len(table.starts)), np.diff(table.offsets))
    group = ngram * len(most) + set_of[table.texts]
    pairs, place, counts = np.unique(group, return_inverse=True, return_counts=True)
    common = counts > most[pairs % len(most)]
    kept = ~common[place]
    offsets = np.searchsorted(ngram[kept], np.arange(len(table.starts) + 1))
    texts = table.texts[kept]
    n_ngrams = np.bincount(texts, minlength=table.n_texts).astype(np.int32)
    n_left_out = np.bincount(pairs[common] % len(most), minlength=len(most))
    return replace(table, offsets=offsets, texts=texts, n_ngrams=n_ngrams), n_left_out


def shared_texts(
    table: NgramTable, ngrams: Int64[np.ndarray, " hits"]
) -> tuple[Int32[np.ndarray, " texts"], Int64[np.ndarray, " texts"]]:
    """Return the texts of the small side that have some of a text's n-grams, and how many.

    Args:
        table: The small side.
        ngrams: int64, from `NgramTable.find`: those of one text of the large side.

    Returns:
        Texts, int32, ascending; and distinct n-grams in common with each, int64, at least 1.
    """
    texts, _ = _postings(table, np.unique(ngrams))
    return np.unique(texts, return_counts=True)


def common_run(
    table: NgramTable,
    places: Int64[np.ndarray, " hits"],
    ngrams: Int64[np.ndarray, " hits"],
    text: int,
) -> tuple[int, int]:
    """Return where the first run of words that one text shares with another begins and ends.

    Args:
        table: The small side.
        places: int64, ascending, from `NgramTable.find`: those of one text of the large side.
        ngrams: int64, likewise.
        text: A text of the small side that has one of the n-grams.
    """
    texts, owners = _postings(table, np.unique(ngrams))
    mine = places[np.isin(ngrams, owners[texts == text])]
    run = int(np.argmax(np.append(np.diff(mine) > 1, [True])))
    return int(mine[0]), int(mine[run]) + table.n


def _postings(
    table: NgramTable, ngrams: Int64[np.ndarray, " ngrams"]
) -> tuple[Int32[np.ndarray, " postings"], Int64[np.ndarray, " postings"]]:
    """Return the texts of each n-gram, and the n-gram that each stands for."""
    sizes = table.offsets[ngrams + 1] - table.offsets[ngrams]
    shift = table.offsets[ngrams] - (np.cumsum(sizes) - sizes)
    places = np.arange(sizes.sum()) + np.repeat(shift, sizes)
    return table.texts[places], np.repeat(ngrams, sizes)


def _whole_windows(words: Int32[np.ndarray, " words"], n: int) -> Int64[np.ndarray, " windows"]:
    """Return where ``n`` words follow one another without a negative number among them."""
    if len(words) < n:
        return np.empty(0, np.int64)
    unknown = np.concatenate([[0], np.cumsum(words < 0)])
    return np.flatnonzero(unknown[n:] == unknown[:-n])


def _hashes(
    words: Int32[np.ndarray, " words"], n: int, multiplier: np.uint64, hash_bits: int
) -> UInt64[np.ndarray, " windows"]:
    """Return the hash of every window, those with negative numbers included."""
    numbers = words.astype(np.uint64)
    n_windows = max(len(words) - n + 1, 0)
    hashes = np.zeros(n_windows, np.uint64)
    for word in range(n):
        hashes *= multiplier
        hashes += numbers[word : word + n_windows]
    hashes ^= hashes >> np.uint64(32)
    hashes *= _SPREAD  # the filter reads the upper bits
    return hashes >> np.uint64(64 - hash_bits) if hash_bits < HASH_BITS else hashes


def _same_words(
    words: Int32[np.ndarray, " words"],
    places: Int64[np.ndarray, " pairs"],
    others: Int32[np.ndarray, " others"],
    starts: Int64[np.ndarray, " pairs"],
    n: int,
) -> Bool[np.ndarray, " pairs"]:
    same = np.ones(len(places), np.bool_)
    for word in range(n):
        same &= words[places + word] == others[starts + word]
    return same


def _bit_filter(hashes: UInt64[np.ndarray, " ngrams"]) -> Bool[np.ndarray, " bits"]:
    n_bits = LEAST_FILTER
    while n_bits < len(hashes) * FILTER_BITS_EACH:
        n_bits *= 2
    bits = np.zeros(n_bits, np.bool_)
    bits[_filter_places(hashes, n_bits)] = True
    return bits


def _filter_places(hashes: UInt64[np.ndarray, " ngrams"], n_bits: int) -> Int64[np.ndarray, " _"]:
    return (hashes >> np.uint64(64 - (n_bits.bit_length() - 1))).astype(np.int64)
