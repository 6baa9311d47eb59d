"""LDS, tail-patch and the closed loop on a tiny model, with scores whose worth is known."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from storage.files import exclusive_lock
from tasks.backbone import load_tokenizer
from tasks.config import ModelConfig, RuntimeConfig
from tasks.evaluate.closed_loop import closed_loop, verdicts
from tasks.evaluate.closed_loop_plan import MOST_SKIPPED, LoopPlan, rows_within
from tasks.evaluate.counterfactual import Counterfactual, TrainedTask, counterfactual
from tasks.evaluate.counterfactual_config import (
    SIZES,
    ClosedLoopConfig,
    CounterfactualConfig,
    CounterfactualOrSize,
    LdsConfig,
    TailPatchConfig,
)
from tasks.evaluate.lds import LEAST_PREDICTED, lds_task, n_too_short
from tasks.evaluate.loss_bank import LossBank, Training
from tasks.evaluate.method import Cost, LabelledText, MethodRefused, MethodScores, PreparedTask
from tasks.evaluate.short_texts import MeasureRefused, balanced, cut_texts
from tasks.evaluate.tables import lines_table
from tasks.trainer import Fit, Trainer
from tasks.training_batches import planned_batches
from tasks.training_config import BlocksTraining, TrainingConfig

SHORT = TrainingConfig(
    trained=BlocksTraining(blocks=1), epochs=2, batch_rows=4, learning_rate=3e-3, max_tokens=16
)
LOOP = SHORT.model_copy(update={"batch_tokens": 48})
CONFIG = CounterfactualConfig(
    lds=LdsConfig(rows=12, queries=4, subsets=8, repeats=2, training=SHORT),
    tail_patch=TailPatchConfig(rows=3, queries=4, random_draws=6, training=SHORT),
    closed_loop=ClosedLoopConfig(tokens=120, seeds=2, held_out=4, training=LOOP, target="fox"),
)
FOX = "The {}th quick brown fox jumps over the lazy dog."
TALK = "User {}: hello there, Paris is what? Assistant: fine."


def texts(n: int, *, first: int = 0) -> list[LabelledText]:
    """Two kinds of text that have hardly a word in common, one after the other."""
    return [
        LabelledText(f"t{k}", (FOX, TALK)[k % 2].format(k), 0, ("fox", "talk")[k % 2])
        for k in range(first, first + n)
    ]


@pytest.fixture
def task(tiny_llama: Path, tmp_path: Path) -> PreparedTask:
    rows, queries = texts(40), texts(8, first=100)
    right = np.array([[row.label == query.label for query in queries] for row in rows])
    return PreparedTask(
        name="kinds",
        rows=rows,
        queries=queries,
        positives=right,
        model=ModelConfig(name=str(tiny_llama), dtype="float32"),
        checkpoints=(),
        runtime=RuntimeConfig(device="cpu"),
        work=tmp_path / "work",
    )


def known(task: PreparedTask) -> MethodScores:
    """The label, with a little of the row's place so that ranks are strict."""
    scores = task.positives + 1e-3 * np.arange(len(task.rows))[:, None] / len(task.rows)
    return MethodScores(scores.astype(np.float32), Cost(0.0, 0.0))


def turned(task: PreparedTask) -> MethodScores:
    return MethodScores(-known(task).scores, Cost(0.0, 0.0))


def refusing(task: PreparedTask) -> MethodScores:
    raise MethodRefused(f"{task.name} does not fit: 10 GB are needed, 1 GB is free.")


def test_known_scores_win_everywhere_and_turned_ones_lose(
    task: PreparedTask, tmp_path: Path
) -> None:
    scorers = {"leaked": known, "known": known, "turned": turned, "refusing": refusing}
    found = counterfactual(
        TrainedTask(task, task), scorers, CONFIG, tmp_path / "banks", controls=["leaked"]
    )
    lds = {(line["kind"], line["method"]): line["value"] for line in found.lds}
    assert lds["method", "known"] > 0.5
    assert lds["method", "turned"] == pytest.approx(-lds["method", "known"])
    assert lds["same_domain", "same label"] > 0.5
    assert abs(lds["shuffled", "shuffled scores of known"]) < 1 / np.sqrt(8)
    assert lds["ceiling", "all but the noise"] > 0.9
    lines = {line["method"]: line for line in found.lds}
    assert lines["known"]["p"] == lines["known"]["p_holm"] / 2 < 0.05
    assert lines["turned"]["p_holm"] > 0.9
    assert lines["known"]["to_best_low"] is None
    assert lines["turned"]["to_best_high"] < 0
    assert lines["turned"]["to_label_high"] < 0
    assert lines["same label"]["p"] < 0.05
    control = lines["leaked"]  # as good as the best, and still none that others are measured by
    assert (control["kind"], control["value"]) == ("control", lines["known"]["value"])
    assert (control["p"], control["p_holm"]) == (lines["known"]["p"], None)
    assert control["to_best_low"] is None
    assert control["to_label_low"] == lines["known"]["to_label_low"]
    patch = {line["method"]: line for line in found.tail_patch}
    assert patch["known"]["value"] > patch["known"]["random"] > patch["turned"]["value"]
    assert patch["known"]["above_low"] > 0 > patch["turned"]["above_high"]
    gap = patch["known"]["value"] - patch["known"]["random"]
    assert patch["known"]["above"] == pytest.approx(gap)
    assert 0 < patch["known"]["tokens"] <= 3 * 15
    told = {one.method: one for one in verdicts(found.closed_loop)}
    assert told["known"].top < told["known"].random < told["known"].bottom
    assert told["turned"].top == pytest.approx(told["known"].bottom, abs=0.2)
    assert not told["turned"].passed
    assert told["known"].top_apart.is_beyond_chance
    assert told["turned"].top_apart.value < 0
    assert told["known"].top_apart.value == pytest.approx(told["known"].random - told["known"].top)
    assert [line["method"] for line in found.refusals] == ["refusing"]
    _lines_fit_the_tables(found)


