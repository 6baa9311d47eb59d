"""Train a model on rows and keep its checkpoints, as folders that any loader opens.

A run is known by the model, the rows and every setting, and lives in a folder of that id: made
once, found afterwards. Killed, it goes on at its last checkpoint, or where it was a few minutes
before if that is later, and ends with the same bytes on the same CPU. Weights that the training
leaves alone are on disk once: the checkpoints share them.

    <folder>/<id>/
        identity.json            what the id stands for
        frozen.safetensors       weights that are not trained, if there are any
        checkpoint-01/ ...       Hugging Face folders, oldest first; adapters are merged
        resume.pt                while it runs
        run.json                 written last: losses, tokens, seconds
"""

import errno
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from storage.files import (
    digest,
    publish_file,
    published_folder,
    read_json,
    remove_partials,
    short_id,
    waiting_lock,
    write_json,
)
from tasks.backbone import load_tokenizer
from tasks.config import ModelConfig, RuntimeConfig
from tasks.evaluate.method import LabelledText
from tasks.models import model_fingerprint, resolve_model
from tasks.progress import NO_PROGRESS, Progress
from tasks.trained_part import adapted_layers
from tasks.trainer import Fit, Trainer
from tasks.training_batches import planned_batches
from tasks.training_config import LoraTraining, TrainingConfig

TRAINING_VERSION = 2
"""Raised whenever the same settings would give other weights."""

RESUME_SECONDS = 180.0
"""What a killed training may lose; its state is kept so often, and at every checkpoint."""

RUN_FILE = "run.json"
RESUME_FILE = "resume.pt"
FROZEN_FILE = "frozen.safetensors"


@dataclass(frozen=True)
class TrainingRun:
    """A finished training.

    Attributes:
        run_id: Short id of model, rows and settings.
        folder: Where everything of it lies.
        checkpoints: Folders of the model at equally spaced steps, oldest first.
        losses: Mean loss of the training rows in each epoch, nats a token.
        n_tokens: Tokens that were trained on, over all epochs.
        seconds: Of the training, without loading.
    """

    run_id: str
    folder: Path
    checkpoints: tuple[Path, ...]
    losses: tuple[float, ...]
    n_tokens: int
    seconds: float

    @property
    def final(self) -> Path:
        """The trained model."""
        return self.checkpoints[-1]


def train(
    model: ModelConfig,
    rows: Sequence[LabelledText],
    config: TrainingConfig,
    folder: Path,
    *,
    runtime: RuntimeConfig | None = None,
    progress: Progress = NO_PROGRESS,
) -> TrainingRun:
    """Train a model on rows, or find that this was done; a second process waits for the first.

    Args:
        model: The start; weights are read in float32 whatever ``model.dtype`` says.
        rows: What to train on; their order matters only through ``config.seed``.
        config: What and how.
        folder: Where runs are kept.
        runtime: Device and limits.
        progress: Receives one step for each step.

    Raises:
        ValueError: No such model or device, a row without a predicted token, more checkpoints than
            steps, or a loss that is not finite.
    """
    identity = training_identity(model, rows, config)
    run_id = short_id(identity)
    home = folder / run_id
    with waiting_lock(folder / f"{run_id}.lock"):
        if not (home / RUN_FILE).is_file():
            home.mkdir(parents=True, exist_ok=True)
            remove_partials(home)
            write_json(home / "identity.json", identity)
            _train_into(home, Trainer(model, config, runtime), rows, progress)
    return _finished(run_id, home)


def training_identity(
    model: ModelConfig, rows: Sequence[LabelledText], config: TrainingConfig
) -> dict[str, Any]:
    """Return what a training is known by."""
    return {
        "version": TRAINING_VERSION,
        "model": model_fingerprint(resolve_model(model).path),
        "tokenizer": load_tokenizer(model).fingerprint,
        "rows": texts_digest(rows),
        "n_rows": len(rows),
        "training": config.model_dump(mode="json"),
    }


