"""Sums of methods: the numbers of a plain loop, the bytes of all parts, what refuses is named."""

from pathlib import Path

import numpy as np
import pytest
from evaluate_samples import labelled_texts, prepared_task
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tasks.evaluate.choices import method_list
from tasks.evaluate.method import Method, MethodRefused, PreparedTask
from tasks.evaluate.registry import choose_method
from tasks.evaluate.settings import MethodChoice
from tasks.evaluate.sum_method import standardised

BM25_AND_STATES = {"of": ["bm25", {"method": "mean-hidden-state-sign", "weight": 0.25}]}


def the_sum(settings: dict[str, object]) -> Method:
    return choose_method(MethodChoice(method="sum", settings=settings)).method


@pytest.fixture(name="task")
def small_task(tiny_llama: Path, tmp_path: Path) -> PreparedTask:
    work, pool = tmp_path / "tasks" / "sum", tmp_path / "pools" / "sum"
    return prepared_task(tiny_llama, work, rows=labelled_texts(9), pool_work=pool)


def alone(task: PreparedTask, name: str) -> np.ndarray:
    return choose_method(MethodChoice(method=name)).method.scores(task).scores


def test_a_sum_is_that_of_a_plain_loop(task: PreparedTask) -> None:
    parts = [(alone(task, "bm25"), 1.0), (alone(task, "mean-hidden-state-sign"), 0.25)]
    found = the_sum(BM25_AND_STATES).scores(task).scores
    assert found.dtype == np.float32
    for query in range(len(task.queries)):
        for row in range(len(task.rows)):
            expected = 0.0
            for scores, weight in parts:
                column = [float(own) for own in scores[:, query]]
                mean = sum(column) / len(column)
                deviation = (sum((own - mean) ** 2 for own in column) / len(column)) ** 0.5
                if deviation > 0:
                    expected += weight * (float(scores[row, query]) - mean) / deviation
            assert found[row, query] == pytest.approx(expected, abs=1e-5)


def test_a_sum_costs_what_its_parts_cost_and_says_what_it_is(task: PreparedTask) -> None:
    method = the_sum(BM25_AND_STATES)
    assert method.name == "BM25 + 0.25 mean hidden state, sign"
    costs = [
        choose_method(MethodChoice(method=name)).method.scores(task).cost
        for name in ("bm25", "mean-hidden-state-sign")
    ]
    cost = method.scores(task).cost
    assert cost.bytes_per_row == sum(one.bytes_per_row for one in costs)
    assert cost.n_tokens == costs[1].n_tokens > 0
    other = the_sum({"of": ["bm25", {"method": "mean-hidden-state-sign", "weight": 0.5}]})
    assert method.settings != other.settings


def test_what_a_part_leaves_serves_the_part_by_itself(task: PreparedTask) -> None:
    the_sum(BM25_AND_STATES).scores(task)
    part = choose_method(MethodChoice(method="mean-hidden-state-sign"))
    assert task.pool_work is not None
    assert (task.pool_work.parent / part.folder).is_dir()
    assert part.method.scores(task).cost.reused


def test_a_part_that_refuses_is_named(task: PreparedTask) -> None:
    with pytest.raises(MethodRefused, match=r"^Z0-Inf, a part of the sum, refused: .*checkpoints"):
        the_sum({"of": ["bm25", "z0-inf"]}).scores(task)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "of"),
        ({"of": ["bm25"]}, "at least 2"),
        ({"of": ["bm25", "bm52"]}, "Did you mean 'bm25'"),
        ({"of": ["bm25", {"method": "length", "weight": 0.0}]}, "greater than 0"),
        ({"of": ["bm25", {"method": "length", "settings": {"x": 1}}]}, "no setting x"),
    ],
)
def test_settings_that_make_no_sum_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        the_sum(settings)


def test_a_sum_is_not_among_all_methods() -> None:
    assert "sum" not in (method_list("all") or [])


@given(arrays(np.float32, (6, 3), elements=st.floats(-100, 100, width=32)))
def test_standardised_scores_keep_the_ranking_and_have_one_scale(scores: np.ndarray) -> None:
    found = standardised(scores)
    assert np.isfinite(found).all()
    for before, after in zip(scores.T.astype(np.float64), found.T, strict=True):
        if np.ptp(before) > 1e-3:
            assert after.mean() == pytest.approx(0, abs=1e-6)
            assert after.std() == pytest.approx(1, rel=1e-6)
            assert (np.diff(after[np.argsort(before, kind="stable")]) >= -1e-9).all()
        elif np.ptp(before) == 0:
            assert not after.any()
