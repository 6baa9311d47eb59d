"""What kronfluence asks of a task: the loss of a batch of texts, sampled labels, tracked layers."""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tasks.backbone import TokenRow

IGNORED = -100
"""Label of a position that carries no loss."""


def padded_texts(texts: Sequence[TokenRow]) -> dict[str, Tensor]:
    """Return a batch: token ids, the labels that count, and which tokens are real.

    Texts are padded on the right, where causal attention never looks.
    """
    ids, labels, real = [], [], []
    for text in texts:
        own = torch.from_numpy(text.ids.astype(np.int64))
        label = own.clone()
        label[: text.first_target] = IGNORED
        ids.append(own)
        labels.append(label)
        real.append(torch.ones_like(own))
    return {
        "input_ids": pad_sequence(ids, batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
        "attention_mask": pad_sequence(real, batch_first=True),
    }


def text_losses(logits: Tensor, labels: Tensor, *, mean: bool) -> Tensor:
    """Return each text's cross-entropy, summed or averaged over the positions that count.

    Args:
        logits: [texts, tokens, vocabulary].
        labels: [texts, tokens]; a position's label is predicted one position before it.
        mean: Whether to average.
    """
    asked = labels[:, 1:]
    each = torch.nn.functional.cross_entropy(
        logits[:, :-1].float().mT, asked, ignore_index=IGNORED, reduction="none"
    )
    total = each.sum(1)
    return total / (asked != IGNORED).sum(1).clamp_min(1) if mean else total


def sampled_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """Return labels drawn from the model's own predictions, at the positions that count."""
    chances = logits[:, :-1].detach().float().softmax(-1)
    drawn = torch.multinomial(chances.flatten(0, 1), 1).view(labels[:, 1:].shape)
    kept = labels.clone()
    kept[:, 1:] = torch.where(labels[:, 1:] == IGNORED, IGNORED, drawn)
    return kept


def language_task(layers: Sequence[str], *, mean: bool) -> Any:
    """Return kronfluence's task for a language model.

    Args:
        layers: Names of the linear layers to look at.
        mean: Whether a text's loss is the mean over its positions, else the sum.
    """
    base: Any = importlib.import_module("kronfluence.task").Task

    class LanguageTask(base):  # type: ignore[misc]  # its base is known at run time only
        """Next-token prediction."""

        def compute_train_loss(self, batch: Any, model: Any, sample: bool = False) -> Tensor:  # noqa: FBT001, FBT002 - kronfluence's signature
            logits = _logits(batch, model)
            labels = sampled_labels(logits, batch["labels"]) if sample else batch["labels"]
            return text_losses(logits, labels, mean=mean).sum()

        def compute_measurement(self, batch: Any, model: Any) -> Tensor:
            return text_losses(_logits(batch, model), batch["labels"], mean=mean).sum()

        def get_influence_tracked_modules(self) -> list[str]:
            return list(layers)

        def get_attention_mask(self, batch: Any) -> Tensor:
            mask: Tensor = batch["attention_mask"]
            return mask

    return LanguageTask()


def _logits(batch: Any, model: Any) -> Tensor:
    logits: Tensor = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
    ).logits
    return logits
