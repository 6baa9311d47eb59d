"""Selections of a table of candidates, as a release asks for them."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rise_ops.quotas import Infeasible, Room
from rise_ops.walk import Judges, Walk
from storage.corpus import Row
from tasks.release_config import (
    Collapse,
    Diversity,
    Quota,
    ReleaseConfig,
    Share,
    Threshold,
    TokenBudget,
    TopK,
)
from tasks.selection import select_rows

N_ROWS = 200


def table(seed=0, n=N_ROWS, **columns):
    rng = np.random.default_rng(seed)
    made = {
        "row_id": [f"row-{hashlib.md5(str(i).encode()).hexdigest()[:8]}" for i in range(n)],
        "value": (rng.integers(-30, 60, n) / 16).astype(np.float32),
        "n_positions": np.ones(n, np.int32),
        "n_tokens": rng.integers(5, 60, n).astype(np.int32),
        "source": pa.array(rng.choice(["a", "b", "c"], n, p=[0.8, 0.15, 0.05])),
        "label": pa.array([None if x == "-" else x for x in rng.choice(["x", "y", "-"], n)]),
    }
    return pa.table({**made, **columns})


class Reader:
    """Texts of which every fifth is a near copy of the row before; counts what is read."""

    code = "float16"

    def __init__(self, n=N_ROWS):
        rng = np.random.default_rng(5)
        words = [[f"w{w}" for w in rng.integers(0, 9999, 60)] for _ in range(n)]
        for row in range(4, n, 5):
            words[row] = ["new", *words[row - 1][1:]]
        self.texts = [" ".join(w) for w in words]
        self.vectors = rng.standard_normal((n, 16)).astype(np.float32)
        self.vectors[4::5] = self.vectors[3::5] * 2
        self.asked = []

    def rows(self, positions):
        self.asked += positions.tolist()
        return [Row(f"row-{p}", self.texts[p], 0, None, "s", 1, "h", 1) for p in positions]

    def signatures(self, positions):
        return self.vectors[positions]


class NoReader:
    code = "float16"

    def rows(self, positions):
        raise AssertionError("nothing asked for texts")

    signatures = rows


class LastDigit:
    """A check that faults rows whose text ends in one of some digits."""

    name = "odd"

    def __init__(self, digits="13579"):
        self.digits = digits
        self.asked = []

    def faults(self, rows):
        self.asked += [row.row_id for row in rows]
        return [f"ends in {row.text[-1]}" if row.text[-1] in self.digits else None for row in rows]


def literal(candidates, k, *, lowest=False):
    rows = zip(candidates["value"].to_pylist(), candidates["row_id"].to_pylist(), strict=True)
    return [i for _, i in sorted((v if lowest else -v, i) for v, i in rows)][:k]


def test_the_best_rows_without_reading_a_text():
    candidates = table()
    best = select_rows(candidates, ReleaseConfig(select=TopK(top_k=20)), NoReader())
    assert best.selected["row_id"].to_pylist() == literal(candidates, 20)
    assert best.selected["rank"].to_pylist() == list(range(1, 21))
    assert best.dropped.num_rows == 0
    taken = candidates.take(best.selected["position"].combine_chunks().to_pylist())
    assert taken["row_id"].to_pylist() == best.selected["row_id"].to_pylist()
    lowest = ReleaseConfig(select=Share(share=0.1), prefer="lowest")
    worst = select_rows(candidates, lowest, NoReader())
    assert worst.selected["row_id"].to_pylist() == literal(candidates, 20, lowest=True)
    assert max(worst.selected["percentile"].to_pylist()) < 20


def test_rows_without_positions_and_withdrawn_rows_are_never_selected():
    n_positions = np.ones(N_ROWS, np.int32)
    n_positions[:50] = 0
    takedown = np.zeros(N_ROWS, bool)
    takedown[50:100] = True
    candidates = table(n_positions=n_positions, takedown=takedown)
    every = select_rows(candidates, ReleaseConfig(select=Share(share=1.0)), NoReader())
    assert sorted(every.selected["position"].to_pylist()) == list(range(100, 200))
    assert every.report["rows"]["without_positions"] == 50
    assert every.report["rows"]["withdrawn"] == 50
    with pytest.raises(ValueError, match=r"top_k is 101 but 100 of 200 rows can be selected"):
        select_rows(candidates, ReleaseConfig(select=TopK(top_k=101)), NoReader())


def test_a_threshold_takes_all_that_reach_it_at_either_end():
    candidates = table()
    values = candidates["value"].to_numpy()
    config = ReleaseConfig(select=Threshold(min_score=1.5))
    assert select_rows(candidates, config, NoReader()).selected.num_rows == (values >= 1.5).sum()
    low = ReleaseConfig(select=Threshold(min_score=-0.5), prefer="lowest")
    assert select_rows(candidates, low, NoReader()).selected.num_rows == (values <= -0.5).sum()
    with pytest.raises(ValueError, match=r"min_score is 99\.0 but the highest of 200 values is 3"):
        select_rows(candidates, ReleaseConfig(select=Threshold(min_score=99.0)), NoReader())
    never = ReleaseConfig(select=Threshold(min_score=-99.0), prefer="lowest")
    with pytest.raises(ValueError, match=r"lowest of 200 values is -1\.875.*raise min_score"):
        select_rows(candidates, never, NoReader())


def test_withdrawn_rows_are_no_part_of_what_a_threshold_is_told():
    values = np.arange(N_ROWS, dtype=np.float32)
    candidates = table(value=values, takedown=values >= 100)
    with pytest.raises(
        ValueError, match=r"min_score is 150\.0 but the highest of 100 values is 99,"
    ):
        select_rows(candidates, ReleaseConfig(select=Threshold(min_score=150.0)), NoReader())


def test_a_row_with_two_faults_is_not_taken_when_one_check_is_left_out():
    checks = [LastDigit("13579"), LastDigit("13579")]
    checks[1].name = "same"
    found = select_rows(table(), ReleaseConfig(select=TopK(top_k=20)), Reader(), checks)
    costs = {cost["constraint"]: cost for cost in found.report["constraints"]}
    assert costs["odd"]["rows_dropped"] > 0
    assert costs["odd"]["mean_value_lost"] == 0
    assert costs["odd"]["without"]["rows_in_common"] == 20


def test_a_quota_of_every_value_asks_nothing_of_a_source_that_was_taken_down():
    candidates = table()
    gone = np.array([source == "c" for source in candidates["source"].to_pylist()])
    every = Quota(field="source", value="*", min_rows=3)
    config = ReleaseConfig(select=TopK(top_k=20), quotas=(every,))
    candidates = candidates.append_column("takedown", pa.array(gone))
    found = select_rows(candidates, config, NoReader())
    assert {line["value"] for line in found.report["quotas"]} == {"a", "b"}
    named = Quota(field="source", value="c", min_rows=3)
    config = ReleaseConfig(select=TopK(top_k=20), quotas=(named,))
    with pytest.raises(ValueError, match="of source 'c' asks for at least 3 rows, but 0 rows"):
        select_rows(candidates, config, NoReader())


def test_a_budget_passes_rows_that_do_not_fit():
    candidates = table()
    config = ReleaseConfig(select=TokenBudget(max_tokens=300))
    found = select_rows(candidates, config, NoReader())
    tokens = dict(
        zip(candidates["row_id"].to_pylist(), candidates["n_tokens"].to_pylist(), strict=True)
    )
    left, expected = 300, []
    for row_id in literal(candidates, N_ROWS):
        if tokens[row_id] <= left:
            expected.append(row_id)
            left -= tokens[row_id]
    assert found.selected["row_id"].to_pylist() == expected
    assert found.report["tokens"] == {"selected": 300 - left, "budget": 300, "unused": left}
    assert set(found.dropped["reason"].to_pylist()) <= {"budget"}
    with pytest.raises(ValueError, match=r"max_tokens is 4 but the shortest of 200 rows has 5"):
        select_rows(candidates, ReleaseConfig(select=TokenBudget(max_tokens=4)), NoReader())


def test_near_duplicates_make_room_for_the_next_rows_and_texts_are_read_as_far_as_needed():
    candidates, reader = table(), Reader()
    config = ReleaseConfig(select=TopK(top_k=100), collapse=Collapse(text=0.7))
    found = select_rows(candidates, config, reader)
    positions = found.selected["position"].to_pylist()
    assert len(set(positions)) == 100
    assert not any(p % 5 == 4 and p - 1 in positions for p in positions)
    lines = found.dropped.to_pylist()
    assert {line["reason"] for line in lines} == {"duplicate_text"}
    partner = {p: p - 1 if p % 5 == 4 else p + 1 for p in range(N_ROWS)}
    row_ids = candidates["row_id"].to_pylist()
    for line in lines:
        assert line["detail"].startswith(f"of {row_ids[partner[line['position']]]}, similarity 0.")
    assert len(reader.asked) == len(set(reader.asked))
    by_signature = ReleaseConfig(select=TopK(top_k=100), collapse=Collapse(signature=0.99))
    again = select_rows(candidates, by_signature, Reader())
    assert again.selected["row_id"].equals(found.selected["row_id"])
    assert set(again.dropped["reason"].to_pylist()) == {"duplicate_signature"}


def test_checks_are_asked_once_and_only_about_rows_that_are_decided_on():
    candidates, check = table(), LastDigit()
    found = select_rows(candidates, ReleaseConfig(select=TopK(top_k=40)), Reader(), [check])
    decided = found.selected["position"].to_pylist() + found.dropped["position"].to_pylist()
    assert sorted(check.asked) == sorted(f"row-{p}" for p in decided)
    assert set(found.dropped["reason"].to_pylist()) == {"odd"}
    assert all(d.startswith("ends in ") for d in found.dropped["detail"].to_pylist())


def test_the_cost_of_a_constraint_is_the_difference_to_the_selection_without_it():
    candidates = table()
    quotas = (
        Quota(field="source", value="c", min_rows=8),
        Quota(field="label", value="x", max_rows=9),
    )
    config = ReleaseConfig(select=TopK(top_k=40), quotas=quotas, collapse=Collapse(text=0.7))
    found = select_rows(candidates, config, Reader())
    mean = np.mean(found.selected["score"].to_pylist())
    costs = {cost["constraint"]: cost for cost in found.report["constraints"]}
    without = {
        "quotas of source": config.model_copy(update={"quotas": quotas[1:]}),
        "quotas of label": config.model_copy(update={"quotas": quotas[:1]}),
        "duplicate_text": config.model_copy(update={"collapse": Collapse()}),
    }
    for name, other in without.items():
        alone = select_rows(candidates, other, Reader())
        lost = np.mean(alone.selected["score"].to_pylist()) - mean
        assert costs[name]["mean_value_lost"] == pytest.approx(lost, abs=1e-6)
    reasons = found.dropped["reason"].to_pylist()
    assert costs["duplicate_text"]["rows_dropped"] == reasons.count("duplicate_text")
    lines = {(q["field"], q["value"]): q for q in found.report["quotas"]}
    assert lines["source", "c"]["selected"] >= 8
    assert lines["label", "x"]["selected"] <= 9


def test_the_star_stands_for_every_value_without_a_quota_of_its_own():
    quotas = (
        Quota(field="source", value="*", max_rows=7),
        Quota(field="source", value="a", max_rows=30),
    )
    config = ReleaseConfig(select=Threshold(min_score=-9.0), quotas=quotas)
    candidates = table()
    found = select_rows(candidates, config, NoReader())
    taken = candidates.take(found.selected["position"].to_pylist())["source"].to_pylist()
    assert {s: taken.count(s) for s in "abc"} == {"a": 30, "b": 7, "c": 7}
    assert "the quota of source 'b' is full: 7 rows" in found.dropped["detail"].to_pylist()


ERRORS = [
    (
        {"quotas": (Quota(field="source", value="c", min_rows=19),)},
        r"source 'c' asks for at least 19 rows, but \d+ rows of it can be selected",
    ),
    (
        {"quotas": (Quota(field="source", value="nowhere", min_rows=1),)},
        r"source 'nowhere' asks for at least 1 rows, but 0 rows",
    ),
    (
        {"select": TopK(top_k=5), "quotas": (Quota(field="label", value="*", min_rows=4),)},
        r"top_k is 5, but .*label '.' 4, label '.' 4\) need 3 rows more",
    ),
    (
        {
            "select": TokenBudget(max_tokens=60),
            "quotas": (Quota(field="source", value="b", min_rows=9),),
        },
        r"max_tokens is 60, but .*source 'b' 9\) need \d+ tokens more",
    ),
    (
        {"quotas": (Quota(field="source", value="*", max_rows=3),)},
        r"top_k is 10 but 9 rows are left of the 200 .*191 of them dropped as quota.*at most 9",
    ),
    (
        {"select": TopK(top_k=190), "collapse": Collapse(text=0.7)},
        r"top_k is 190 but 160 rows are left .*40 of them dropped as duplicate_text",
    ),
    (
        {"diversity": Diversity(candidates=4)},
        r"top_k is 10 but 4 rows are left .*diversity looks at the best 4 only",
    ),
    (
        {
            "quotas": (
                Quota(field="source", value="a"),
                Quota(field="source", value="a", max_rows=3),
            )
        },
        r"two quotas of source 'a'",
    ),
]


@pytest.mark.parametrize(("settings_", "message"), ERRORS)
def test_what_cannot_be_had_is_an_error_that_says_which_constraint(settings_, message):
    config = ReleaseConfig(**{"select": TopK(top_k=10), **settings_})
    with pytest.raises(ValueError, match=message):
        select_rows(table(), config, Reader())


@pytest.mark.parametrize("kind", ["maximal_marginal_relevance", "facility_location"])
def test_diversity_prefers_rows_unlike_one_another_and_says_what_it_left(kind):
    candidates = table()
    plain = ReleaseConfig(select=TopK(top_k=30))
    diverse = ReleaseConfig(
        select=TopK(top_k=30), diversity=Diversity(kind=kind, weight=0.8, candidates=150)
    )
    reader = Reader()
    positions = select_rows(candidates, plain, reader).selected["position"].to_pylist()
    found = select_rows(candidates, diverse, reader)
    ours = found.selected["position"].to_pylist()
    assert ours != positions
    scores = found.selected["score"].to_pylist()
    assert scores == sorted(scores, reverse=True)
    left = found.dropped.filter(pa.compute.equal(found.dropped["reason"], "diversity"))
    assert sorted(left["position"].to_pylist()) == sorted(set(positions) - set(ours))
    assert found.report["constraints"][0]["mean_value_lost"] > 0
    if kind == "facility_location":
        quality = found.report["diversity"]
        assert quality["share_of_best_beforehand"] == pytest.approx(1 - np.exp(-1))
        assert quality["objective"] <= quality["upper_bound"]


@settings(max_examples=10, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([TopK(top_k=30), TokenBudget(max_tokens=900), Share(share=0.1)]),
    st.booleans(),
)
def test_no_row_twice_and_the_same_tables_each_time(seed, select, diverse):
    candidates = table(seed)
    config = ReleaseConfig(
        select=select,
        quotas=(
            Quota(field="source", value="*", min_rows=1, max_rows=22),
            Quota(field="label", value="y", min_rows=5),
        ),
        collapse=Collapse(text=0.8, signature=0.95),
        diversity=Diversity(candidates=120) if diverse else None,
    )
    once = select_rows(candidates, config, Reader(), [LastDigit("3")])
    positions = once.selected["position"].to_pylist() + once.dropped["position"].to_pylist()
    assert len(positions) == len(set(positions))
    taken = candidates.take(once.selected["position"].to_pylist())
    sources, labels = taken["source"].to_pylist(), taken["label"].to_pylist()
    assert all(1 <= sources.count(s) <= 22 for s in "abc")
    assert labels.count("y") >= 5
    again = select_rows(candidates, config, Reader(), [LastDigit("3")])
    assert once.selected.equals(again.selected)
    assert once.dropped.equals(again.dropped)
    assert once.report == again.report


def test_a_kept_row_that_turns_out_bad_is_replaced_even_under_a_full_budget():
    """What least amounts counted on is faulted only when the budget is spent."""
    n = 40
    source = pa.array(["a"] * 36 + ["b"] * 4)
    value = np.arange(n, 0, -1).astype(np.float32)
    tokens = np.full(n, 10, np.int32)
    tokens[-1] = 30  # the one sound row of b is long
    candidates = table(n=n, source=source, value=value, n_tokens=tokens)

    class Short:
        name = "short"

        def faults(self, rows):
            return ["bad" if row.row_id in {"row-36", "row-37", "row-38"} else None for row in rows]

    config = ReleaseConfig(
        select=TokenBudget(max_tokens=100), quotas=(Quota(field="source", value="b", min_rows=1),)
    )
    found = select_rows(candidates, config, Reader(n), [Short()])
    assert found.selected["position"].to_pylist() == [*range(7), 39]


def test_a_room_without_bounds_takes_everything():
    from rise_ops.quotas import Bounds

    walk = Walk(Room(Bounds(np.ones(5, np.int64))), Judges(), block_tokens=2)
    assert walk.run().taken == [0, 1, 2, 3, 4]
    assert issubclass(Infeasible, ValueError)
