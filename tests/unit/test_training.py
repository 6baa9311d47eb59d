"""Training: the right parameters, the right losses, whatever is cached; checkpoints that load."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from child import child
from hypothesis import given
from hypothesis import strategies as st
from tiny import KINDS, tiny_model
from tiny_rows import tiny_texts
from transformers.models.auto import AutoModelForCausalLM, AutoTokenizer

import tasks.trainer as trainer_module
import tasks.training as training_module
from storage.files import short_id
from tasks.config import ModelConfig, RuntimeConfig
from tasks.evaluate.method import LabelledText
from tasks.models import model_fingerprint
from tasks.trainer import Fit, Trainer, rate_factor
from tasks.training import checkpoint_steps, row_losses, train
from tasks.training_batches import planned_batches
from tasks.training_config import (
    BlocksTraining,
    FullTraining,
    LoraTraining,
    Trained,
    TrainingConfig,
)

ONE_BLOCK = BlocksTraining(blocks=1)
SMALL = TrainingConfig(
    trained=ONE_BLOCK, epochs=2, batch_rows=4, learning_rate=3e-3, max_tokens=24, checkpoints=2
)


def texts(n: int = 10) -> list[LabelledText]:
    return [
        LabelledText(f"t{number}", text, min(3, len(text)), "one")
        for number, text in enumerate(tiny_texts(n))
    ]


def model_of(folder: Path) -> ModelConfig:
    return ModelConfig(name=str(folder), dtype="float32")


def naive_losses(folder: Path, rows: list[LabelledText], most: int) -> np.ndarray:
    """Transformers' own loss, one row at a time, prompts masked."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    found = []
    for row in rows:
        read = tokenizer(row.text, return_offsets_mapping=True)
        ids = torch.tensor([read["input_ids"][:most]])
        labels = ids.clone()
        for place, (_, end) in enumerate(read["offset_mapping"][:most]):
            if end <= row.prompt_chars:
                labels[0, place] = -100
        with torch.no_grad():
            found.append(float(model(input_ids=ids, labels=labels).loss))
    return np.array(found)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_of_the_model_whatever_is_cached(kind: str, tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "model", kind)
    rows = texts(6)
    expected = naive_losses(folder, rows, 24)
    trainer = Trainer(model_of(folder), SMALL, RuntimeConfig(device="cpu"))
    read = trainer.read(rows, completion=True)
    assert read.states is not None
    np.testing.assert_allclose(trainer.losses(read), expected, rtol=2e-5)
    whole = row_losses(model_of(folder), rows, max_tokens=24, completion=True)
    np.testing.assert_allclose(whole, expected, rtol=2e-5)


def test_a_cached_and_a_whole_pass_have_the_same_gradients(tiny_llama: Path) -> None:
    gradients = []
    for cached in (True, False):
        trainer = Trainer(model_of(tiny_llama), SMALL, RuntimeConfig(device="cpu"))
        read = trainer.read(texts(5))
        if not cached:
            read = type(read)(read.ids, read.first_target, None)
        trainer.backward(read, [0, 3, 4])
        gradients.append({name: own.grad for name, own in trainer.trained().items()})
    assert len(gradients[0]) == 10  # nine tensors of a Llama block, and the final norm
    for name, own in gradients[0].items():
        assert own is not None
        torch.testing.assert_close(own, gradients[1][name], rtol=1e-4, atol=1e-6)


