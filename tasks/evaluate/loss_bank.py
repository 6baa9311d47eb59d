"""What training on some rows does to the losses of some texts: trained once, kept on disk.

Every counterfactual measure is a list of trainings: from the same start, on a subset of the pool,
with a seed of the order, and then the losses of texts. A training is known by all of that, and its
losses are one small file; so a new method costs only the subsets that no other has chosen, a killed
run goes on where it stopped, and several processes may fill one bank beside each other.

    <folder>/<bank id>/
        bank.json            model, texts and settings
        losses/<id>.json     one training: rows, seed, losses before... and after, seconds
        locks/               held while a training runs
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from storage.errors import BusyError
from storage.files import exclusive_lock, read_json, short_id, waiting_lock, write_json
from tasks.backbone import device_kind, load_tokenizer, resolve_device
from tasks.config import ModelConfig, RuntimeConfig
from tasks.evaluate.method import LabelledText
from tasks.models import model_fingerprint, resolve_model
from tasks.progress import NO_PROGRESS, Progress
from tasks.trainer import STATE_BYTES, DivergedError, Fit, ReadRows, Trainer
from tasks.training import TRAINING_VERSION, texts_digest
from tasks.training_batches import planned_batches
from tasks.training_config import TrainingConfig


@dataclass(frozen=True)
class Training:
    """A training, and whose losses are wanted after it.

    Attributes:
        rows: Positions in the pool, ascending; none: the model as it is.
        seed: Of the order.
        texts: Positions among the texts whose losses are wanted, ascending.
    """

    rows: tuple[int, ...]
    seed: int
    texts: tuple[int, ...]


class LossBank:
    """Losses after trainings, kept in a folder."""

    def __init__(
        self,
        folder: Path,
        model: ModelConfig,
        pool: Sequence[LabelledText],
        texts: Sequence[LabelledText],
        config: TrainingConfig,
        runtime: RuntimeConfig | None = None,
    ) -> None:
        """Open or begin a bank; no model is loaded before a training is missing.

        Args:
            folder: Where banks are kept.
            model: The start of every training.
            pool: Rows that subsets are of.
            texts: Texts whose losses are wanted, without those of their prompts.
            config: Of every training; its seed is left out, as each has its own.
            runtime: Device and limits.
        """
        self._model, self._pool, self._texts = model, pool, texts
        self._config = config.model_copy(update={"seed": 0, "checkpoints": 1})
        self._runtime = runtime or RuntimeConfig()
        identity = self._identity()
        self.folder = folder / short_id(identity)
        if not (self.folder / "bank.json").is_file():
            write_json(self.folder / "bank.json", identity)
        self._loaded: Trainer | None = None
        self._read: dict[tuple[str, int], ReadRows] = {}
        self._read_bytes = 0

    def fill(self, trainings: Sequence[Training], *, progress: Progress = NO_PROGRESS) -> None:
        """Do the trainings that are missing; what other processes have in hand is waited for.

        Raises:
            DivergedError: A loss is not finite.
            ValueError: A row or text has no predicted token.
        """
        wanted = list(dict.fromkeys(trainings))
        missing = [one for one in wanted if not self._path(one).is_file()]
        progress.start(total=len(wanted), unit="trainings")
        progress.advance(len(wanted) - len(missing))
        elsewhere = []
        for training in missing:
            with _claimed(self._lock(training)) as mine:
                if mine:
                    self._do(training)
                    progress.advance(1)
                else:
                    elsewhere.append(training)
        for training in elsewhere:
            with waiting_lock(self._lock(training)):
                self._do(training)
                progress.advance(1)

    def losses(self, training: Training) -> npt.NDArray[np.float64]:
        """Return the losses of the training's texts, in nats a token, float64 [texts].

        Raises:
            NotFoundError: It was never done: `fill` first.
        """
        return np.array(read_json(self._path(training))["losses"], dtype=np.float64)

    def seconds(self, trainings: Sequence[Training]) -> float:
        """Return the median seconds of some trainings, when they were done."""
        return float(np.median([read_json(self._path(one))["seconds"] for one in trainings]))

    def _do(self, training: Training) -> None:
        if self._path(training).is_file():
            return
        started = time.monotonic()
        trainer = self._trainer()
        trainer.reset()
        epochs: tuple[float, ...] = ()
        if training.rows:
            epochs = self._fit(trainer, training)
        texts = self._rows("texts", training.texts)
        losses = trainer.losses(texts)
        if not np.isfinite(losses).all():
            raise DivergedError(
                f"after training on {len(training.rows)} rows a loss is not finite. Lower "
                f"training.learning_rate (now {self._config.learning_rate:g}) and run again."
            )
        record = {
            "rows": list(training.rows),
            "seed": training.seed,
            "texts": list(training.texts),
            "epoch_losses": list(epochs),
            "losses": losses.tolist(),
            "seconds": round(time.monotonic() - started, 3),
            "device": trainer.device,
            "torch": torch.__version__,
        }
        write_json(self._path(training), record)

    def _fit(self, trainer: Trainer, training: Training) -> tuple[float, ...]:
        places = {row: place for place, row in enumerate(training.rows)}
        rows = self._rows("pool", training.rows)
        batches = planned_batches(
            len(self._pool),
            training.rows,
            self._config,
            seed=training.seed,
            n_predicted=rows.n_predicted,
        )
        fit = Fit(trainer, rows, [[places[row] for row in own] for own in batches])
        while fit.step < fit.n_steps:
            fit.advance()
        return fit.epoch_losses()

    def _rows(self, which: str, numbers: Sequence[int]) -> ReadRows:
        """Return rows of the pool, or texts, as the model reads them; kept while memory allows."""
        source = self._pool if which == "pool" else self._texts
        completion = None if which == "pool" else True
        parts = []
        for number in numbers:
            own = self._read.get((which, number))
            if own is None:
                own = self._trainer().read([source[number]], completion=completion)
                if self._read_bytes + own.n_bytes <= STATE_BYTES:
                    self._read[which, number] = own
                    self._read_bytes += own.n_bytes
            parts.append(own)
        return ReadRows.joined(parts)

    def _trainer(self) -> Trainer:
        if self._loaded is None:
            self._loaded = Trainer(self._model, self._config, self._runtime)
        return self._loaded

    def _identity(self) -> dict[str, Any]:
        return {
            "version": TRAINING_VERSION,
            "device": device_kind(resolve_device(self._runtime.device)),
            "model": model_fingerprint(resolve_model(self._model).path),
            "tokenizer": load_tokenizer(self._model).fingerprint,
            "pool": texts_digest(self._pool),
            "n_rows": len(self._pool),
            "texts": texts_digest(self._texts),
            "n_texts": len(self._texts),
            "training": self._config.model_dump(mode="json"),
        }

    def _key(self, training: Training) -> str:
        parts = (training.rows, training.seed, training.texts)
        return short_id([list(parts[0]), parts[1], list(parts[2])])

    def _path(self, training: Training) -> Path:
        return self.folder / "losses" / f"{self._key(training)}.json"

    def _lock(self, training: Training) -> Path:
        return self.folder / "locks" / f"{self._key(training)}.lock"


@contextmanager
def _claimed(lock: Path) -> Iterator[bool]:
    """Hold a lock if no other process does; yield whether it is held."""
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive_lock(lock, what="a training"))
        except BusyError:
            yield False
            return
        yield True
