"""Z0-Inf in the suite, against weights and losses that transformers reads."""

from pathlib import Path

import numpy as np
import pytest
import torch
from evaluate_samples import labelled_texts, prepared_task
from scipy.stats import spearmanr
from tiny import tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

import tasks.evaluate.z0inf as z0inf_module
from rise_ops.baselines.z0inf import step_products
from tasks.config import ModelConfig, RuntimeConfig
from tasks.evaluate.checkpoint_weights import weight_slices
from tasks.evaluate.gradient_settings import Z0InfConfig
from tasks.evaluate.method import LabelledText, MethodRefused
from tasks.evaluate.z0inf import Z0Inf
from tasks.training import train
from tasks.training_config import BlocksTraining, TrainingConfig

T = 4


@pytest.fixture(scope="module")
def checkpoints(tiny_llama, tmp_path_factory) -> tuple[Path, ...]:
    settings = TrainingConfig(
        trained=BlocksTraining(blocks=1), epochs=4, checkpoints=T, learning_rate=3e-3
    )
    run = train(
        ModelConfig(name=str(tiny_llama)),
        labelled_texts(6),
        settings,
        tmp_path_factory.mktemp("runs"),
        runtime=RuntimeConfig(device="cpu"),
    )
    return run.checkpoints


def _losses(folder: Path, texts: list[LabelledText]) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    losses = []
    for text in texts:
        encoded = tokenizer(text.text, return_offsets_mapping=True)
        ids = torch.tensor([encoded["input_ids"]])
        ends = torch.tensor([end for _, end in encoded["offset_mapping"]])
        with torch.no_grad():
            labels = torch.where(ends > text.prompt_chars, ids, -100)
            losses.append(float(model(input_ids=ids, labels=labels).loss))
    return np.array(losses)


def _weights(folder: Path) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    numbers = torch.cat([own.detach().flatten() for own in model.parameters()])
    return numbers.double().numpy()


def _by_loops(task, *, centre: bool = True) -> np.ndarray:
    weights = [_weights(folder) for folder in task.checkpoints]
    rows, queries = (
        np.stack([_losses(folder, texts) for folder in task.checkpoints])
        for texts in (task.rows, task.queries)
    )
    if centre:
        rows, queries = (own - own.mean(axis=1, keepdims=True) for own in (rows, queries))
    scores = np.zeros((len(task.rows), len(task.queries)))
    for e in range(T):
        beside = [j for j in (e - 1, e + 1) if 0 <= j < T]
        for j in beside:
            for k in beside:
                one, other = weights[e] - weights[j], weights[e] - weights[k]
                c = one @ other / (one @ one) / (other @ other)
                scores += c * np.outer(rows[e] - rows[j], queries[e] - queries[k])
    return scores / T


def test_scores_are_the_formula_over_the_checkpoints(checkpoints, tmp_path):
    task = prepared_task(checkpoints[-1], tmp_path, checkpoints=checkpoints)
    found = Z0Inf().scores(task)
    expected = _by_loops(task)
    np.testing.assert_allclose(found.scores, expected, rtol=2e-3, atol=1e-4 * abs(expected).max())
    assert found.scores.dtype == np.float32
    assert found.cost.bytes_per_row == 8 * 6  # six pairs of a checkpoint and a neighbour
    assert found.cost.n_tokens % T == 0


def test_agreement_multiplies_by_the_rank_correlation_of_curves(checkpoints, tmp_path):
    task = prepared_task(checkpoints[-1], tmp_path, checkpoints=checkpoints)
    plain = Z0Inf(Z0InfConfig(centring="none")).scores(task).scores
    found = Z0Inf(Z0InfConfig(centring="none", agreement=True)).scores(task).scores
    row = [_losses(folder, task.rows[:1])[0] for folder in checkpoints]
    query = [_losses(folder, task.queries[:1])[0] for folder in checkpoints]
    factor = spearmanr(row, query).statistic
    assert found[0, 0] == pytest.approx(plain[0, 0] * factor, rel=1e-5)
    expected = _by_loops(task, centre=False)
    np.testing.assert_allclose(plain, expected, rtol=2e-3, atol=1e-4 * abs(expected).max())


def test_only_weights_that_were_trained_are_read(checkpoints):
    slices = list(weight_slices(checkpoints))
    whole = np.stack([_weights(folder) for folder in checkpoints])
    changed = np.ptp(whole, axis=0) > 0
    n_read = sum(part.shape[1] for part in slices)
    assert changed.sum() <= n_read < whole.shape[1] / 2
    steps = np.diff(whole, axis=0)
    np.testing.assert_allclose(step_products(slices), steps @ steps.T, rtol=1e-9)


def test_losses_are_kept(checkpoints, tmp_path, monkeypatch):
    task = prepared_task(checkpoints[-1], tmp_path, checkpoints=checkpoints)
    first = Z0Inf().scores(task)
    monkeypatch.setattr(z0inf_module, "row_losses", None)
    again = Z0Inf(Z0InfConfig(neighbours="last")).scores(task)
    assert (again.scores != first.scores).all()
    np.testing.assert_array_equal(Z0Inf().scores(task).scores, first.scores)


def test_a_row_without_a_predicted_token_scores_zero(checkpoints, tmp_path):
    rows = [LabelledText("empty", "only a prompt", 13, "a"), *labelled_texts(4)]
    task = prepared_task(checkpoints[-1], tmp_path, rows=rows, checkpoints=checkpoints)
    found = Z0Inf().scores(task)
    assert not found.scores[0].any()
    assert found.scores[1:].all()


def test_what_cannot_be_compared_is_refused(checkpoints, tiny_llama, tmp_path):
    model = checkpoints[-1]
    with pytest.raises(MethodRefused, match="this task has 0"):
        Z0Inf().scores(prepared_task(tiny_llama, tmp_path))
    one = prepared_task(model, tmp_path, queries=labelled_texts(1), checkpoints=checkpoints)
    with pytest.raises(MethodRefused, match="set centring: rows"):
        Z0Inf().scores(one)
    assert Z0Inf(Z0InfConfig(centring="rows")).scores(one).scores.any()
    twice = prepared_task(model, tmp_path, checkpoints=(*checkpoints, checkpoints[-1]))
    with pytest.raises(MethodRefused, match="have the same weights"):
        Z0Inf().scores(twice)
    foreign = tiny_model(tmp_path / "gpt", "gpt-2")
    with pytest.raises(ValueError, match="not checkpoints of one training"):
        list(weight_slices([tiny_llama, foreign]))
