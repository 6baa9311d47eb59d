"""The closed loop: which rows arms take, what is held out from them, and who passes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.evaluate.closed_loop import closed_loop, verdicts
from tasks.evaluate.closed_loop_plan import MOST_SKIPPED, LoopPlan, rows_within
from tasks.evaluate.counterfactual_config import ClosedLoopConfig
from tasks.evaluate.loss_bank import LossBank, Training
from tasks.evaluate.method import LabelledText, PreparedTask
from tasks.evaluate.short_texts import MeasureRefused
from tests.counterfactual_tasks import LOOP, SHORT, known, small_task, texts

CONFIG = ClosedLoopConfig(tokens=120, seeds=2, held_out=4, training=LOOP, target="fox")


@pytest.fixture
def task(tiny_llama: Path, tmp_path: Path) -> PreparedTask:
    return small_task(tiny_llama, tmp_path / "work")


def test_arms_have_one_budget_and_take_what_they_say(task: PreparedTask, tmp_path: Path) -> None:
    scores = {"known": known(task).scores}
    lines, facts = closed_loop(task, (), scores, CONFIG, tmp_path / "banks")
    assert facts["tokens"] == {"asked": 120, "used": 120, "bound": "asked"}
    trained = [line for line in lines if line["arm"] != "base"]
    assert {line["arm"] for line in trained} == {"top", "random", "bottom", "oracle"}
    assert all(0.85 * 120 < line["n_tokens"] <= 120 for line in trained)
    purity = {line["arm"]: line["purity"] for line in trained}
    assert purity["top"] == purity["oracle"] == 1.0
    assert purity["bottom"] == 0.0
    base = next(line for line in lines if line["arm"] == "base")
    assert (base["n_rows"], base["n_tokens"], base["purity"]) == (0, 0, None)
    assert base["loss_target"] > max(line["loss_target"] for line in trained)


def test_no_arm_trains_on_what_is_held_out(
    task: PreparedTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    banks: list[tuple[set[str], list[str]]] = []

    def seen(self: LossBank, trainings: list[Training], **_: object) -> None:
        held = {text.text for text in self._texts}
        banks.append((held, [self._pool[row].text for one in trainings for row in one.rows]))
        fill(self, trainings)

    fill = LossBank.fill
    monkeypatch.setattr(LossBank, "fill", seen)
    copies = [task.rows[0], task.rows[1], *texts(6, first=200)]
    for held_out in ((), copies):
        closed_loop(task, held_out, {"known": known(task).scores}, CONFIG, tmp_path)
    assert len(banks) == 2
    for held, trained in banks:
        assert len(held) == 8
        assert trained
        assert not held & set(trained)


def test_a_target_that_no_query_has_is_refused(task: PreparedTask, tmp_path: Path) -> None:
    config = ClosedLoopConfig(target="cat", tokens=60, held_out=2, training=LOOP)
    with pytest.raises(
        ValueError, match=r"target is 'cat', but queries of kinds are \['fox', 'tal"
    ):
        closed_loop(task, (), {}, config, tmp_path)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (
            5,
            r"tokens is 5, and the longest row of kinds has 15 .* closed_loop\.tokens to 15",
        ),
        (500, r"kinds has 0 tokens of label 'fox' and \d+ in all: too few for an arm\. Use more"),
    ],
)
def test_a_budget_below_one_row_names_what_is_too_small(
    task: PreparedTask, tokens: int, message: str
) -> None:
    config = ClosedLoopConfig(target="fox", tokens=tokens, held_out=2, training=LOOP)
    rows = task.rows if tokens == 5 else [replace(row, label="talk") for row in task.rows]
    with pytest.raises(MeasureRefused, match=message):
        LoopPlan(replace(task, rows=rows), texts(4, first=200), config)


def answered(number: int, answer: str, label: str) -> LabelledText:
    """One of several answers to a question."""
    prompt = f"Question {number}: what is it? "
    return LabelledText(f"{number}-{answer}", f"{prompt}{answer}", len(prompt), label)


def test_answers_to_one_prompt_are_held_out_together(task: PreparedTask) -> None:
    rows = [
        answered(number, answer, label)
        for number, label in [
            *((n, "fox") for n in range(20)),
            *((n, "talk") for n in range(20, 40)),
        ]
        for answer in ("a fox", "no fox", "who knows")
    ]
    queries = [answered(0, "yet another", "fox"), *task.queries[1:]]
    asked = replace(task, rows=rows, queries=queries)
    config = ClosedLoopConfig(
        tokens=120, held_out=4, target="fox", training=LOOP.model_copy(update={"max_tokens": 40})
    )
    plan = LoopPlan(asked, (), config)
    held = {text.text[: text.prompt_chars] for text in plan.held_out}
    assert len(held) == len(plan.held_out) == 8  # one answer a question
    assert queries[0].text[: queries[0].prompt_chars] not in held
    trained = {rows[row].text for arm in plan.arms({}) for row in arm.rows}
    assert trained
    assert not {text for text in trained if text.startswith(tuple(held))}
    assert plan.facts()["rows_left_out_as_held_out"] == 8 * 3
    assert plan.facts()["held_out_candidates_like_selection_queries"] == 3


def test_a_template_is_no_group(task: PreparedTask) -> None:
    rows = [replace(row, prompt_chars=4) for row in task.rows]  # "The " and "User"
    config = ClosedLoopConfig(tokens=120, held_out=4, target="fox", training=LOOP)
    plan = LoopPlan(replace(task, rows=rows), (), config)
    assert plan.facts()["held_out"] == {"target": 4, "elsewhere": 4}
    assert plan.facts()["rows_left_out_as_held_out"] == 8


def test_arms_of_one_budget_take_as_many_steps(task: PreparedTask) -> None:
    short = [replace(row, text=row.text[:14]) for row in task.rows[1::2]]  # "talk" is half as long
    rows = [*task.rows[::2], *short]
    config = ClosedLoopConfig(
        tokens=100,
        held_out=4,
        target="fox",
        training=SHORT.model_copy(update={"batch_tokens": 20, "batch_rows": 1}),
    )
    plan = LoopPlan(replace(task, rows=rows), (), config)
    scores = np.array([[row.label == "fox"] * 8 for row in rows], dtype=np.float32)
    told = [plan.about(arm) for arm in plan.arms({"known": scores}) if arm.rows]
    assert max(one["n_rows"] for one in told) > 1.3 * min(one["n_rows"] for one in told)
    steps = [one["n_steps"] for one in told]
    assert max(steps) - min(steps) <= 1
    assert min(steps) >= 8


def test_rows_fill_a_budget_in_their_order() -> None:
    n_tokens = np.array([50, 60, 30, 20, 5])
    assert rows_within([1, 0, 2, 3, 4], n_tokens, budget=100) == (1, 2, 4)
    assert rows_within([4, 3, 2, 1, 0], n_tokens, budget=55) == (2, 3, 4)
    assert rows_within([0], n_tokens, budget=10) == ()


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(1, 400), st.integers(0, 9)
)
def test_a_budget_is_kept_and_spent_where_rows_fit(
    sizes: list[int], budget: int, seed: int
) -> None:
    n_tokens = np.array(sizes)
    order = np.random.default_rng(seed).permutation(len(sizes)).tolist()
    taken = rows_within(order, n_tokens, budget=budget)
    left = budget - int(n_tokens[list(taken)].sum())
    assert left >= 0
    assert list(taken) == sorted(set(taken))
    skipped = [size for row, size in enumerate(sizes) if row not in taken]
    assert left == 0 or all(size > left for size in skipped)


def test_a_budget_ends_where_too_many_rows_do_not_fit() -> None:
    n_tokens = np.array([9, *[5] * MOST_SKIPPED, 1])
    assert rows_within(range(len(n_tokens)), n_tokens, budget=10) == (0,)
    assert rows_within(range(1, len(n_tokens)), n_tokens[:-1], budget=10) == (1, 2)


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"batch_tokens": None}, r"batch_tokens is null; .* at least max_tokens \(64\)"),
        ({"batch_tokens": 63}, r"batch_tokens is 63; .* at least max_tokens \(64\)"),
        ({"max_tokens": 501}, r"batch_tokens is 500; .* at least max_tokens \(501\)"),
    ],
)
def test_a_closed_loop_of_unlike_steps_is_refused(
    training: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ClosedLoopConfig.model_validate({"training": training})


@pytest.mark.parametrize(
    ("bottom", "low", "passed"),
    [
        (4.30, 0.01, True),
        (4.22, 0.01, True),
        (4.215, 0.01, False),
        (4.15, 0.01, False),
        (4.30, -0.01, False),  # between seeds all is well, over texts it may be chance
        (4.30, None, False),
    ],
)
def test_a_method_passes_by_three_deviations_and_beyond_chance(
    bottom: float, low: float | None, passed: bool
) -> None:
    def arm(method: str, name: str, apart: float, *losses: float) -> list[dict[str, object]]:
        ends = {"apart": apart, "apart_low": 0.01, "apart_high": 1.0}
        return [{"method": method, "arm": name, "loss_target": loss, **ends} for loss in losses]

    lines = [
        *arm("", "random", 0.0, 4.19, 4.20, 4.21),
        *arm("", "oracle", 0.2, 4.00, 4.00, 4.00),
        *arm("one", "top", 0.1, 4.10, 4.10, 4.10),
        *({**line, "apart_low": low} for line in arm("one", "bottom", 0.1, bottom, bottom, bottom)),
    ]
    (found,) = verdicts(lines)
    assert found.deviation == pytest.approx(np.sqrt(0.01**2 / 3))  # the mean of three variances
    assert (found.top, found.random, found.bottom) == pytest.approx((4.10, 4.20, bottom))
    # three deviations are 0.0173
    assert found.passed is passed
    assert found.recovered == pytest.approx(0.5)
