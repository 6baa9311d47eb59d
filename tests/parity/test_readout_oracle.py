"""The exact read-out gradient against autograd, for heads of every kind."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluate_samples import labelled_texts, prepared_task
from tiny import tiny_model
from transformers import AutoModelForCausalLM

from rise_ops.baselines.readout_gradient import (
    TextPositions,
    full_residual,
    gradient_lengths,
    gradient_products,
)
from rise_ops.readout import ReadoutHead
from tasks.backbone import load_tokenizer
from tasks.evaluate.readout_method import ReadoutGradientMethod

VOCABULARY, HIDDEN = 13, 5


def _head(**options: object) -> ReadoutHead:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(VOCABULARY, HIDDEN, generator=generator)
    return ReadoutHead(weight, **options)


def _texts(counts: list[int], seed: int) -> TextPositions:
    generator = torch.Generator().manual_seed(seed)
    n = sum(counts)
    return TextPositions(
        hidden=torch.randn(n, HIDDEN, generator=generator),
        targets=torch.randint(VOCABULARY, (n,), generator=generator),
        text_index=torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)),
        n_texts=len(counts),
    )


def _gradient(head: ReadoutHead, texts: TextPositions, number: int) -> torch.Tensor:
    weight = head.weight.clone().requires_grad_()
    mine = texts.text_index == number
    logits = texts.hidden[mine] @ weight.T
    logits = (logits if head.bias is None else logits + head.bias) * head.logit_scale
    if head.soft_cap is not None:
        logits = torch.tanh(logits / head.soft_cap) * head.soft_cap
    torch.nn.functional.cross_entropy(logits, texts.targets[mine], reduction="sum").backward()
    assert weight.grad is not None
    return weight.grad


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": torch.linspace(-1, 1, VOCABULARY)},
        {"logit_scale": 0.3},
        {"soft_cap": 2.0, "logit_scale": 1.7},
    ],
)
def test_products_and_lengths_are_those_of_autograd(options: dict) -> None:
    head, rows, queries = _head(**options), _texts([3, 0, 4], 1), _texts([2, 5], 2)
    residuals = [full_residual(head, one.hidden, one.targets) for one in (rows, queries)]
    found = gradient_products(rows, residuals[0], queries, residuals[1])
    of_rows = [_gradient(head, rows, number).flatten() for number in range(3)]
    of_queries = [_gradient(head, queries, number).flatten() for number in range(2)]
    expected = torch.stack(of_rows) @ torch.stack(of_queries).T
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    lengths = gradient_lengths(rows, residuals[0])
    torch.testing.assert_close(
        lengths, torch.stack([one.norm() for one in of_rows]), rtol=1e-4, atol=1e-5
    )


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose head has a matrix of its own, so that autograd sees the head alone."""
    return tiny_model(tmp_path_factory.mktemp("untied") / "model", tie_word_embeddings=False)


def test_the_method_gives_the_gradients_of_the_whole_model(untied: Path, tmp_path: Path) -> None:
    task = prepared_task(untied, tmp_path / "work" / "mine")
    # so few logits at a time that rows and queries come in several parts
    few = task.runtime.model_copy(update={"head_bytes": 2**20, "batch_tokens": 32})
    task = replace(task, runtime=few)
    model = AutoModelForCausalLM.from_pretrained(untied)
    tokenizer = load_tokenizer(task.model)

    def gradient(text: str, prompt_chars: int) -> np.ndarray:
        row = tokenizer.encode([text], [prompt_chars])[0]
        ids = torch.from_numpy(row.ids.astype(np.int64))[None]
        first = max(1, row.first_target)
        logits = model(input_ids=ids).logits[0, first - 1 : -1]
        model.zero_grad()
        torch.nn.functional.cross_entropy(logits, ids[0, first:], reduction="sum").backward()
        return model.lm_head.weight.grad.flatten().double().numpy()

    rows = np.stack([gradient(row.text, 0) for row in task.rows])
    queries = np.stack([gradient(one.text, one.prompt_chars) for one in task.queries])
    found = ReadoutGradientMethod("dot").scores(task)
    np.testing.assert_allclose(found.scores, rows @ queries.T, rtol=2e-3, atol=2e-3)
    lengths = np.linalg.norm(rows, axis=1)[:, None] * np.linalg.norm(queries, axis=1)
    cosine = ReadoutGradientMethod("cosine").scores(task)
    np.testing.assert_allclose(cosine.scores, rows @ queries.T / lengths, rtol=1e-3, atol=1e-4)
    # one pass for both, and the model is not loaded again
    assert cosine.cost == replace(found.cost, load_seconds=None, reused=True)


def test_masked_prompts_of_rows_change_the_gradient(untied: Path, tmp_path: Path) -> None:
    task = prepared_task(untied, tmp_path / "mine", rows=labelled_texts(4, prompt=9))
    whole = ReadoutGradientMethod("dot").scores(task).scores
    masked = ReadoutGradientMethod("dot", positions="completion").scores(task).scores
    assert not np.allclose(whole, masked)
