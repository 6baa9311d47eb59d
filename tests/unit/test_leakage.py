"""A row that holds an evaluation text is found, whatever its spelling; one word less is not."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_store import make_scored_store

from storage.corpus import Row
from storage.hits import LEAKAGE_SCHEMA
from storage.queries import QuerySet
from storage.signatures import SignatureIndex
from tasks.leakage import (
    COMMON_TEXTS,
    MOST_LISTED,
    WITHHELD,
    ComparedText,
    LeakageCheck,
    leakage_check,
    leakage_identity,
)
from tasks.release_config import LeakageConfig

WORDS = [f"w{number}" for number in range(200)]
SENTENCE = WORDS[:20]


def row(text, row_id="r"):
    return Row(row_id, text, 0, None, "rows.jsonl", 1, "", 1)


def check(*texts, action="remove", **settings_):
    config = LeakageConfig(action=action, **settings_)
    return LeakageCheck(
        config, [ComparedText("exam", str(n), text) for n, text in enumerate(texts)]
    )


def lines(made, *rows):
    made.faults(rows)
    table = made.hits()
    assert table.schema.equals(LEAKAGE_SCHEMA)
    return table.to_pylist()


@given(st.data())
@settings(max_examples=60, deadline=None)  # the first one imports phonenumbers
def test_every_planted_overlap_is_found_and_one_word_less_is_not(data):
    """Texts of words that occur once each: only what is planted can overlap."""
    n = data.draw(st.integers(2, 15))
    other = [f"a{number}" for number in range(data.draw(st.integers(n, 40)))]
    start = data.draw(st.integers(0, len(other) - n))
    before = [f"b{number}" for number in range(data.draw(st.integers(0, 30)))]
    after = [f"c{number}" for number in range(data.draw(st.integers(1, 30)))]
    spell = data.draw(st.sampled_from([str, str.upper, str.title]))
    glue = data.draw(st.sampled_from([" ", ", ", " - ", "\n", "...", "_", "\u2009\u201c"]))
    made = check(" ".join(other), ngram=n)
    long = glue.join([*before, *map(spell, other[start : start + n]), *after])
    short = glue.join([*before, *map(spell, other[start : start + n - 1]), *after])
    planted, spared = made.faults([row(long, "planted"), row(short, "spared")])
    assert planted is not None
    assert spared is None
    (line,) = made.hits().to_pylist()
    assert (line["row_id"], line["set"], line["other_id"]) == ("planted", "exam", "0")
    assert line["excerpt"].split() == other[start : start + n]
    assert line["share"] == pytest.approx(1 / (len(other) - n + 1))


@given(st.lists(st.text(max_size=30), max_size=6), st.text(max_size=30))
@settings(deadline=None)
def test_equal_words_are_found_and_nothing_else_short(texts, text):
    """Texts below n words: a hit exactly where the words, or the bare characters, are equal."""
    from tasks.words import folded, words_of

    def whole(one):
        return words_of(one) or "".join(folded(one).split())

    made = check(*texts, ngram=100)
    found = {line["other_id"] for line in lines(made, row(text))}
    same = [str(n) for n, one in enumerate(texts) if whole(one) == whole(text)]
    assert found == set(same[:MOST_LISTED])


def test_short_texts_are_compared_whole():
    made = check("Paris.", "!!!", "")
    faults = made.faults([row("paris", "a"), row("in Paris now", "b"), row("!! !", "c")])
    assert faults[0] == "the same words as 0 in exam"
    assert faults[1] is None
    assert faults[2] == "the same words as 1 in exam"


def test_report_keeps_rows_and_hits():
    made = check(" ".join(SENTENCE), action="report")
    assert made.faults([row(" ".join(SENTENCE))]) == [None]
    (line,) = made.hits().to_pylist()
    assert (line["kind"], line["share"], line["n_others"]) == ("exact", 1.0, 1)
    assert made.faults([row(" ".join(SENTENCE))]) == [None]
    assert made.hits().num_rows == 1  # asked again, recorded once


def test_hits_of_some_rows():
    made = check(" ".join(SENTENCE))
    rows = [row(" ".join(SENTENCE[k:]), f"r{k}") for k in range(3)]
    made.faults(rows)
    assert made.hits().column("row_id").to_pylist() == ["r0", "r1", "r2"]
    assert made.hits({"r1", "other"}).column("row_id").to_pylist() == ["r1"]


def test_blocks_do_not_show():
    text = " ".join(SENTENCE)
    rows = [row(text if k % 997 == 0 else f"row {k}", f"r{k}") for k in range(4_500)]
    faults = check(text).faults(rows)
    assert [k for k, fault in enumerate(faults) if fault] == list(range(0, 4_500, 997))


def test_closest_texts_are_listed_and_all_counted():
    shared = " ".join(SENTENCE[:13])
    texts = [f"{shared} {' '.join(WORDS[30 : 30 + extra])}" for extra in range(8)]
    found = lines(check(*texts), row(f"intro {shared} outro"))
    assert [line["other_id"] for line in found] == ["0", "1", "2", "3", "4"]
    assert {line["n_others"] for line in found} == {8}
    assert [line["share"] for line in found] == sorted((f["share"] for f in found), reverse=True)


def test_every_set_is_listed():
    config = LeakageConfig(action="remove")
    text = " ".join(SENTENCE)
    texts = [ComparedText("one", str(n), f"{text} x{n}") for n in range(7)]
    made = LeakageCheck(config, [*texts, ComparedText("two", "0", f"{text} y z")])
    found = lines(made, row(text))
    assert [line["set"] for line in found] == ["one"] * MOST_LISTED + ["two"]
    # 8 of the 9 13-grams of each in set one
    assert made.faults([row(text)]) == ["89% of the 13-grams of 0 in one, and 7 more texts"]


def test_what_most_texts_of_a_set_share_is_its_form():
    system = " ".join(SENTENCE)
    texts = [f"{system} question {n} {' '.join(f'q{n}w{k}' for k in range(15))}" for n in range(12)]
    made = check(*texts)
    assert len(texts) > COMMON_TEXTS
    assert made.faults([row(f"{system} something else")]) == [None]
    assert made.faults([row(texts[3].removeprefix(system))]) != [None]
    assert made.faults([row(system)]) == [None]
    assert made.facts["exam"]["common_ngrams"] > 0
    everything = check(*texts, common_share=1.0)
    assert everything.faults([row(f"{system} something else")]) != [None]


def test_faults_and_excerpts_hold_nothing_private():
    text = f"{' '.join(SENTENCE)} write to jane.doe@company.org"
    made = check(text)
    (fault,) = made.faults([row(text)])
    assert "jane" not in fault
    assert made.hits().column("excerpt").to_pylist() == [WITHHELD]


def test_excerpts_know_the_phone_numbers_of_the_configured_countries():
    text = f"{' '.join(SENTENCE)} Ruf 030 901820 an"
    for regions, withheld in ((("US",), False), (("DE",), True)):
        made = LeakageCheck(
            LeakageConfig(), [ComparedText("exam", "0", text)], phone_regions=regions
        )
        made.faults([row(text)])
        assert (made.hits().column("excerpt").to_pylist() == [WITHHELD]) == withheld


# ------------------------------------------------------------------------------------- from files


@pytest.fixture
def store(tmp_path):
    return make_scored_store(str(tmp_path / "store"))


def made_for(store, config):
    return leakage_check(config, QuerySet.open(store.queries), SignatureIndex.open(store.index))


def test_query_set_and_evaluation_sets(store, tmp_path):
    question = "what is the sum of the first hundred natural numbers that are not prime at all"
    exam = tmp_path / "exam.jsonl"
    records = [{"text": "short"}, {"prompt": f"{question}? ", "completion": "3990"}]
    exam.write_text("".join(json.dumps(one) + "\n" for one in records))
    config = LeakageConfig(action="remove", evaluation_sets={"exam": (str(tmp_path / "e*.jsonl"),)})
    made = made_for(store, config)
    rows = [row(f"Q: {question.upper()}!", "a"), row("question 1001 answer 1002001", "b")]
    assert all(made.faults(rows))
    hits = made.hits().to_pylist()
    assert [(hit["row_id"], hit["set"], hit["kind"]) for hit in hits] == [
        ("a", "exam", "ngram"),
        ("b", "query set main", "exact"),
    ]
    assert hits[0]["other_id"] == f"{exam}:2"
    assert hits[1]["other_id"] == "row-001001"
    assert made.facts["exam"] == {"texts": 2, "compared_whole_only": 1, "common_ngrams": 0}


def test_off(store):
    assert made_for(store, LeakageConfig(action="off")) is None
    assert leakage_identity(LeakageConfig(action="off", evaluation_sets={"a": ("nowhere",)})) == {}


def test_identity_is_the_content(tmp_path):
    exam = tmp_path / "exam.jsonl"
    config = LeakageConfig(evaluation_sets={"exam": (str(exam),)})
    exam.write_text('{"text": "one"}\n')
    first = leakage_identity(config)
    assert leakage_identity(config) == first
    exam.write_text('{"text": "two"}\n')
    assert leakage_identity(config) != first


def test_bad_evaluation_sets(store, tmp_path):
    exam = tmp_path / "exam.jsonl"
    exam.write_text('{"text": "fine"}\n{broken\n{"nothing": 1}\n')
    with pytest.raises(ValueError, match=r"2 of 3 records of evaluation set 'exam'") as caught:
        made_for(store, LeakageConfig(evaluation_sets={"exam": (str(exam),)}))
    assert f"{exam}:2: malformed JSON" in str(caught.value)
    with pytest.raises(ValueError, match="matches nothing"):
        made_for(store, LeakageConfig(evaluation_sets={"exam": (str(tmp_path / "none*"),)}))
