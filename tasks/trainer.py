"""A model that can be trained on rows, again and again from the same start.

One `Trainer` holds one model. It reads texts into `ReadRows` once, and from then on gives their
losses or takes steps. The loss of a row is the mean next-token cross-entropy over its predicted
positions; of a batch, the mean over its rows: a long row weighs as much as a short one. With
``batch_tokens`` it is the mean over the batch's predicted tokens: every token weighs the same.
Dropout is off. On a CPU the same rows, settings, seed and number of threads give the same weights;
another number of threads may round differently.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tasks.backbone import (
    RowTokenizer,
    device_kind,
    load_tokenizer,
    model_shape,
    resolve_device,
)
from tasks.config import ModelConfig, RuntimeConfig
from tasks.evaluate.method import LabelledText
from tasks.memory import available_bytes
from tasks.models import model_fingerprint, quiet_transformers, resolve_model
from tasks.trained_part import FrozenPrefix, choose_trained
from tasks.training_config import TrainingConfig

STATE_BYTES = 2 * 2**30
"""Most memory for what the first blocks give; where it would take more, they run at every step."""

FLOAT32_BYTES = 4

TRAINING_COPIES = 4
"""What is held of a trained number beside itself: its start, its gradient, and AdamW's moments."""


class DivergedError(ValueError):
    """A loss is not finite: the settings of the training do not suit the model."""


@dataclass(frozen=True, eq=False)
class ReadRows:
    """Rows as the model reads them.

    Attributes:
        ids: Tokens of each row, int64.
        first_target: Of each row, the first token that is predicted, 1 or more.
        states: What the first trained block reads of each row, [tokens, hidden]; None where
            nothing is cached.
    """

    ids: Sequence[Tensor]
    first_target: Sequence[int]
    states: Sequence[Tensor] | None

    def __len__(self) -> int:
        return len(self.ids)

    @staticmethod
    def joined(parts: "Sequence[ReadRows]") -> "ReadRows":
        """Return the rows of several as one."""
        states = [own for part in parts for own in part.states or ()]
        ids = [own for part in parts for own in part.ids]
        firsts = [own for part in parts for own in part.first_target]
        return ReadRows(ids, firsts, states if len(states) == len(ids) else None)

    @property
    def n_bytes(self) -> int:
        """Memory of what is cached."""
        return sum(own.numel() * own.element_size() for own in self.states or ())

    @property
    def n_tokens(self) -> npt.NDArray[np.int64]:
        """Tokens of each row, int64 [rows]."""
        return np.array([len(own) for own in self.ids], dtype=np.int64)

    @property
    def n_predicted(self) -> npt.NDArray[np.int64]:
        """Predicted tokens of each row, int64 [rows]."""
        return self.n_tokens - np.array(self.first_target, dtype=np.int64)