def test_a_batch_in_parts_is_the_batch(tiny_llama: Path) -> None:
    small = RuntimeConfig(device="cpu", head_bytes=1_048_576, batch_tokens=24)
    gradients = []
    for runtime in (RuntimeConfig(device="cpu"), small):
        trainer = Trainer(model_of(tiny_llama), SMALL, runtime)
        loss = trainer.backward(trainer.read(texts(7)), [*range(7)])
        gradients.append((loss, next(iter(trainer.trained().values())).grad))
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-6)
    torch.testing.assert_close(gradients[0][1], gradients[1][1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("trained", [FullTraining(), ONE_BLOCK, LoraTraining(rank=2)])
def test_training_learns_its_rows_and_leaves_the_rest(
    trained: Trained, tiny_llama: Path, tmp_path: Path
) -> None:
    config = SMALL.model_copy(update={"trained": trained})
    model, rows = model_of(tiny_llama), texts()
    run = train(model, rows, config, tmp_path, runtime=RuntimeConfig(device="cpu"))
    assert len(run.checkpoints) == config.checkpoints
    assert len(run.losses) == config.epochs
    before = row_losses(model, rows, max_tokens=24).mean()
    after = [row_losses(model_of(own), rows, max_tokens=24).mean() for own in run.checkpoints]
    assert before > after[0] > after[1]
    start: Any = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    final: Any = AutoModelForCausalLM.from_pretrained(run.final, dtype=torch.float32)
    pairs = zip(start.named_parameters(), final.named_parameters(), strict=True)
    changed = {name for (name, old), (_, new) in pairs if not torch.equal(old, new)}
    assert changed == {name for name, _ in start.named_parameters() if _is_trained(name, trained)}


def _is_trained(name: str, trained: Trained) -> bool:
    if isinstance(trained, BlocksTraining):
        return "layers.1." in name or name == "model.norm.weight"
    return isinstance(trained, FullTraining) or "q_proj" in name or "v_proj" in name


def test_a_run_is_found_again_and_checkpoints_share_what_is_frozen(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(model_of(tiny_llama), texts(), SMALL, tmp_path)
    shared = [own / "model-00001-of-00002.safetensors" for own in first.checkpoints]
    assert shared[0].samefile(shared[1])
    assert model_fingerprint(first.final) != model_fingerprint(first.checkpoints[0])
    monkeypatch.setattr(training_module, "Trainer", None)  # nothing is loaded a second time
    assert train(model_of(tiny_llama), texts(), SMALL, tmp_path) == first


class StoppedError(Exception):
    pass


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SMALL.model_copy(update={"epochs": 3, "checkpoints": 3})
    whole = train(model_of(tiny_llama), texts(), config, tmp_path / "whole")
    taken: list[int] = []
    advance = Fit.advance

    def dying(self: Fit) -> None:
        if len(taken) == 5:
            raise StoppedError
        taken.append(self.step)
        advance(self)

    with monkeypatch.context() as patch:
        patch.setattr(Fit, "advance", dying)
        with pytest.raises(StoppedError):
            train(model_of(tiny_llama), texts(), config, tmp_path / "killed")
    taken.clear()
    monkeypatch.setattr(Fit, "advance", lambda self: (taken.append(self.step), advance(self))[1])
    again = train(model_of(tiny_llama), texts(), config, tmp_path / "killed")
    assert taken == [*range(3, 9)]  # three steps an epoch; the first epoch was kept
    assert again.losses == whole.losses
    for one, other in zip(whole.checkpoints, again.checkpoints, strict=True):
        for file in sorted(one.rglob("*.safetensors")):
            assert file.read_bytes() == (other / file.relative_to(one)).read_bytes()


def test_a_training_that_is_killed_loses_what_came_after_its_last_kept_state(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SMALL.model_copy(update={"checkpoints": 1})  # six steps, and none kept on the way
    whole = train(model_of(tiny_llama), texts(), config, tmp_path / "whole")
    with child("training_child.py") as ask:
        ended = ask(json.dumps([str(tiny_llama), str(tmp_path / "killed"), 4]))
    assert ended == ""  # it was killed, and said nothing
    taken: list[int] = []
    advance = Fit.advance
    monkeypatch.setattr(Fit, "advance", lambda self: (taken.append(self.step), advance(self))[1])
    again = train(model_of(tiny_llama), texts(), config, tmp_path / "killed")
    assert taken == [4, 5]
    assert again.losses == whole.losses
    one, other = (run.final / "model-00002-of-00002.safetensors" for run in (whole, again))
    assert one.read_bytes() == other.read_bytes()
    assert not (again.folder / "resume.pt").exists()


def test_states_are_kept_by_time_and_not_at_every_step(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 100_000, 40))
    monkeypatch.setattr(training_module.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(training_module, "RESUME_SECONDS", 100.0)
    kept: list[int] = []
    state = Fit.state
    monkeypatch.setattr(Fit, "state", lambda self: (kept.append(self.step), state(self))[1])
    config = SMALL.model_copy(update={"checkpoints": 1, "epochs": 4})
    train(model_of(tiny_llama), texts(), config, tmp_path)
    assert 1 < len(kept) < 8
    assert kept == sorted(set(kept))


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft asks
def test_the_adapter_beside_a_checkpoint_gives_the_checkpoint(
    tiny_llama: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    config = SMALL.model_copy(update={"trained": LoraTraining(rank=2)})
    run = train(model_of(tiny_llama), texts(), config, tmp_path)
    base: Any = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)
    adapted: Any = PeftModel.from_pretrained(base, str(run.final / "adapter")).eval()
    merged: Any = AutoModelForCausalLM.from_pretrained(run.final, dtype=torch.float32).eval()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(adapted(ids).logits, merged(ids).logits, rtol=1e-4, atol=1e-5)


def test_a_subset_keeps_the_order_of_all() -> None:
    config = TrainingConfig(epochs=2, batch_rows=3)
    rng = random.Random(5)
    orders = [rng.sample(range(8), 8) for _ in range(2)]
    batches = planned_batches(8, [0, 2, 3, 7], config, seed=5)
    assert [len(own) for own in batches] == [3, 1, 3, 1]
    flat = [row for own in batches for row in own]
    assert flat == [row for order in orders for row in order if row in {0, 2, 3, 7}]


def test_unset_batch_tokens_do_not_enter_what_a_training_is_known_by() -> None:
    assert "batch_tokens" not in TrainingConfig().model_dump(mode="json")
    assert short_id(TrainingConfig().model_dump(mode="json")) == "ac1430ac42db098c"
    told = TrainingConfig(batch_tokens=500).model_dump(mode="json")
    assert TrainingConfig.model_validate(told).batch_tokens == 500


@given(st.lists(st.integers(2, 30), min_size=80, max_size=300), st.integers(1, 3), st.integers(0))
def test_as_many_tokens_are_as_many_steps(sizes: list[int], epochs: int, seed: int) -> None:
    config = TrainingConfig(epochs=epochs, batch_tokens=64)
    batches = planned_batches(len(sizes), range(len(sizes)), config, seed=seed, n_predicted=sizes)
    assert abs(len(batches) - epochs * sum(sizes) / 64) <= 1
    flat = [row for own in batches for row in own]
    orders = random.Random(seed)
    assert flat == [
        row for _ in range(epochs) for row in orders.sample(range(len(sizes)), len(sizes))
    ]
    assert max(sum(sizes[row] for row in own) for own in batches) < 2 * 64 + 30


def test_every_token_of_a_batch_of_tokens_weighs_the_same(tiny_llama: Path) -> None:
    config = SMALL.model_copy(update={"batch_tokens": 30})
    trainer = Trainer(model_of(tiny_llama), config)
    rows = trainer.read(
        [
            LabelledText("long", "The quick brown fox jumps", 0, ""),
            LabelledText("s", "Hi you", 0, ""),
        ]
    )
    losses, sizes = trainer.losses(rows), rows.n_predicted
    assert sizes[0] != sizes[1]
    assert trainer.backward(rows, [0, 1]) == pytest.approx((losses * sizes).sum() / sizes.sum())


def test_the_learning_rate_warms_up_and_may_fall() -> None:
    flat = TrainingConfig(warmup=0.2)
    falling = TrainingConfig(warmup=0.2, decay="linear")
    assert [rate_factor(step, 10, flat) for step in (0, 1, 2, 9)] == [0.5, 1.0, 1.0, 1.0]
    assert [rate_factor(step, 10, falling) for step in (0, 1, 2, 9)] == [0.5, 1.0, 1.0, 0.125]


def test_checkpoints_are_equally_spaced_and_end_with_the_run() -> None:
    assert checkpoint_steps(10, 4) == [2, 5, 8, 10]
    assert checkpoint_steps(3, 1) == [3]
    with pytest.raises(ValueError, match=r"checkpoints is 4, but there are 3 steps"):
        checkpoint_steps(3, 4)


def test_rows_without_a_predicted_token_are_named(tiny_llama: Path) -> None:
    rows = [LabelledText("long-prompt", "hello there " * 40, 470, "one")]
    with pytest.raises(ValueError, match=r"first 24, for instance \['long-prompt'\]"):
        row_losses(model_of(tiny_llama), rows, max_tokens=24, completion=True)


def test_more_blocks_than_there_are_is_refused(tiny_llama: Path) -> None:
    config = SMALL.model_copy(update={"trained": BlocksTraining(blocks=3)})
    with pytest.raises(ValueError, match=r"blocks is 3, but .* has 2 blocks"):
        Trainer(model_of(tiny_llama), config)


def test_all_blocks_may_be_trained(tiny_llama: Path) -> None:
    config = SMALL.model_copy(update={"trained": BlocksTraining(blocks=2)})
    trainer = Trainer(model_of(tiny_llama), config)
    assert trainer.read(texts(2)).states is None
    assert "model.layers.0.self_attn.q_proj.weight" in trainer.trained()


def test_what_a_run_is_known_by(tiny_llama: Path, tmp_path: Path) -> None:
    run = train(model_of(tiny_llama), texts(5), SMALL, tmp_path)
    identity = json.loads((run.folder / "identity.json").read_text())
    assert identity["model"] == model_fingerprint(tiny_llama)
    assert identity["training"] == SMALL.model_dump(mode="json")
    renamed = [LabelledText("other", own.text, own.prompt_chars, "other") for own in texts(5)]
    assert train(model_of(tiny_llama), renamed, SMALL, tmp_path) == run
    assert train(model_of(tiny_llama), texts(5)[::-1], SMALL, tmp_path).run_id != run.run_id


def test_a_training_that_does_not_fit_is_refused_with_numbers(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer_module, "available_bytes", lambda device: 100_000)
    full = SMALL.model_copy(update={"trained": FullTraining()})
    with pytest.raises(MemoryError, match=r"\(full\) holds 0\.0 GB .* cpu has 0\.0 GB free"):
        Trainer(model_of(tiny_llama), full, RuntimeConfig(device="cpu"))