def texts_digest(texts: Sequence[LabelledText]) -> str:
    """Return the digest of what a model reads of texts, in their order; ids do not enter."""
    return digest([[text.text, text.prompt_chars] for text in texts])


def row_losses(
    model: ModelConfig,
    rows: Sequence[LabelledText],
    *,
    max_tokens: int = 256,
    completion: bool = False,
    runtime: RuntimeConfig | None = None,
    precision: str = "float32",
) -> npt.NDArray[np.float64]:
    """Return each row's mean next-token cross-entropy in nats, float64 [rows].

    Args:
        model: Any model, a checkpoint's folder too (`ModelConfig(name=str(folder))`).
        rows: Rows or queries.
        max_tokens: Longer rows lose their end.
        completion: Whether prompts are masked, as those of queries are.
        runtime: Device and limits.
        precision: Number format of products: float32 or bfloat16.

    Raises:
        ValueError: No such model, or a row without a predicted token.
    """
    config = TrainingConfig(
        max_tokens=max_tokens,
        precision=precision,  # type: ignore[arg-type]
    )
    trainer = Trainer(model, config, runtime, reads_only=True)
    return trainer.losses(trainer.read(rows, completion=completion))


def checkpoint_steps(n_steps: int, n_checkpoints: int) -> list[int]:
    """Return after which steps the model is kept, equally spaced, the last step included.

    Raises:
        ValueError: There are more checkpoints than steps.
    """
    if n_checkpoints > n_steps:
        raise ValueError(
            f"training.checkpoints is {n_checkpoints}, but there are {n_steps} steps. Lower it, or "
            "raise training.epochs."
        )
    return [round(n_steps * (number + 1) / n_checkpoints) for number in range(n_checkpoints)]


def _train_into(
    home: Path, trainer: Trainer, texts: Sequence[LabelledText], progress: Progress
) -> None:
    started = time.monotonic()
    config = trainer.config
    rows = trainer.read(texts)
    everything = range(len(rows))
    batches = planned_batches(
        len(rows), everything, config, seed=config.seed, n_predicted=rows.n_predicted
    )
    fit = Fit(trainer, rows, batches)
    steps = checkpoint_steps(fit.n_steps, config.checkpoints)
    resume = _Resume(fit, home / RESUME_FILE, started)
    progress.start(total=fit.n_steps, unit="steps")
    progress.advance(fit.step)
    for number, last in enumerate(steps, start=1):
        while fit.step < last:
            resume.keep_when_due()
            fit.advance()
            progress.advance(1)
        if not _checkpoint(home, number).exists():
            _save_model(trainer, home, _checkpoint(home, number))
        if fit.step == last < fit.n_steps:
            resume.keep()
    record = {
        "checkpoints": len(steps),
        "steps": steps,
        "losses": list(fit.epoch_losses()),
        "n_tokens": int(rows.n_tokens.sum()) * config.epochs,
        "seconds": round(resume.seconds, 3),
        "device": trainer.device,
    }
    write_json(home / RUN_FILE, record)
    (home / RESUME_FILE).unlink(missing_ok=True)


def _finished(run_id: str, home: Path) -> TrainingRun:
    record = read_json(home / RUN_FILE)
    return TrainingRun(
        run_id=run_id,
        folder=home,
        checkpoints=tuple(_checkpoint(home, n + 1) for n in range(record["checkpoints"])),
        losses=tuple(record["losses"]),
        n_tokens=record["n_tokens"],
        seconds=record["seconds"],
    )


def _checkpoint(home: Path, number: int) -> Path:
    return home / f"checkpoint-{number:02d}"