class Trainer:
    """A model with what is needed to train it.

    Attributes:
        config: Of the training.
        tokenizer: Of the model.
        device: Where it runs.
        fingerprint: Of the model as it was loaded.
    """

    def __init__(
        self,
        model: ModelConfig,
        config: TrainingConfig,
        runtime: RuntimeConfig | None = None,
        *,
        reads_only: bool = False,
    ) -> None:
        """Load a model in float32.

        Args:
            model: Which model.
            config: What is trained, and how rows are read.
            runtime: Device and limits.
            reads_only: Nothing is trained: losses alone are wanted.

        Raises:
            ValueError: No such model or device; or see `tasks.trained_part.choose_trained`.
            MemoryError: The training will not fit; the message has the numbers.
        """
        runtime = runtime or RuntimeConfig()
        self.config = config
        self.tokenizer: RowTokenizer = load_tokenizer(model)
        self.device = resolve_device(runtime.device)
        if not reads_only:
            require_training_memory(model, config, self.device)
        self.fingerprint = model_fingerprint(resolve_model(model).path)
        self._runtime = runtime
        self.model = load_whole(model).to(self.device)
        self._prefix: FrozenPrefix | None = None
        self.model.requires_grad_(requires_grad=False)
        if not reads_only:
            self._prefix = choose_trained(
                self.model, config.trained, seed=config.seed, name=model.name
            )
        self._start = {name: own.detach().clone() for name, own in self.trained().items()}
        self._vocabulary: int = self.model.get_output_embeddings().weight.shape[0]

    def trained(self) -> dict[str, Tensor]:
        """Return the trained parameters themselves, by name."""
        return {name: own for name, own in self.model.named_parameters() if own.requires_grad}

    @torch.no_grad()
    def reset(self, weights: dict[str, Tensor] | None = None) -> None:
        """Go back to the start, or to other weights of the trained parameters."""
        source = self._start if weights is None else weights
        for name, own in self.trained().items():
            own.copy_(source[name])

    def read(self, texts: Sequence[LabelledText], *, completion: bool | None = None) -> ReadRows:
        """Tokenise texts, cut them, and run them through the blocks that are not trained.

        Args:
            texts: Rows or queries.
            completion: Whether prompts are masked; None: as the config says of training rows.

        Raises:
            ValueError: Of a text no token is predicted; names it.
        """
        if completion is None:
            completion = self.config.positions == "completion"
        borders = [text.prompt_chars if completion else 0 for text in texts]
        encoded = self.tokenizer.encode([text.text for text in texts], borders)
        ids = [
            torch.from_numpy(row.ids[: self.config.max_tokens].astype(np.int64)).to(self.device)
            for row in encoded
        ]
        firsts = [max(1, row.first_target) for row in encoded]
        _check_predicted(texts, ids, firsts, self.config.max_tokens)
        return self.read_ids(ids, firsts)

    def read_ids(self, ids: Sequence[Tensor], first_target: Sequence[int]) -> ReadRows:
        """Run tokens through the blocks that are not trained; see `ReadRows`."""
        return ReadRows(ids, first_target, self._states(ids))

    def losses(self, rows: ReadRows) -> npt.NDArray[np.float64]:
        """Return each row's mean cross-entropy in nats, float64 [rows].

        Always in float32: differences between trainings are smaller than what bfloat16 rounds off.
        """
        found = np.zeros(len(rows), dtype=np.float64)
        by_length = np.argsort(rows.n_tokens, kind="stable").tolist()
        with torch.no_grad():
            for group in self._groups(rows, by_length):
                found[group] = self._batch_losses(rows, group).double().cpu().numpy()
        return found

    def batch_losses(self, rows: ReadRows, group: Sequence[int]) -> Tensor:
        """Return the mean cross-entropy of some rows, [rows], with a way back for gradients."""
        with self._precision():
            return self._batch_losses(rows, group)

    def _batch_losses(self, rows: ReadRows, group: Sequence[int]) -> Tensor:
        ids = _padded([rows.ids[row] for row in group])
        weights = _position_weights(rows, group, ids.shape[1]).to(self.device)
        with self._injected(rows, group):
            logits = self.model(input_ids=ids, use_cache=False).logits
        losses = torch.nn.functional.cross_entropy(
            logits[:, :-1].float().mT, ids[:, 1:], reduction="none"
        )
        return (losses * weights).sum(1)

    def backward(self, rows: ReadRows, group: Sequence[int]) -> float:
        """Add the gradient of a batch's loss to the parameters; return that loss.

        Large batches go in parts, so that their logits fit ``runtime.head_bytes``.
        """
        total = 0.0
        n_predicted = rows.n_predicted
        for part in self._groups(rows, group):
            losses = self.batch_losses(rows, part)
            if self.config.batch_tokens is None:
                loss = losses.sum() / len(group)
            else:
                share = n_predicted[part] / n_predicted[list(group)].sum()
                loss = (losses * torch.from_numpy(share).to(losses)).sum()
            torch.autograd.backward(loss)
            total += float(loss.detach())
        return total

    def _groups(self, rows: ReadRows, order: Sequence[int]) -> Iterator[list[int]]:
        """Cut rows into groups whose padded logits and tokens stay within the runtime's limits."""
        most = min(
            self._runtime.batch_tokens,
            self._runtime.head_bytes // (FLOAT32_BYTES * self._vocabulary),
        )
        group: list[int] = []
        longest = 0
        for row in order:
            longest = max(longest, len(rows.ids[row]))
            if group and longest * (len(group) + 1) > most:
                yield group
                group, longest = [], len(rows.ids[row])
            group.append(row)
        if group:
            yield group

    def _states(self, ids: Sequence[Tensor]) -> list[Tensor] | None:
        hidden = self.model.config.get_text_config().hidden_size
        if self._prefix is None or sum(map(len, ids)) * hidden * FLOAT32_BYTES > STATE_BYTES:
            return None
        # one by one: what a row gives must not depend on which others were read with it
        return [self._prefix.states(own[None])[0] for own in ids]

    def _injected(self, rows: ReadRows, group: Sequence[int]) -> AbstractContextManager[None]:
        if self._prefix is None or rows.states is None:
            return nullcontext()
        return self._prefix.replaced_by(_padded([rows.states[row] for row in group]))

    def _precision(self) -> AbstractContextManager[Any]:
        if self.config.precision == "float32":
            return nullcontext()
        return torch.autocast(device_kind(self.device), dtype=torch.bfloat16)


