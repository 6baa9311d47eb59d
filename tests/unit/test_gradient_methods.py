"""The gradient methods on a tiny model, against gradients that transformers and peft take."""

from pathlib import Path

import numpy as np
import pytest
import torch
from evaluate_samples import labelled_texts, prepared_task
from tiny import tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

import tasks.evaluate.gradient_memory as gradient_memory
from tasks.config import ModelConfig, RuntimeConfig
from tasks.evaluate.gradient_memory import count_chosen
from tasks.evaluate.gradient_model import GradientModel
from tasks.evaluate.gradient_settings import (
    BlockParameters,
    FullParameters,
    LoraParameters,
    RapidInConfig,
    TracInConfig,
)
from tasks.evaluate.method import LabelledText, MethodRefused, PreparedTask
from tasks.evaluate.rapidin import RapidIn
from tasks.evaluate.reading import read_texts
from tasks.evaluate.tracin import TracIn
from tasks.training import train
from tasks.training_config import LoraTraining, TrainingConfig

MASKED = -100
OF_PEFT = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
LAST_BLOCK = "model.layers.1."


def _labels(folder: Path, text: LabelledText, only: int | None = None) -> dict[str, torch.Tensor]:
    """Inputs with the labels that transformers' own loss masks: the prompt, or all but one."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(text.text, return_offsets_mapping=True)
    ids = torch.tensor([encoded["input_ids"]])
    ends = torch.tensor([end for _, end in encoded["offset_mapping"]])
    labels = torch.where(ends > text.prompt_chars, ids, MASKED)
    if only is not None:
        kept = labels.clone().fill_(MASKED)
        kept[0, only] = labels[0, only]
        labels = kept
    return {"input_ids": ids, "labels": labels}


def _autograd(model, inputs) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(**inputs).loss.backward()
    return {
        name: own.grad.double().clone()
        for name, own in model.named_parameters()
        if own.grad is not None
    }


def _products(rows, queries, product: str) -> np.ndarray:
    """Scores from gradients by name, summed tensor by tensor in float64."""
    scores = np.zeros((len(rows), len(queries)))
    for r, row in enumerate(rows):
        for q, query in enumerate(queries):
            dots = {name: float((row[name] * query[name]).sum()) for name in row}
            sizes = {name: float(row[name].norm() * query[name].norm()) for name in row}
            whole = [sum(float(own.norm()) ** 2 for own in g.values()) ** 0.5 for g in (row, query)]
            scores[r, q] = {
                "dot": sum(dots.values()),
                "cosine": sum(dots.values()) / (whole[0] * whole[1]),
                "tensors": sum(dots[name] / sizes[name] for name in dots if sizes[name]),
            }[product]
    return scores


def _expected(folder: Path, task: PreparedTask, prefix: str, product: str) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.requires_grad_(False)
    for name, own in model.named_parameters():
        own.requires_grad_(name.startswith(prefix))
    rows, queries = (
        [_autograd(model, _labels(folder, text)) for text in texts]
        for texts in (task.rows, task.queries)
    )
    return _products(rows, queries, product)


@pytest.mark.parametrize(
    ("parameters", "prefix", "product"),
    [
        (BlockParameters(), LAST_BLOCK, "dot"),
        (BlockParameters(blocks=2), "model.layers.", "cosine"),
        (FullParameters(), "", "tensors"),
    ],
)
def test_tracin_is_the_product_of_autograd_gradients(
    tiny_llama, tmp_path, parameters, prefix, product
):
    task = prepared_task(tiny_llama, tmp_path)
    found = TracIn(TracInConfig(parameters=parameters, product=product)).scores(task)
    expected = _expected(tiny_llama, task, prefix, product)
    np.testing.assert_allclose(found.scores, expected, rtol=2e-4, atol=1e-6)
    assert found.scores.dtype == np.float32
    assert found.cost.n_tokens > 0
    assert found.cost.bytes_per_row == 0.0


@pytest.mark.parametrize("shuffle", ["uniform", "published"])
def test_rapidin_with_room_for_all_is_a_sum_of_cosines(tiny_llama, tmp_path, shuffle):
    task = prepared_task(tiny_llama, tmp_path)
    parameters = BlockParameters(blocks=1)
    n_numbers = count_chosen(task.model, parameters)
    config = RapidInConfig(parameters=parameters, dim=n_numbers, shuffle=shuffle)
    found = RapidIn(config).scores(task)
    expected = _expected(tiny_llama, task, LAST_BLOCK, "tensors")
    np.testing.assert_allclose(found.scores, expected, rtol=2e-3, atol=5e-3)  # kept in float16
    assert found.cost.bytes_per_row == 2 * n_numbers


def test_rapidin_with_few_numbers_is_near(tiny_llama, tmp_path):
    task = prepared_task(tiny_llama, tmp_path)
    found = RapidIn(RapidInConfig(parameters=BlockParameters(), dim=2048)).scores(task)
    expected = _expected(tiny_llama, task, LAST_BLOCK, "tensors")
    # 9 tensors: inner products of vectors of length 3 have a standard error of about 9 sqrt(1/2048)
    assert np.abs(found.scores - expected).max() < 5 * 9 / 2048**0.5
    assert found.cost.bytes_per_row == 4096
    assert "2,048 kept" in found.notes[0]


def test_a_row_scores_the_number_of_its_tensors_with_itself(tiny_llama, tmp_path):
    texts = labelled_texts(2)
    task = prepared_task(tiny_llama, tmp_path, rows=texts, queries=texts)
    found = RapidIn(RapidInConfig(parameters=BlockParameters())).scores(task)
    n_tensors = 9  # of a Llama block: four of attention, three of the MLP, two norms
    np.testing.assert_allclose(found.scores.diagonal(), n_tensors, rtol=5e-3)


def test_tokens_of_a_query_are_scored_by_masking_all_others(tiny_llama, tmp_path):
    task = prepared_task(tiny_llama, tmp_path)
    query = task.queries[0]
    n_numbers = count_chosen(task.model, BlockParameters())
    method = RapidIn(RapidInConfig(parameters=BlockParameters(), dim=n_numbers))
    found = method.token_scores(task, query)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    model.requires_grad_(False)
    for name, own in model.named_parameters():
        own.requires_grad_(name.startswith(LAST_BLOCK))
    labels = _labels(tiny_llama, query)["labels"][0]
    predicted = [n for n in range(1, len(labels)) if labels[n] != MASKED]
    asked = [_autograd(model, _labels(tiny_llama, query, only=n)) for n in predicted]
    rows = [_autograd(model, _labels(tiny_llama, text)) for text in task.rows]
    expected = _products(rows, asked, "tensors")
    np.testing.assert_allclose(found.scores, expected, rtol=2e-3, atol=5e-3)
    assert "".join(found.tokens) in query.text
    assert len(found.tokens) == len(predicted)


@OF_PEFT
@pytest.mark.parametrize("kind", ["gpt-2", "gpt-neox", "qwen-2"])
def test_fresh_adapters_have_the_gradients_that_peft_gives(tmp_path, kind):
    from peft import LoraConfig, get_peft_model

    folder = tiny_model(tmp_path / kind, kind)
    config = ModelConfig(name=str(folder), dtype="float32")
    own = GradientModel(config, LoraParameters(rank=3), seed=5, device="cpu")
    targets = sorted({name.split(".")[-2] for name in own.shapes})
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    wrapped = get_peft_model(
        plain,
        LoraConfig(r=3, lora_alpha=3, target_modules=targets, fan_in_fan_out=kind == "gpt-2"),
    )
    started = {name: tensor.detach() for name, tensor in zip(own.shapes, own._chosen, strict=True)}
    with torch.no_grad():
        for name, tensor in wrapped.named_parameters():
            if "lora_A" in name:
                key = name.removeprefix("base_model.model.").removesuffix(".default.weight")
                tensor.copy_(started[key])
    text = labelled_texts(1)[0]
    row = read_texts(config, [text], most=64, masked=True).rows[0]
    found = dict(zip(own.shapes, own.gradients(row), strict=True))
    expected = _autograd(wrapped.eval(), _labels(folder, text))
    assert expected
    for name, gradient in expected.items():
        key = name.removeprefix("base_model.model.").removesuffix(".default.weight")
        torch.testing.assert_close(found[key].double(), gradient, rtol=2e-4, atol=1e-6)


@OF_PEFT
def test_a_trained_adapter_is_differentiated_where_it_stands(tiny_llama, tmp_path):
    from peft import PeftModel

    settings = TrainingConfig(trained=LoraTraining(rank=2), epochs=2, learning_rate=0.05)
    run = train(
        ModelConfig(name=str(tiny_llama)),
        labelled_texts(6),
        settings,
        tmp_path / "runs",
        runtime=RuntimeConfig(device="cpu"),
    )
    task = prepared_task(run.final, tmp_path / "work")
    found = TracIn(TracInConfig(parameters=LoraParameters())).scores(task)
    base = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, run.final / "adapter", is_trainable=True).eval()
    rows, queries = (
        [_autograd(adapted, _labels(tiny_llama, text)) for text in texts]
        for texts in (task.rows, task.queries)
    )
    assert any(own.abs().max() > 0 for name, own in rows[0].items() if "lora_A" in name)
    np.testing.assert_allclose(found.scores, _products(rows, queries, "dot"), rtol=5e-4, atol=1e-6)


def test_tracin_of_all_checkpoints_is_the_sum_of_each(tiny_llama, tmp_path):
    other = tiny_model(tmp_path / "other", seed=1)
    config = TracInConfig(parameters=BlockParameters(), checkpoints="all")
    task = prepared_task(other, tmp_path / "both", checkpoints=(tiny_llama, other))
    found = TracIn(config).scores(task)
    expected = sum(_expected(folder, task, LAST_BLOCK, "dot") for folder in (tiny_llama, other))
    np.testing.assert_allclose(found.scores, expected, rtol=2e-4, atol=1e-6)
    with pytest.raises(MethodRefused, match="Choose paradigm recall"):
        TracIn(config).scores(prepared_task(other, tmp_path / "none"))


@pytest.mark.parametrize(
    "method", [TracIn(), RapidIn(RapidInConfig(parameters=BlockParameters(), dim=64))]
)
def test_texts_without_a_predicted_token_score_zero_and_long_ones_are_cut(
    tiny_llama, tmp_path, method
):
    rows = [*labelled_texts(2), LabelledText("empty", "only a prompt", 13, "a")]
    task = prepared_task(tiny_llama, tmp_path, rows=rows)
    short = type(method)(method.config.model_copy(update={"max_tokens": 8}))
    found = short.scores(task)
    assert not found.scores[2].any()
    assert found.scores[:2].any()
    assert any("rows were cut to 8 tokens" in note for note in found.notes)
    assert any("1 of 3 rows have no predicted token" in note for note in found.notes)


def test_texts_are_cut_to_what_the_model_reads(tmp_path):
    folder = tiny_model(tmp_path / "short", "gpt-2", n_positions=16)
    long = LabelledText("long", "the quick brown fox " * 20, 0, "a")
    found = TracIn().scores(prepared_task(folder, tmp_path / "work", rows=[long]))
    assert "1 of 1 rows were cut to 16 tokens" in found.notes


def test_positions_all_reads_the_prompts_of_rows_but_not_of_queries(tiny_llama, tmp_path):
    rows, queries = labelled_texts(3), labelled_texts(2, start=20)
    bare = [LabelledText(row.text_id, row.text, 0, row.label) for row in rows]
    both = prepared_task(tiny_llama, tmp_path / "a", rows=rows, queries=queries)
    unmasked = prepared_task(tiny_llama, tmp_path / "b", rows=bare, queries=queries)
    everything = TracIn(TracInConfig(positions="all")).scores(both).scores
    np.testing.assert_array_equal(everything, TracIn().scores(unmasked).scores)
    assert (everything != TracIn().scores(both).scores).all()


def test_kept_rows_are_not_computed_again(tiny_llama, tmp_path, monkeypatch):
    method = RapidIn(RapidInConfig(parameters=BlockParameters(), dim=64))
    task = prepared_task(tiny_llama, tmp_path)
    first = method.scores(task)
    asked: list[int] = []
    real = GradientModel.gradients
    monkeypatch.setattr(
        GradientModel, "gradients", lambda self, row: asked.append(1) or real(self, row)
    )
    again = method.scores(task)
    assert not asked
    np.testing.assert_array_equal(again.scores, first.scores)
    assert again.cost.index_seconds == first.cost.index_seconds
    other = RapidIn(method.config.model_copy(update={"seed": 1}))
    assert (other.scores(task).scores != first.scores).all()
    assert len(asked) == len(task.rows) + len(task.queries)


def test_what_does_not_fit_is_refused_with_numbers_before_a_model_is_loaded(
    tiny_llama, tmp_path, monkeypatch
):
    monkeypatch.setattr(gradient_memory, "available_bytes", lambda _device: 1000)
    monkeypatch.setattr(GradientModel, "__init__", None)
    task = prepared_task(tiny_llama, tmp_path)
    full = RapidIn(RapidInConfig(parameters=FullParameters()))
    with pytest.raises(MethodRefused, match=r"GB are needed on cpu \(model .* kind block or lora"):
        full.scores(task)
    with pytest.raises(MethodRefused, match="ask fewer queries"):
        TracIn().scores(task)


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        (BlockParameters(blocks=9), "is 9, but .* has 2 blocks"),
        (FullParameters(pattern="no such"), "'no such' is found in"),
        (LoraParameters(targets=("nowhere",)), "layers called nowhere"),
    ],
)
def test_parameters_that_a_model_does_not_have_are_refused(
    tiny_llama, tmp_path, parameters, reason
):
    task = prepared_task(tiny_llama, tmp_path)
    with pytest.raises(MethodRefused, match=reason):
        RapidIn(RapidInConfig(parameters=parameters)).scores(task)


def test_a_pattern_picks_tensors_by_name(tiny_llama):
    config = ModelConfig(name=str(tiny_llama))
    n_down = count_chosen(config, BlockParameters(pattern=r"mlp\.down_proj"))
    assert n_down == 32 * 48
    assert count_chosen(config, FullParameters(pattern=r"mlp\.down_proj")) == 2 * n_down
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    assert count_chosen(config, FullParameters()) == sum(p.numel() for p in model.parameters())


def test_names_tell_methods_apart():
    methods = [
        RapidIn(),
        RapidIn(RapidInConfig(parameters=LoraParameters())),
        RapidIn(RapidInConfig(parameters=FullParameters())),
        RapidIn(RapidInConfig(shuffle="published")),
        TracIn(),
        TracIn(TracInConfig(product="cosine")),
        TracIn(TracInConfig(checkpoints="all")),
    ]
    assert len({method.name for method in methods}) == len(methods)
    assert methods[0].name == "RapidIn 4 blocks"
    assert methods[4].name == "TracIn 1 block"
    assert all("version" in method.settings for method in methods)
