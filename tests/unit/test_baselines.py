import math

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from rise_ops.baselines.bm25 import Bm25Index, bm25_scores
from rise_ops.baselines.length_scores import length_scores
from rise_ops.baselines.mean_hidden_state import kept_states, mean_state_scores, mean_states
from rise_ops.baselines.random_scores import random_scores
from rise_ops.baselines.tf_idf import TfIdfIndex, tf_idf_scores

ROWS = ["the cat sat on the mat", "a dog ran", "", "cat cat cat", "the the"]


def _bm25_by_hand(rows: list[str], query: str, *, k1: float, b: float) -> list[float]:
    words = [[w for w in row.split() if len(w) > 1] for row in rows]
    mean_length = sum(map(len, words)) / len(words)
    scores = []
    for row in words:
        score = 0.0
        for word in query.split():
            n = sum(word in other for other in words)
            if n and word in row:
                idf = math.log(1 + (len(rows) - n + 0.5) / (n + 0.5))
                f = row.count(word)
                score += idf * f / (f + k1 * (1 - b + b * len(row) / mean_length))
        scores.append(score)
    return scores


def test_bm25_equals_the_formula():
    queries = ["cat mat", "the dog", "cat cat"]
    found = bm25_scores(ROWS, queries, k1=1.2, b=0.6)
    expected = np.array([_bm25_by_hand(ROWS, q, k1=1.2, b=0.6) for q in queries]).T
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found.dtype == np.float32


def test_bm25_ignores_case_and_unknown_words():
    found = bm25_scores(ROWS, ["CAT zebra", "zebra", "", "?!"])
    np.testing.assert_array_equal(found[:, 0], bm25_scores(ROWS, ["cat"])[:, 0])
    assert not found[:, 1:].any()


@pytest.mark.parametrize("rows", [["", "?"], []])
def test_bm25_of_rows_without_words_is_zero(rows):
    found = bm25_scores(rows, ["cat"])
    assert found.shape == (len(rows), 1)
    assert not found.any()


@pytest.mark.parametrize("options", [{"k1": -1.0}, {"b": 1.5}])
def test_bm25_parameters_outside_their_range_are_refused(options):
    with pytest.raises(ValueError, match="got k1="):
        bm25_scores(ROWS, ["cat"], **options)


def test_random_scores_depend_on_the_seed_only():
    first = random_scores(ROWS, ["a", "b"], seed=1)
    assert first.shape == (5, 2)
    np.testing.assert_array_equal(first, random_scores(ROWS[::-1], ["c", "d"], seed=1))
    assert (first != random_scores(ROWS, ["a", "b"], seed=2)).all()


def test_tf_idf_equals_scikit_learn():
    queries = ["cat mat", "The DOG ran, the cat sat", "zebra", ""]
    vectorizer = TfidfVectorizer().fit(ROWS)
    expected = (vectorizer.transform(ROWS) @ vectorizer.transform(queries).T).toarray()
    found = tf_idf_scores(ROWS, queries)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == np.float32
    assert not found[:, 2:].any()


@pytest.mark.parametrize("rows", [["", "?"], []])
def test_tf_idf_of_rows_without_words_is_zero(rows):
    found = tf_idf_scores(rows, ["cat"])
    assert found.shape == (len(rows), 1)
    assert not found.any()


def test_mean_states_are_means_of_length_one():
    rng = np.random.default_rng(0)
    hidden, text_index = rng.normal(size=(7, 4)), np.array([0, 0, 0, 2, 2, 3, 3])
    found = mean_states(hidden, text_index, n_texts=4)
    mean = hidden[:3].mean(axis=0)
    np.testing.assert_allclose(found[0], mean / np.linalg.norm(mean), rtol=1e-5)
    assert not found[1].any()  # no position, not NaN
    cosines = mean_state_scores(kept_states(found), found)
    np.testing.assert_allclose(np.diag(cosines)[[0, 2, 3]], 1.0, rtol=1e-5)


def test_length_prefers_long_rows_whatever_the_query():
    found = length_scores([3, 9, 5], n_queries=2)
    assert found.tolist() == [[3.0, 3.0], [9.0, 9.0], [5.0, 5.0]]


@pytest.mark.parametrize("index", [Bm25Index, TfIdfIndex])
def test_an_index_of_words_counts_what_it_stores(index):
    once, twice = index(ROWS), index([*ROWS, *ROWS])
    assert once.n_bytes > 8 * len(ROWS)  # a float32 and an int32 a word of a row, or more
    assert once.n_bytes < twice.n_bytes <= 2 * once.n_bytes
    np.testing.assert_array_equal(once.scores(["cat"]), once.scores(["cat", "the dog"])[:, :1])
