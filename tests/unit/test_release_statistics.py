"""Histograms of a release: every row is counted once, samples spread over everything."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.languages import languages
from tasks.release_statistics import (
    MOST_VALUES,
    RUN_ROWS,
    SAMPLE_ROWS,
    release_statistics,
    sample_places,
)

SENTENCES = {
    "en": "The harbour was quiet when the last of the boats came home in the evening.",
    "de": "Der Hafen war ruhig, als das letzte der Boote am Abend nach Hause kam.",
    "fr": "Le port était calme quand le dernier des bateaux est rentré le soir.",
    "zh": "傍晚最后一艘船回家的时候港口很安静。只有海鸥在码头上叫着。渔夫们都已经回去了。",
}


def about(lengths, sources, labels=None):
    return pa.table(
        {
            "n_tokens": pa.array(lengths, pa.int32()),
            "source": pa.array(sources, pa.string()),
            "label": pa.array(labels or [None] * len(lengths), pa.string()),
        }
    )


@pytest.mark.parametrize(("code", "text"), SENTENCES.items())
def test_a_sentence_is_told_by_its_language(code, text):
    assert languages([text]) == [code]


def test_too_few_letters_are_not_classified():
    assert languages(["Paris", "1 + 1 = 2, 2 + 2 = 4, 3 + 3 = 6, 4 + 4 = 8", ""]) == ["und"] * 3


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.tuples(st.integers(1, 5000), st.sampled_from("abc"), st.sampled_from(["x", None])),
        min_size=1,
        max_size=60,
    ),
    st.data(),
)
def test_every_row_is_counted_once(rows, data):
    taken = data.draw(st.lists(st.sampled_from(rows), max_size=len(rows)))
    before, after = (about(*([row[i] for row in part] for i in range(3))) for part in (rows, taken))
    found = release_statistics(before, after, texts_before=["a"] * 3, texts_after=[])
    assert found["rows"] == {"before": len(rows), "after": len(taken)}
    assert found["tokens"]["before"] == sum(row[0] for row in rows)
    for when, part in (("before", rows), ("after", taken)):
        length = found["length"]
        edges = [*length["edges"], 2**62]
        expected = [sum(low <= row[0] < high for row in part) for low, high in pairwise(edges)]
        assert length[when] == expected
        for place, field in ((1, "source"), (2, "label")):
            counts = {entry["value"]: entry[when] for entry in found[field]["values"]}
            assert sum(counts.values()) + found[field]["other"][when] == len(part)
            assert all(n == sum(row[place] == value for row in part) for value, n in counts.items())
    if taken:
        assert found["length"]["quantiles"]["after"]["max"] == max(row[0] for row in taken)


def test_thousands_of_sources_are_summed_up():
    n_sources = MOST_VALUES + 7
    names = [f"{number:05d}" for number in range(n_sources)]
    table = about([1] * (n_sources + 1), [*names, names[-1]])
    found = release_statistics(table, table, texts_before=[], texts_after=[])["source"]
    assert found["values"][0] == {"value": names[-1], "before": 2, "after": 2}
    assert len(found["values"]) == MOST_VALUES
    assert found["other"] == {"before": 7, "after": 7}
    assert found["n_values"] == {"before": n_sources, "after": n_sources}


@given(st.integers(0, 10 * SAMPLE_ROWS))
def test_a_sample_is_spread_over_all_rows(n_rows):
    places = sample_places(n_rows)
    assert len(places) <= SAMPLE_ROWS
    assert np.all(np.diff(places) > 0)
    if n_rows <= SAMPLE_ROWS:
        assert places.tolist() == list(range(n_rows))
    else:
        assert (places[0], places[-1]) == (0, n_rows - 1)
        assert len(places) > SAMPLE_ROWS // 2
        widest = np.diff(places).max()
        assert widest <= RUN_ROWS * n_rows / SAMPLE_ROWS + RUN_ROWS
