"""The exact gradient that RISE sketches: what it would score with signatures of any length."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from rise_ops.baselines.readout_gradient import (
    TextPositions,
    full_residual,
    gradient_lengths,
    gradient_products,
)
from rise_ops.readout import ReadoutHead
from storage.files import publish_file, short_id
from tasks.backbone import load_tokenizer, resolve_device, resolve_dtype
from tasks.evaluate.measuring import Stopwatch, timed_backbone
from tasks.evaluate.method import Cost, MethodScores, PreparedTask
from tasks.evaluate.positions import Which, read_positions
from tasks.evaluate.texts import labelled_digest
from tasks.models import model_fingerprint, resolve_model
from tasks.progress import NO_PROGRESS, Progress

READOUT_VERSION = 1
"""Raised whenever the same settings would give other numbers."""

FLOAT_BYTES = 4


@dataclass(frozen=True)
class ReadoutGradientMethod:
    """Inner product, or cosine, of exact gradients of the read-out head's matrix.

    Nothing is stored of a row: every query costs a pass over all rows' positions and the whole
    vocabulary. Both forms come from one pass, which they share.
    """

    form: Literal["dot", "cosine"] = "dot"
    positions: Which = "all"

    @property
    def name(self) -> str:
        """See `Method`."""
        return f"read-out gradient, {self.form}"

    @property
    def settings(self) -> dict[str, object]:
        """See `Method`."""
        return {"version": READOUT_VERSION, "form": self.form, "positions": self.positions}

    def scores(self, task: PreparedTask, *, progress: Progress = NO_PROGRESS) -> MethodScores:
        """See `Method`."""
        kept = task.work.parent / f"read-out-{short_id(self._shared_identity(task))}.npz"
        reused = kept.is_file()
        loading = None if reused else _keep_products(kept, task, self.positions, progress)
        with np.load(kept) as stored:
            found, lengths = stored["products"], stored["lengths"]
            index_seconds, query_seconds, n_tokens = stored["cost"].tolist()
        if self.form == "cosine":
            # a query's own length changes no ranking, but makes it a cosine
            rows, queries = lengths[: len(task.rows), None], lengths[None, len(task.rows) :]
            found = found / np.maximum(rows, 1e-30) / np.maximum(queries, 1e-30)
        return MethodScores(
            found.astype(np.float32),
            Cost(
                index_seconds,
                query_seconds,
                n_tokens=int(n_tokens),
                load_seconds=loading,
                reused=reused,
            ),
            ("stores nothing of a row; the whole vocabulary at temperature 1",),
        )

    def _shared_identity(self, task: PreparedTask) -> dict[str, object]:
        return {
            "version": READOUT_VERSION,
            "positions": self.positions,
            "model": model_fingerprint(resolve_model(task.model).path),
            "dtype": resolve_dtype(task.model.dtype, device=resolve_device(task.runtime.device)),
            "rows": labelled_digest(task.rows),
            "queries": labelled_digest(task.queries),
        }


def _keep_products(
    path: Path, task: PreparedTask, which: Which, progress: Progress
) -> float | None:
    """Keep products and lengths; return the seconds of loading the model, see `Cost`."""
    watch, (backbone, loading) = Stopwatch(), timed_backbone(task)
    head, loaded = backbone.head, (backbone, load_tokenizer(task.model))
    with watch("index"):
        rows = read_positions(task.rows, which, task.model, loaded, task.runtime)
    with watch("query"), torch.inference_mode():
        queries = read_positions(task.queries, "completion", task.model, loaded, task.runtime)
        most = max(1, task.runtime.head_bytes // (FLOAT_BYTES * head.vocab_size))
        found, row_lengths = _all_products(rows.positions, queries.positions, head, most, progress)
        query_lengths = _all_lengths(queries.positions, head, most)
    arrays = {
        "products": found.cpu().numpy(),
        "lengths": torch.cat([row_lengths, query_lengths]).cpu().numpy(),
        "cost": np.array([watch["index"], watch["query"], float(rows.n_tokens)]),
    }

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    publish_file(path, write)
    return loading


def _all_products(
    rows: TextPositions, queries: TextPositions, head: ReadoutHead, most: int, progress: Progress
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return [rows, queries] products and the rows' lengths, ``most`` positions at a time."""
    products = rows.hidden.new_zeros(rows.n_texts, queries.n_texts)
    lengths = rows.hidden.new_zeros(rows.n_texts)
    query_parts = list(_parts(queries, most))
    progress.start(total=len(query_parts) * rows.n_texts, unit="rows")
    for number, (first_query, asked) in enumerate(query_parts):
        asked_residual = full_residual(head, asked.hidden, asked.targets)
        columns = slice(first_query, first_query + asked.n_texts)
        for first_row, part in _parts(rows, most):
            residual = full_residual(head, part.hidden, part.targets)
            found = gradient_products(part, residual, asked, asked_residual)
            products[first_row : first_row + part.n_texts, columns] = found
            if number == 0:
                lengths[first_row : first_row + part.n_texts] = gradient_lengths(part, residual)
            progress.advance(part.n_texts)
    return products, lengths


def _all_lengths(texts: TextPositions, head: ReadoutHead, most: int) -> torch.Tensor:
    found = [
        gradient_lengths(part, full_residual(head, part.hidden, part.targets))
        for _, part in _parts(texts, most)
    ]
    return torch.cat(found) if found else texts.hidden.new_zeros(0)


def _parts(texts: TextPositions, most: int) -> Iterator[tuple[int, TextPositions]]:
    """Yield runs of whole texts with at most so many positions, or one text that has more."""
    counts = torch.bincount(texts.text_index, minlength=texts.n_texts).tolist()
    first = start = size = 0
    for text, count in enumerate(counts):
        if text > first and size + count > most:
            yield first, _part(texts, first, text, start, start + size)
            first, start, size = text, start + size, 0
        size += count
    if texts.n_texts:
        yield first, _part(texts, first, texts.n_texts, start, start + size)


def _part(texts: TextPositions, first: int, stop: int, start: int, end: int) -> TextPositions:
    chosen = slice(start, end)
    return TextPositions(
        texts.hidden[chosen], texts.targets[chosen], texts.text_index[chosen] - first, stop - first
    )
