"""RapidIn in the suite: rows' gradients are compressed once and kept, queries meet them.

A kept row is ``dim`` numbers in float16. They can be asked again, for other queries or for single
tokens of one, without another backward pass over the rows.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from rise_ops.baselines.count_sketch import BinnedSketch
from rise_ops.baselines.rapidin import CompressedGradients, compressed, rapidin_scores
from storage.files import short_id
from tasks.backbone import TokenRow, load_tokenizer, resolve_device
from tasks.evaluate.gradient_memory import predict_gradient_memory, require_gradient_memory
from tasks.evaluate.gradient_model import GradientModel
from tasks.evaluate.gradient_settings import RapidInConfig, parameters_name
from tasks.evaluate.kept_lines import KeptLines, kept_lines
from tasks.evaluate.method import Cost, LabelledText, MethodScores, PreparedTask
from tasks.evaluate.reading import ReadTask, ReadTexts, read_task, read_texts
from tasks.models import model_fingerprint, resolve_model
from tasks.progress import NO_PROGRESS, Progress
from tasks.training import texts_digest

RAPIDIN_VERSION = 2
"""Raised whenever the same settings would give other numbers."""

FLOAT16_BYTES = 2
KEPT_COPIES = 3
"""A query's compressed gradient is held in float16 and, twice as long, in float32."""


@dataclass(frozen=True, eq=False)
class TokenScores:
    """How strongly each row is behind each token of a query.

    Attributes:
        tokens: Text of each predicted token.
        scores: float32 ``[rows, tokens]``, higher = stronger proponent.
    """

    tokens: Sequence[str]
    scores: npt.NDArray[np.float32]


@dataclass(frozen=True)
class RapidIn:
    """Inner products of compressed gradients, every parameter tensor at unit length."""

    config: RapidInConfig = field(default_factory=RapidInConfig)

    @property
    def name(self) -> str:
        """Which parameters, and the shuffle where it is the published one."""
        shuffle = ", published shuffle" if self.config.shuffle == "published" else ""
        return f"RapidIn {parameters_name(self.config.parameters)}{shuffle}"

    @property
    def settings(self) -> dict[str, object]:
        """Every setting."""
        return {"version": RAPIDIN_VERSION, **self.config.model_dump(mode="json")}

    def scores(self, task: PreparedTask, *, progress: Progress = NO_PROGRESS) -> MethodScores:
        """Score every row for every query.

        Raises:
            MethodRefused: Gradients do not fit into memory, or there are no such parameters.
        """
        read = read_task(task, self.config)
        self._require_memory(task, read)
        started = time.monotonic()
        gradients = _Compressor(task, self.config)
        loading = time.monotonic() - started
        rows = self._kept_rows(task, read.rows, gradients, progress)
        queries = self._kept_queries(task, read.queries, gradients)
        started = time.monotonic()
        scores = rapidin_scores(
            CompressedGradients(rows.values, gradients.tables),
            CompressedGradients(queries.values, gradients.tables),
        )
        multiplying = time.monotonic() - started
        cost = Cost(
            index_seconds=rows.seconds,
            query_seconds=queries.seconds + multiplying,
            n_tokens=read.rows.n_tokens,
            bytes_per_row=float(rows.values[0].nbytes),
            load_seconds=loading,
            reused=rows.reused or queries.reused,
        )
        return MethodScores(scores, cost, (gradients.note, *read.notes))

    def token_scores(
        self, task: PreparedTask, query: LabelledText, *, progress: Progress = NO_PROGRESS
    ) -> TokenScores:
        """Score every row for each predicted token of a query: all its other labels are masked.

        Rows that `scores` has kept are not computed again.

        Raises:
            MethodRefused: Gradients do not fit into memory, or there are no such parameters.
            ValueError: The query has no predicted token.
        """
        read = read_task(task, self.config)
        self._require_memory(task, read)
        asked = read_texts(task.model, [query], most=self.config.max_tokens, masked=True).rows[0]
        tokens = load_tokenizer(task.model).token_texts(asked.ids[asked.first_target :])
        if not tokens:
            raise ValueError(
                f"query {query.text_id!r} has no predicted token among its first "
                f"{read.queries.most}; ask for one with a completion."
            )
        gradients = _Compressor(task, self.config)
        rows = self._kept_rows(task, read.rows, gradients, progress)
        scores = rapidin_scores(
            CompressedGradients(rows.values, gradients.tables),
            CompressedGradients(gradients.token_lines(asked), gradients.tables),
        )
        return TokenScores(tokens, scores)

    def _kept_rows(
        self, task: PreparedTask, rows: ReadTexts, gradients: "_Compressor", progress: Progress
    ) -> KeptLines:
        identity = self._identity(task, task.rows)
        folder = (task.pool_work or task.work) / f"rapidin-{short_id(identity)}"
        return kept_lines(folder, len(rows.rows), gradients.lines(rows.rows), progress)

    def _kept_queries(
        self, task: PreparedTask, queries: ReadTexts, gradients: "_Compressor"
    ) -> KeptLines:
        identity = {**self._identity(task, task.queries), "positions": "completion"}
        folder = task.work / f"rapidin-queries-{short_id(identity)}"
        return kept_lines(folder, len(queries.rows), gradients.lines(queries.rows))

    def _identity(self, task: PreparedTask, texts: Sequence[LabelledText]) -> dict[str, Any]:
        return {
            "settings": self.settings,
            "model": model_fingerprint(resolve_model(task.model).path),
            "texts": texts_digest(texts),
        }

    def _require_memory(self, task: PreparedTask, read: ReadTask) -> None:
        n_kept = len(task.rows) + KEPT_COPIES * len(task.queries)
        need = predict_gradient_memory(
            task.model,
            self.config.parameters,
            longest=read.longest,
            sketched=True,
            kept_bytes=FLOAT16_BYTES * self.config.dim * n_kept,
        )
        require_gradient_memory(
            need,
            device=resolve_device(task.runtime.device),
            advice="Choose parameters of kind block or lora, fewer blocks, or a lower dim or "
            "max_tokens.",
        )


class _Compressor:
    """A model, and a sketch of its gradients."""

    def __init__(self, task: PreparedTask, config: RapidInConfig) -> None:
        self._task, self._config = task, config
        self._model = GradientModel(
            task.model,
            config.parameters,
            seed=config.seed,
            device=resolve_device(task.runtime.device),
        )
        self._sketch = BinnedSketch(
            self._model.n_numbers, dim=config.dim, kind=config.shuffle, seed=config.seed
        )

    @property
    def tables(self) -> dict[str, int | str]:
        """What rows and queries must share."""
        return self._sketch.tables

    @property
    def note(self) -> str:
        """What was compressed into what."""
        n_tensors = len(self._model.shapes)
        return (
            f"gradients of {self._model.n_numbers:,} numbers in {n_tensors} tensors, "
            f"{self._sketch.dim:,} kept"
        )

    def lines(self, rows: Sequence[TokenRow]) -> Callable[[range], np.ndarray]:
        """Return what makes the compressed gradients of some of the rows."""

        def make(places: range) -> np.ndarray:
            made = [compressed(self._model.gradients(rows[row]), self._sketch) for row in places]
            return np.stack(made)

        return make

    def token_lines(self, row: TokenRow) -> np.ndarray:
        """Return the compressed gradient of each predicted token."""
        found = self._model.token_gradients(row)
        return np.stack([compressed(own, self._sketch) for own in found])
