import math

import numpy as np
import pytest

from rise_ops.baselines.bm25 import bm25_scores
from rise_ops.baselines.random_scores import random_scores

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