class Fit:
    """One training on some rows, step by step.

    Attributes:
        n_steps: Steps of all epochs.
        step: Steps that are done.
        losses: Mean loss of each done step.
    """

    def __init__(self, trainer: Trainer, rows: ReadRows, batches: Sequence[Sequence[int]]) -> None:
        """Begin, with the trainer's parameters as they are.

        Args:
            trainer: The model.
            rows: What it read.
            batches: Rows of each step; see `tasks.training_batches`.
        """
        if not batches:
            raise ValueError("there is no row to train on: expected 1 or more, got 0.")
        config = trainer.config
        self._trainer, self._rows, self._batches = trainer, rows, batches
        self.n_steps = len(self._batches)
        self.step = 0
        self.losses: list[float] = []
        self._parameters = [*trainer.trained().values()]
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=config.learning_rate, weight_decay=config.weight_decay
        )

    def advance(self) -> None:
        """Take the next step.

        Raises:
            DivergedError: The loss is not finite.
        """
        config = self._trainer.config
        rate = config.learning_rate * rate_factor(self.step, self.n_steps, config)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad()
        loss = self._trainer.backward(self._rows, self._batches[self.step])
        if not math.isfinite(loss):
            raise DivergedError(
                f"the loss of step {self.step + 1} of {self.n_steps} is {loss}. Lower "
                f"training.learning_rate (now {config.learning_rate:g}) and run again."
            )
        torch.nn.utils.clip_grad_norm_(self._parameters, config.clip)
        self._optimizer.step()
        self.losses.append(loss)
        self.step += 1

    def epoch_losses(self) -> tuple[float, ...]:
        """Return the mean loss of the steps of each finished epoch."""
        ends = np.cumsum([len(own) for own in self._batches])
        n_rows = int(ends[-1]) // self._trainer.config.epochs
        borders = [0, *(np.flatnonzero(ends % n_rows == 0) + 1).tolist()]
        done = [border for border in borders if border <= len(self.losses)]
        return tuple(float(np.mean(self.losses[a:b])) for a, b in pairwise(done))

    def state(self) -> dict[str, Any]:
        """Return everything that `restore` needs: weights, moments, steps."""
        trained = {name: own.detach() for name, own in self._trainer.trained().items()}
        return {
            "trained": trained,
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
            "losses": list(self.losses),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._trainer.reset(state["trained"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step, self.losses = state["step"], list(state["losses"])


def load_whole(model: ModelConfig) -> Any:
    """Return a model of transformers in float32 on the CPU, dropout off.

    Raises:
        ValueError: There is no such model.
    """
    from transformers import AutoModelForCausalLM

    quiet_transformers()
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        resolve_model(model).path,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=model.trust_remote_code,
        local_files_only=True,
    )
    return loaded.eval()


def require_training_memory(model: ModelConfig, config: TrainingConfig, device: str) -> int:
    """Return the least bytes that a training holds at once, and refuse one that does not fit.

    Held are the weights and, of what is trained, its start, gradients and two moments; activations
    and logits come on top.

    Raises:
        MemoryError: The device has less; the message has the numbers.
    """
    n_numbers = model_shape(model).n_parameters
    n_trained = {"full": n_numbers, "blocks": 0, "lora": 0}[config.trained.kind]
    need = FLOAT32_BYTES * (n_numbers + TRAINING_COPIES * n_trained)
    free = available_bytes(device)
    if free is not None and need > free:
        raise MemoryError(
            f"training {model.name} ({config.trained.kind}) holds {need / 1e9:.1f} GB of weights, "
            f"gradients and moments, and {device} has {free / 1e9:.1f} GB free. Train the last "
            "blocks (kind: blocks), take a smaller model, or free memory."
        )
    return need


def rate_factor(step: int, n_steps: int, config: TrainingConfig) -> float:
    """Return what the learning rate is multiplied with at a step, counted from 0."""
    warmup = max(1, round(config.warmup * n_steps))
    if step < warmup:
        return (step + 1) / warmup
    if config.decay == "none":
        return 1.0
    return (n_steps - step) / max(1, n_steps - warmup)


def _padded(rows: Sequence[Tensor]) -> Tensor:
    """Pad on the right: attention is causal, so no real token sees the padding."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)


def _position_weights(rows: ReadRows, group: Sequence[int], n_tokens: int) -> Tensor:
    """Return each predicted position's share of its row's mean, [rows, tokens - 1]."""
    weights = torch.zeros(len(group), n_tokens - 1)
    for line, row in enumerate(group):
        first, end = rows.first_target[row], len(rows.ids[row])
        weights[line, first - 1 : end - 1] = 1.0 / (end - first)
    return weights


def _check_predicted(
    texts: Sequence[LabelledText], ids: Sequence[Tensor], firsts: Sequence[int], most: int
) -> None:
    rows = zip(texts, ids, firsts, strict=True)
    empty = [text.text_id for text, own, first in rows if first >= len(own)]
    if empty:
        raise ValueError(
            f"{len(empty)} texts have no predicted token among their first {most}, for instance "
            f"{empty[:3]}: they are shorter than two tokens, or their prompt fills all of them. "
            "Leave them out, or raise training.max_tokens."
        )