class _Resume:
    """The state of a training in a file, so that a killed one goes on."""

    def __init__(self, fit: Fit, file: Path, started: float) -> None:
        """Go on at the last kept state, if there is one; ``started``: when this run began."""
        self._fit, self._file, self._started, self._before = fit, file, started, 0.0
        if file.is_file():
            state = torch.load(file, weights_only=True)
            fit.restore(state)
            self._before = float(state["seconds"])
        self._kept = time.monotonic()

    @property
    def seconds(self) -> float:
        """Spent so far, by all runs together."""
        return self._before + time.monotonic() - self._started

    def keep(self) -> None:
        state = {**self._fit.state(), "seconds": self.seconds}
        publish_file(self._file, lambda partial: torch.save(state, partial))
        self._kept = time.monotonic()

    def keep_when_due(self) -> None:
        if time.monotonic() - self._kept >= RESUME_SECONDS:
            self.keep()


def _save_model(trainer: Trainer, home: Path, folder: Path) -> None:
    """Write a Hugging Face folder; weights that are not trained are linked, not copied."""
    from safetensors.torch import save_file

    state, changed = whole_state(trainer)
    metadata = {"format": "pt"}
    frozen = {name: own for name, own in state.items() if name not in changed}
    with published_folder(folder) as staging:
        trainer.model.config.save_pretrained(staging)
        if trainer.model.generation_config is not None:
            trainer.model.generation_config.save_pretrained(staging)
        trainer.tokenizer.save(staging)
        if not frozen:
            save_file(state, staging / "model.safetensors", metadata)
            return
        shared = home / FROZEN_FILE
        if not shared.exists():
            publish_file(shared, lambda partial: save_file(frozen, partial, metadata))
        first, second = (f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
        _share(shared, staging / first)
        save_file({name: state[name] for name in changed}, staging / second, metadata)
        places = {name: second if name in changed else first for name in state}
        size = sum(own.numel() * own.element_size() for own in state.values())
        index = {"metadata": {"total_size": size}, "weight_map": places}
        write_json(staging / "model.safetensors.index.json", index)
        if isinstance(trainer.config.trained, LoraTraining):
            _save_adapter(trainer, staging / "adapter")


def _share(file: Path, link: Path) -> None:
    """Let a second name stand for a file; copy it where the file system has no such names."""
    try:
        os.link(file, link)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV):
            raise
        shutil.copyfile(file, link)


def whole_state(trainer: Trainer) -> tuple[dict[str, torch.Tensor], set[str]]:
    """Return a model's weights as transformers names them, adapters merged; and which may change.

    Of weights that share their numbers, the first name is kept, as transformers does.
    """
    adapted = adapted_layers(trainer.model)
    trained = set(trainer.trained())
    state: dict[str, torch.Tensor] = {}
    changed: set[str] = set()
    places: set[int] = set()
    for name, own in trainer.model.state_dict(keep_vars=True).items():
        layer, _, leaf = name.rpartition(".base_layer.")
        if ".lora_" in name or own.data_ptr() in places:
            continue
        places.add(own.data_ptr())
        plain = f"{layer}.{leaf}" if layer else name
        merged = own.detach()
        if layer and leaf == "weight":
            merged = merged + adapted[layer].get_delta_weight("default").detach()
            changed.add(plain)
        elif name in trained:
            changed.add(plain)
        state[plain] = merged.contiguous().cpu()
    return state, changed


def _save_adapter(trainer: Trainer, folder: Path) -> None:
    """Write the adapter as peft keeps it, beside the merged weights."""
    from peft import LoraConfig
    from safetensors.torch import save_file

    folder.mkdir()
    numbers = {
        f"base_model.model.{name.replace('.default', '')}": own.detach().contiguous().cpu()
        for name, own in trainer.trained().items()
    }
    save_file(numbers, folder / "adapter_model.safetensors", {"format": "pt"})
    settings = trainer.config.trained
    if isinstance(settings, LoraTraining):
        LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,  # type: ignore[arg-type]
            target_modules=list(settings.targets),
            task_type="CAUSAL_LM",
        ).save_pretrained(str(folder))
