"""Words are what texts are compared by: spelling, case and punctuation must not hide a text."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.words import UNKNOWN, Vocabulary, folded, word_bytes, words_of

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@given(TEXTS)
def test_folding_twice_changes_nothing(text):
    assert folded(folded(text)) == folded(text)


@given(TEXTS)
def test_words_of_words_are_the_words(text):
    words = words_of(text)
    assert words_of(" ".join(words)) == words
    assert not any(c.isspace() or c == "\0" for word in words for c in word)


@given(TEXTS)
def test_unicode_forms_are_one_spelling(text):
    assert words_of(unicodedata.normalize("NFD", text)) == words_of(
        unicodedata.normalize("NFC", text)
    )


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_is_cut_as_other_text_is(text):
    """The short way for ASCII agrees with the long way, which a letter elsewhere makes it take."""
    assert words_of(text) == words_of(f"{text} \u00e9")[:-1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The CAPITAL of France.", "the capital, of france"),
        ("state-of-the-art", "State of the art!"),
        ("na\u00efve caf\u00e9", "nai\u0308ve cafe\u0301"),
        ("\uff46\uff55\uff4c\uff4c\u3000\uff57\uff49\uff44\uff54\uff48", "full width"),
        ("o\ufb03ce", "office"),
        ("soft\u00adhyphen zero\u200bwidth", "softhyphen zerowidth"),
        ("STRASSE", "straße"),
        ("x_y", "x y"),
    ],
)
def test_same_words(one, other):
    assert words_of(one) == words_of(other)


def test_scripts():
    assert words_of("中国首都") == ["中", "国", "首", "都"]
    assert words_of("हिन्दी भाषा") == ["हिन्दी", "भाषा"]  # vowel signs do not cut a word
    assert words_of("don't 3.5 ...") == ["don", "t", "3", "5"]


@given(st.lists(TEXTS, max_size=5), st.lists(TEXTS, max_size=5))
def test_numbers_stand_for_words(known, texts):
    vocabulary = Vocabulary()
    vocabulary.learn(known)
    numbers, ends = vocabulary.numbers([*known, *texts])
    assert len(ends) == len(known) + len(texts)
    assert (numbers[ends] == UNKNOWN).all()
    words = [word for text in [*known, *texts] for word in [*words_of(text), None]]
    assert len(words) == len(numbers)
    learned = {word for text in known for word in words_of(text)}
    assert len(vocabulary) == len(learned)
    number_of = {}
    for word, number in zip(words, numbers.tolist(), strict=True):
        assert (number >= 0) == (word in learned)
        if word in learned:
            assert number_of.setdefault(word, number) == number
    assert len(set(number_of.values())) == len(number_of)


def test_nul_is_no_end_of_a_text():
    vocabulary = Vocabulary()
    vocabulary.learn(["a \0 b"])
    numbers, ends = vocabulary.numbers(["a \0 b", "b\0a"])
    assert numbers.tolist() == [0, 1, UNKNOWN, 1, 0, UNKNOWN]
    assert ends.tolist() == [2, 5]
    assert word_bytes("\0").split() == []
    assert numbers.dtype == np.int32
