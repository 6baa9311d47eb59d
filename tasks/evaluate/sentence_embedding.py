"""Is a text about the same? Cosine of embeddings by an encoder of its own, which knows no model.

An embedding is the mean of the encoder's last hidden states over a text's tokens.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rise_ops.baselines.mean_hidden_state import kept_states, mean_state_scores, mean_states
from tasks.backbone import resolve_device
from tasks.config import ModelConfig
from tasks.evaluate.measuring import Stopwatch
from tasks.evaluate.method import Cost, LabelledText, MethodRefused, MethodScores, PreparedTask
from tasks.models import model_fingerprint, quiet_transformers, resolve_model
from tasks.progress import NO_PROGRESS, Progress

EMBEDDING_VERSION = 1
"""Raised whenever the same settings would give other numbers."""

MOST_TOKENS = 512
BATCH_TEXTS = 16


@dataclass(frozen=True)
class SentenceEmbeddingMethod:
    """Cosine of mean last hidden states of whole texts, by another model than the task's.

    Attributes:
        model: Folder, or Hugging Face id on this machine, of an encoder.
    """

    model: str | None = None

    @property
    def name(self) -> str:
        """See `Method`."""
        return "sentence embedding"

    @property
    def settings(self) -> dict[str, object]:
        """See `Method`; weights by content, so that another encoder in the folder is another."""
        try:
            weights = model_fingerprint(resolve_model(ModelConfig(name=self._named())).path)
        except ValueError:  # it will be refused, with the reason
            weights = None
        return {"version": EMBEDDING_VERSION, "model": self.model, "weights": weights}

    def scores(self, task: PreparedTask, *, progress: Progress = NO_PROGRESS) -> MethodScores:
        """See `Method`."""
        try:
            resolved = resolve_model(ModelConfig(name=self._named()))
        except ValueError as error:
            raise MethodRefused(str(error)) from error
        started = time.perf_counter()
        encoder = _Encoder(str(resolved.path), device=resolve_device(task.runtime.device))
        loading, watch = time.perf_counter() - started, Stopwatch()
        progress.start(total=len(task.rows) + len(task.queries), unit="texts")
        with watch("index"):
            rows, n_tokens = encoder.embeddings(task.rows, progress)
            kept = kept_states(rows)
        with watch("query"):
            asked, _ = encoder.embeddings(task.queries, progress)
            found = mean_state_scores(kept, asked)
        cost = Cost(
            watch["index"],
            watch["query"],
            n_tokens=n_tokens,
            bytes_per_row=float(kept.row_bytes),
            load_seconds=loading,
        )
        note = f"{self.model}; whole texts, prompts too, of {encoder.most} tokens at most"
        return MethodScores(found, cost, (note,))

    def _named(self) -> str:
        if self.model is None:
            raise MethodRefused(
                "sentence-embedding needs an encoder, and none is set. Name the folder, or the "
                "Hugging Face id, of one that is on this machine: {method: sentence-embedding, "
                "settings: {model: FOLDER}}; or leave it out."
            )
        return self.model


class _Encoder:
    """An encoder and its tokenizer."""

    def __init__(self, path: str, *, device: str) -> None:
        from transformers import AutoModel, AutoTokenizer

        quiet_transformers()
        self._device = device
        self._tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)
        model: Any = AutoModel.from_pretrained(
            path, dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
        self._model = model.eval().to(device)
        places = getattr(model.config, "max_position_embeddings", None) or MOST_TOKENS
        self.most = min(MOST_TOKENS, places, self._tokenizer.model_max_length)

    @torch.inference_mode()
    def embeddings(
        self, texts: Sequence[LabelledText], progress: Progress
    ) -> tuple[np.ndarray, int]:
        """Return directions, float32 ``[texts, hidden]``, and how many tokens were read."""
        words = [one.text for one in texts]
        read = self._tokenizer(words, truncation=True, max_length=self.most)["input_ids"]
        found = np.zeros((len(texts), self._model.config.hidden_size), np.float32)
        # texts of a length go together; those without a token stay 0
        order = sorted((n for n in range(len(read)) if read[n]), key=lambda n: len(read[n]))
        for start in range(0, len(order), BATCH_TEXTS):
            places = order[start : start + BATCH_TEXTS]
            found[places] = self._batch([read[place] for place in places])
            progress.advance(len(places))
        return found, sum(map(len, read))

    def _batch(self, read: Sequence[Sequence[int]]) -> np.ndarray:
        longest = max(map(len, read))
        ids = torch.zeros(len(read), longest, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for line, own in enumerate(read):
            ids[line, : len(own)] = torch.tensor(own)
            mask[line, : len(own)] = 1
        given = {"input_ids": ids.to(self._device), "attention_mask": mask.to(self._device)}
        hidden = self._model(**given).last_hidden_state.cpu()
        lines = mask.nonzero()[:, 0]
        return mean_states(hidden[mask.bool()].numpy(), lines.numpy(), n_texts=len(read))
