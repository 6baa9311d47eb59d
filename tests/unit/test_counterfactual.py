"""LDS, tail-patch and the closed loop on a tiny model, with scores whose worth is known."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from storage.files import exclusive_lock
from tasks.backbone import load_tokenizer
from tasks.evaluate.closed_loop import verdicts
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
from tasks.evaluate.short_texts import balanced, cut_texts
from tasks.evaluate.tables import lines_table
from tasks.trainer import Fit, Trainer
from tasks.training_batches import planned_batches
from tests.counterfactual_tasks import LOOP, SHORT, known, small_task

CONFIG = CounterfactualConfig(
    lds=LdsConfig(rows=12, queries=4, subsets=8, repeats=2, training=SHORT),
    tail_patch=TailPatchConfig(rows=3, queries=4, random_draws=6, training=SHORT),
    closed_loop=ClosedLoopConfig(tokens=120, seeds=2, held_out=4, training=LOOP, target="fox"),
)


@pytest.fixture
def task(tiny_llama: Path, tmp_path: Path) -> PreparedTask:
    return small_task(tiny_llama, tmp_path / "work")


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
