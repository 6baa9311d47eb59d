"""The n-gram table finds what a search by hand finds, and never believes a hash."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rise_ops.ngrams import common_run, ngram_table, shared_texts, without_common

WORDS = st.integers(0, 3)
TEXTS = st.lists(st.lists(WORDS, max_size=12), max_size=6)
QUERIES = st.lists(st.integers(-1, 3), max_size=30)


def laid(texts):
    """Texts end to end, -1 behind each, and where they end."""
    words = [word for text in texts for word in [*text, -1]]
    ends = np.cumsum([len(text) + 1 for text in texts], dtype=np.int64) - 1
    return np.array(words, np.int32), ends.astype(np.int64)


def grams(text, n):
    return {tuple(text[i : i + n]) for i in range(len(text) - n + 1) if min(text[i : i + n]) >= 0}


@given(TEXTS, QUERIES, st.integers(1, 4), st.sampled_from([64, 20]))
def test_as_by_hand(texts, query, n, hash_bits):
    table = ngram_table(*laid(texts), n=n, hash_bits=hash_bits)
    places, ngrams = table.find(np.array(query, np.int32))
    small = set().union(*(grams(text, n) for text in texts))
    expected = [i for i in range(len(query) - n + 1) if tuple(query[i : i + n]) in small]
    assert places.tolist() == expected
    found, counts = shared_texts(table, ngrams)
    by_hand = {i: len(grams(text, n) & grams(query, n)) for i, text in enumerate(texts)}
    assert dict(zip(found.tolist(), counts.tolist(), strict=True)) == {
        text: count for text, count in by_hand.items() if count
    }
    assert table.n_ngrams.tolist() == [len(grams(text, n)) for text in texts]
    for text in found.tolist():
        start, stop = common_run(table, places, ngrams, text)
        run = query[start:stop]
        assert len(run) >= n
        assert grams(run, n) <= grams(texts[text], n)


def test_collisions_are_not_hits():
    """With 6 bits of hash, most windows of a long text hit one; none of them is reported."""
    table = ngram_table(*laid([[0, 1, 2], [3, 4, 5]]), n=3, hash_bits=6)
    rng = np.random.default_rng(0)
    words = rng.integers(6, 100, 5_000).astype(np.int32)
    assert len(table.find(words)[0]) == 0
    words[1_000:1_003] = [3, 4, 5]
    assert table.find(words)[0].tolist() == [1_000]


def test_a_hash_that_cannot_tell_is_refused():
    with pytest.raises(ValueError, match="cannot be told apart by 1 bits"):
        ngram_table(*laid([[0, 1, 2, 3, 4, 5, 6]]), n=2, hash_bits=1)
    with pytest.raises(ValueError, match="at least 1 word"):
        ngram_table(*laid([[0]]), n=0)


@given(TEXTS, st.integers(1, 3), st.integers(0, 4), st.data())
def test_common_ngrams_are_left_out_of_their_set_only(texts, n, most, data):
    set_of = sorted(
        data.draw(st.lists(st.integers(0, 1), min_size=len(texts), max_size=len(texts)))
    )
    table, left_out = without_common(
        ngram_table(*laid(texts), n=n), np.array(set_of, np.int32), np.array([most, 10**6])
    )
    first = [grams(text, n) for text, one in zip(texts, set_of, strict=True) if one == 0]
    common = {gram for gram in set().union(*first) if sum(gram in one for one in first) > most}
    assert left_out.tolist() == [len(common), 0]
    expected = [
        len(grams(text, n) - (common if one == 0 else set()))
        for text, one in zip(texts, set_of, strict=True)
    ]
    assert table.n_ngrams.tolist() == expected