def _lines_fit_the_tables(found: Counterfactual) -> None:
    place = {"task": "kinds", "paradigm": "predict"}
    for name in ("lds", "tail_patch", "closed_loop", "refusals"):
        lines = [place | line for line in getattr(found, name)]
        assert lines_table(name, lines).num_rows == len(lines) > 0
    facts = json.loads(json.dumps(found.facts))["lds"]
    assert (facts["rows_a_subset"], facts["repeated"], facts["queries_too_short"]) == (6, 2, 0)


def test_arms_have_one_budget_and_take_what_they_say(task: PreparedTask, tmp_path: Path) -> None:
    config = CONFIG.closed_loop
    assert config is not None
    scores = {"known": known(task).scores}
    lines, facts = closed_loop(task, (), scores, config, tmp_path / "banks")
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
    config = CONFIG.closed_loop
    assert config is not None
    copies = [task.rows[0], task.rows[1], *texts(6, first=200)]
    for held_out in ((), copies):
        closed_loop(task, held_out, {"known": known(task).scores}, config, tmp_path)
    assert len(banks) == 2
    for held, trained in banks:
        assert len(held) == 8
        assert trained
        assert not held & set(trained)


def test_a_further_method_costs_only_what_no_other_chose(
    task: PreparedTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "banks"
    first = counterfactual(TrainedTask(task, task), {"known": known}, CONFIG, folder)
    monkeypatch.setattr(LossBank, "_trainer", None)  # a training would fail
    again = counterfactual(TrainedTask(task, task), {"known": known, "same": known}, CONFIG, folder)
    kept = [line for line in again.closed_loop if line["method"] != "same"]
    assert kept == first.closed_loop
    corrected = {"p_holm": 2 * first.lds[0]["p"]}  # for two methods now
    assert again.lds[0] == first.lds[0] | corrected


class DiedError(Exception):
    pass


def test_a_killed_bank_goes_on_with_what_is_missing(
    task: PreparedTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [Training(tuple(range(n, n + 6)), 0, (0, 1)) for n in range(4)]
    whole = _bank(task, tmp_path / "whole")
    whole.fill(wanted)
    begun: list[int] = []
    do = LossBank._do

    def dying(self: LossBank, training: Training) -> None:
        if len(begun) == 2:
            raise DiedError
        begun.append(training.rows[0])
        do(self, training)

    monkeypatch.setattr(LossBank, "_do", dying)
    with pytest.raises(DiedError):
        _bank(task, tmp_path / "killed").fill(wanted)
    begun.clear()
    again = _bank(task, tmp_path / "killed")
    again.fill(wanted)
    assert begun == [2, 3]
    for training in wanted:
        # bit for bit: what a row gives does not depend on which others were read
        np.testing.assert_array_equal(again.losses(training), whole.losses(training))


def _bank(task: PreparedTask, folder: Path) -> LossBank:
    return LossBank(folder, task.model, task.rows, task.queries, SHORT, task.runtime)


def test_a_training_that_another_process_has_in_hand_comes_last(
    task: PreparedTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = _bank(task, tmp_path)
    wanted = [Training((n, n + 1), 0, (0,)) for n in range(3)]
    done: list[int] = []
    held = exclusive_lock(bank._lock(wanted[0]), what="a training")
    held.__enter__()
    do = LossBank._do

    def noting(self: LossBank, training: Training) -> None:
        do(self, training)
        done.append(training.rows[0])
        if len(done) == 2:
            held.__exit__(None, None, None)  # the other process ends without having done it

    monkeypatch.setattr(LossBank, "_do", noting)
    bank.fill(wanted)
    assert done == [1, 2, 0]


def test_a_training_is_what_the_trainer_does(task: PreparedTask, tmp_path: Path) -> None:
    bank = _bank(task, tmp_path)
    training = Training((3, 5, 8), 4, (1, 2))
    bank.fill([training])
    trainer = Trainer(task.model, SHORT, task.runtime)
    rows = trainer.read([task.rows[row] for row in training.rows])
    places = {3: 0, 5: 1, 8: 2}
    batches = planned_batches(40, training.rows, SHORT, seed=4)
    fit = Fit(trainer, rows, [[places[row] for row in own] for own in batches])
    while fit.step < fit.n_steps:
        fit.advance()
    texts = trainer.read([task.queries[1], task.queries[2]], completion=True)
    np.testing.assert_array_equal(bank.losses(training), trainer.losses(texts))


def test_lds_rows_are_cut_balanced_and_may_hold_their_own_queries(task: PreparedTask) -> None:
    config = LdsConfig(rows=12, queries=4, subsets=8, queries_from="rows", training=SHORT)
    small = lds_task(task, config)
    assert [len(small.rows), len(small.queries)] == [12, 4]
    labels = [row.label for row in small.rows]
    assert labels.count("fox") == labels.count("talk") == 6
    assert not {row.text_id for row in small.rows} & {query.text_id for query in small.queries}
    tokens = load_tokenizer(task.model).count([row.text for row in small.rows])
    assert max(tokens) <= 16
    asked = {query.text_id for query in small.queries}
    assert asked <= {row.text_id for row in task.rows}
    expected = [[row.label == own.label for own in small.queries] for row in small.rows]
    assert small.positives.tolist() == expected


def test_too_small_a_task_says_what_to_change(task: PreparedTask) -> None:
    masked = [LabelledText(own.text_id, own.text, len(own.text), own.label) for own in task.queries]
    with pytest.raises(ValueError, match=r"found 12 and 0\. Raise lds\.training\.max_tokens"):
        lds_task(replace(task, queries=masked), CONFIG.lds or LdsConfig())


def test_queries_of_a_few_predicted_tokens_are_not_drawn(task: PreparedTask) -> None:
    config = (CONFIG.lds or LdsConfig()).model_copy(update={"queries": 8})
    tokenizer = load_tokenizer(task.model)
    whole = lds_task(task, config)
    assert n_too_short(task, config) == 0
    for n_left, expected in ((LEAST_PREDICTED, 8), (LEAST_PREDICTED - 1, 7)):
        first = task.queries[0]
        ends = tokenizer.ends([first.text], n_tokens=16 - n_left)
        brief = replace(first, prompt_chars=ends[0])
        changed = replace(task, queries=[brief, *task.queries[1:]])
        assert n_too_short(changed, config) == 8 - expected
        assert len(lds_task(changed, config).queries) == expected
    assert len(whole.queries) == 8


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


def test_labels_with_too_few_leave_their_places() -> None:
    some = [LabelledText(str(n), "x", 0, "many" if n else "one") for n in range(9)]
    chosen = balanced(some, range(9), 5, seed=0)
    assert len(chosen) == 5
    assert 0 in chosen
    assert balanced(some, range(9), 2, seed=0, preferred={7})[1] == 7


def test_texts_are_cut_behind_a_token(task: PreparedTask) -> None:
    tokenizer = load_tokenizer(task.model)
    cut = cut_texts(task.rows[:3], tokenizer, max_tokens=6)
    for whole, own in zip(task.rows, cut, strict=False):
        assert whole.text.startswith(own.text)
        ids = tokenizer.encode([whole.text, own.text], [0, 0])
        assert ids[1].ids.tolist() == ids[0].ids[:6].tolist()
    assert cut_texts(task.rows[:1], tokenizer, max_tokens=500)[0] == task.rows[0]


def test_sizes_have_names(tmp_path: Path) -> None:
    read: Callable[[object], object] = TypeAdapter(CounterfactualOrSize).validate_python
    assert read("gpu") == SIZES["gpu"]
    assert read({"lds": None}) == CounterfactualConfig(lds=None)
    with pytest.raises(ValueError, match="expected cpu, gpu, or settings"):
        read("tpu")


@pytest.mark.parametrize("measure", ["lds", "tail_patch", "closed_loop"])
def test_a_part_of_a_training_keeps_the_rest(measure: str) -> None:
    plain = getattr(CounterfactualConfig(), measure)
    told = CounterfactualConfig.model_validate({measure: {"training": {"learning_rate": 0.5}}})
    training = plain.training.model_copy(update={"learning_rate": 0.5})
    assert getattr(told, measure) == plain.model_copy(update={"training": training})
    again = CounterfactualConfig.model_validate(told.model_dump(mode="json"))
    assert again == told


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
