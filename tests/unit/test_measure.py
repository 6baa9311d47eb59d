"""Lines of the tables, from scores whose numbers are known."""

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from tasks.evaluate.measure import CURVE_LEVELS, examples, measured
from tasks.evaluate.method import LabelledText
from tasks.evaluate.settings import MeasureConfig

CONFIG = MeasureConfig(cuts=(2, 50), permutations=10, resamples=200)


def _problem(n_rows: int = 40, n_queries: int = 8) -> tuple[np.ndarray, np.ndarray, list[int]]:
    rng = np.random.default_rng(1)
    positives = np.repeat(rng.random((n_rows, 1)) < 0.3, n_queries, axis=1)
    scores = (rng.normal(size=positives.shape) + positives).astype(np.float32)
    return scores, positives, list(range(1, n_rows + 1))


def test_perfect_scores_are_perfect_and_their_control_is_not() -> None:
    scores, positives, lengths = _problem()
    found = measured(scores + 100 * positives, positives, lengths, CONFIG, seed=0)
    lines = {(line["metric"], line["k"]): line for line in found["metrics"]}
    for name in (("auprc", 2), ("precision", 2), ("full_ap", None), ("mrr", None)):
        assert (lines[name]["value"], lines[name]["low"], lines[name]["high"]) == (1.0, 1.0, 1.0)
        assert lines[name]["control"] < 0.8
    assert lines[("length_correlation", None)]["control"] is None
    assert {line["precision"] for line in found["curves"]} == {1.0}


def test_cuts_beyond_the_rows_are_left_out() -> None:
    found = measured(*_problem(), CONFIG, seed=0)
    cuts = {(line["metric"], line["k"]) for line in found["metrics"] if line["k"]}
    assert cuts == {(name, 2) for name in ("auprc", "auroc", "precision", "recall")}


def test_intervals_hold_their_means_and_come_back_equal() -> None:
    first, again = (measured(*_problem(), CONFIG, seed=5) for _ in range(2))
    assert first == again
    for line in first["metrics"]:
        assert line["low"] <= line["value"] <= line["high"]
        values = [
            one["value"]
            for one in first["per_query"]
            if (one["metric"], one["k"]) == (line["metric"], line["k"])
        ]
        used = [value for value in values if value is not None]
        assert len(used) == line["n_used"]
        assert len(values) == line["n_used"] + line["n_skipped"]
        assert line["value"] == pytest.approx(np.mean(used))


def test_curves_are_the_envelope_of_scikit_learns() -> None:
    scores, positives, lengths = _problem(n_queries=1)
    curve = measured(scores, positives, lengths, CONFIG, seed=0)["curves"]
    precision, recall, _ = precision_recall_curve(positives[:, 0], scores[:, 0])
    expected = [precision[:-1][recall[:-1] >= level - 1e-12].max() for level in CURVE_LEVELS]
    assert [line["precision"] for line in curve] == pytest.approx(expected)


def test_shares_of_both_kinds_add_up() -> None:
    lines = measured(*_problem(), CONFIG, seed=0)["spread"]
    for kind in (True, False):
        assert sum(one["share"] for one in lines if one["is_positive"] == kind) == pytest.approx(1)
    middle = {
        kind: sum(one["share"] * one["low"] for one in lines if one["is_positive"] == kind)
        for kind in (True, False)
    }
    assert middle[True] > middle[False]


def test_equal_scores_have_no_spread_and_no_length_correlation() -> None:
    _, positives, lengths = _problem()
    found = measured(np.zeros(positives.shape, np.float32), positives, lengths, CONFIG, seed=0)
    by_length = next(one for one in found["metrics"] if one["metric"] == "length_correlation")
    assert (by_length["value"], by_length["low"], by_length["n_skipped"]) == (None, None, 8)


def test_examples_are_the_strongest_rows_of_queries_spread_over_all() -> None:
    scores, positives, _ = _problem()
    rows = [LabelledText(f"r{n}", "x" * 700, 650, "a") for n in range(40)]
    queries = [LabelledText(f"q{n}", "y", 0, "a") for n in range(8)]
    found = examples(scores, positives, rows, queries, MeasureConfig(example_queries=2))
    assert [line["query_id"] for line in found] == ["q0"] * 6 + ["q4"] * 6
    assert [line["rank"] for line in found[:6]] == [0, 1, 2, 3, 4, 5]
    assert found[0]["row_id"] == "q0"
    best = np.argsort(-scores[:, 4])[:5]
    assert [line["row_id"] for line in found[7:]] == [f"r{row}" for row in best]
    assert [line["is_positive"] for line in found[7:]] == positives[best, 4].tolist()
    assert (len(found[1]["text"]), found[1]["prompt_chars"]) == (600, 600)
