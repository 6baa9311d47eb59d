"""TracIn in the suite: inner products of whole gradients of some of the parameters.

Queries' gradients are held, rows' gradients meet them one by one and are gone again; what is kept
are the scores. With ``checkpoints: all`` these are summed over the fine-tuning's checkpoints, each
weighing alike.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from rise_ops.baselines.tracin import laid_out
from storage.files import short_id
from tasks.backbone import TokenRow, resolve_device
from tasks.config import ModelConfig
from tasks.evaluate.gradient_memory import predict_gradient_memory, require_gradient_memory
from tasks.evaluate.gradient_model import GradientModel
from tasks.evaluate.gradient_settings import TracInConfig, parameters_name
from tasks.evaluate.kept_lines import kept_lines
from tasks.evaluate.method import Cost, MethodRefused, MethodScores, PreparedTask
from tasks.evaluate.reading import ReadTask, read_task
from tasks.models import model_fingerprint, resolve_model
from tasks.progress import NO_PROGRESS, Progress
from tasks.training import texts_digest

TRACIN_VERSION = 1
"""Raised whenever the same settings would give other numbers."""

ROWS_TOGETHER = 4
"""Rows whose gradients meet the queries' in one product: those are read once for so many rows."""


@dataclass
class _Seconds:
    """What was spent so far, and the size of a gradient."""

    loading: float = 0.0
    rows: float = 0.0
    queries: float = 0.0
    reused: bool = False
    n_numbers: int = 0


@dataclass(frozen=True)
class TracIn:
    """Inner products of loss gradients on a subset of the parameters."""

    config: TracInConfig = field(default_factory=TracInConfig)

    @property
    def name(self) -> str:
        """Which parameters, and the product where it is another than the plain one."""
        product = "" if self.config.product == "dot" else f", {self.config.product}"
        every = ", all checkpoints" if self.config.checkpoints == "all" else ""
        return f"TracIn {parameters_name(self.config.parameters)}{product}{every}"

    @property
    def settings(self) -> dict[str, object]:
        """Every setting."""
        return {"version": TRACIN_VERSION, **self.config.model_dump(mode="json")}

    def scores(self, task: PreparedTask, *, progress: Progress = NO_PROGRESS) -> MethodScores:
        """Score every row for every query.

        Raises:
            MethodRefused: Gradients do not fit into memory, or there are no such parameters, or no
                checkpoints where all are asked for.
        """
        models = self._models(task)
        read = read_task(task, self.config)
        self._require_memory(task, read)
        total = np.zeros((len(task.rows), len(task.queries)), dtype=np.float64)
        cost = _Seconds()
        for model in models:
            total += self._at_checkpoint(task, model, read, cost, progress)
        note = f"gradients of {cost.n_numbers:,} numbers, of {len(models)} model(s); none is kept"
        return MethodScores(
            total.astype(np.float32),
            Cost(
                index_seconds=cost.rows,
                query_seconds=cost.queries,
                n_tokens=read.rows.n_tokens * len(models),
                load_seconds=cost.loading,
                reused=cost.reused,
            ),
            (note, *read.notes),
        )

    def _models(self, task: PreparedTask) -> Sequence[ModelConfig]:
        if self.config.checkpoints == "last":
            return [task.model]
        if not task.checkpoints:
            raise MethodRefused(
                "checkpoints: all needs the checkpoints of a fine-tuning, and this task has none "
                "(it is of the pretrained model). Choose paradigm recall, or checkpoints: last."
            )
        return [task.model.model_copy(update={"name": str(own)}) for own in task.checkpoints]

    def _at_checkpoint(
        self,
        task: PreparedTask,
        config: ModelConfig,
        read: ReadTask,
        cost: "_Seconds",
        progress: Progress,
    ) -> np.ndarray:
        started = time.monotonic()
        model = GradientModel(
            config,
            self.config.parameters,
            seed=self.config.seed,
            device=resolve_device(task.runtime.device),
        )
        cost.n_numbers = model.n_numbers
        loading = time.monotonic()
        asked = torch.stack([self._vector(model, own) for own in read.queries.rows])
        cost.loading += loading - started
        cost.queries += time.monotonic() - loading
        identity = {
            "settings": self.settings,
            "model": model_fingerprint(resolve_model(config).path),
            "rows": texts_digest(task.rows),
            "queries": texts_digest(task.queries),
        }
        folder = task.work / f"tracin-{short_id(identity)}"
        kept = kept_lines(folder, len(task.rows), self._products(model, read, asked), progress)
        cost.rows += kept.seconds
        cost.reused = cost.reused or kept.reused
        return kept.values

    def _products(
        self, model: GradientModel, read: ReadTask, asked: torch.Tensor
    ) -> Callable[[range], np.ndarray]:
        def make(places: range) -> np.ndarray:
            lines = []
            for first in range(places.start, places.stop, ROWS_TOGETHER):
                group = read.rows.rows[first : min(first + ROWS_TOGETHER, places.stop)]
                own = torch.stack([self._vector(model, row) for row in group])
                lines.append((own @ asked.T).cpu().numpy())
            return np.concatenate(lines)

        return make

    def _vector(self, model: GradientModel, row: TokenRow) -> torch.Tensor:
        return laid_out(model.gradients(row), self.config.product)

    def _require_memory(self, task: PreparedTask, read: ReadTask) -> None:
        need = predict_gradient_memory(
            task.model,
            self.config.parameters,
            longest=read.longest,
            sketched=False,
            held_gradients=len(task.queries) + ROWS_TOGETHER,
        )
        require_gradient_memory(
            need,
            device=resolve_device(task.runtime.device),
            advice="Choose fewer blocks or a parameters.pattern, ask fewer queries, or take "
            "RapidIn, which compresses gradients.",
        )
