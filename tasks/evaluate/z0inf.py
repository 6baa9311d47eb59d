"""Z0-Inf in the suite: losses of rows and queries at every checkpoint, and how the weights moved.

Needs a task of paradigm recall with several checkpoints. No gradient is taken.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from rise_ops.baselines.z0inf import (
    centred,
    curve_agreement,
    neighbours_of,
    step_products,
    z0inf_signatures,
)
from storage.files import short_id
from tasks.evaluate.checkpoint_weights import weight_slices
from tasks.evaluate.gradient_settings import Z0InfConfig
from tasks.evaluate.kept_lines import KeptLines, kept_lines
from tasks.evaluate.method import Cost, LabelledText, MethodRefused, MethodScores, PreparedTask
from tasks.evaluate.reading import ReadTexts, read_task
from tasks.models import model_fingerprint, resolve_model
from tasks.progress import NO_PROGRESS, Progress
from tasks.training import row_losses, texts_digest

Z0INF_VERSION = 1
"""Raised whenever the same settings would give other numbers."""

LEAST_CHECKPOINTS = 2
FLOAT64_BYTES = 8


@dataclass(frozen=True)
class Z0Inf:
    """Influence along a fine-tuning's trajectory, from loss differences."""

    config: Z0InfConfig = field(default_factory=Z0InfConfig)

    @property
    def name(self) -> str:
        """Of the method, with the published choice of neighbours and the factor where taken."""
        last = ", last checkpoints" if self.config.neighbours == "last" else ""
        return f"Z0-Inf{last}{', agreement' if self.config.agreement else ''}"

    @property
    def settings(self) -> dict[str, object]:
        """Every setting."""
        return {"version": Z0INF_VERSION, **self.config.model_dump(mode="json")}

    def scores(self, task: PreparedTask, *, progress: Progress = NO_PROGRESS) -> MethodScores:
        """Score every row for every query; a text without a predicted token scores 0.

        Raises:
            MethodRefused: The task has too few checkpoints, two of them are equal, or nothing is
                left to compare.
        """
        n_checkpoints = len(task.checkpoints)
        if n_checkpoints < LEAST_CHECKPOINTS:
            raise MethodRefused(
                f"Z0-Inf needs {LEAST_CHECKPOINTS} checkpoints of one fine-tuning or more (8 to 10 "
                f"are usual), and this task has {n_checkpoints}. Choose paradigm recall and raise "
                "training.checkpoints."
            )
        read = read_task(task, self.config)
        started = time.monotonic()
        products = step_products(weight_slices(task.checkpoints))
        moving = time.monotonic() - started
        masked = self.config.positions == "completion"
        rows = self._losses(task, task.rows, read.rows, progress, masked=masked)
        queries = self._losses(task, task.queries, read.queries, NO_PROGRESS, masked=True)
        started = time.monotonic()
        scores = np.zeros((len(task.rows), len(task.queries)), dtype=np.float32)
        with_loss = np.ix_(read.rows.predicted, read.queries.predicted)
        scores[with_loss] = self._combined(rows.values, queries.values, products)
        combining = time.monotonic() - started
        n_numbers = sum(map(len, neighbours_of(n_checkpoints, self.config.neighbours)))
        cost = Cost(
            index_seconds=moving + rows.seconds,
            query_seconds=queries.seconds + combining,
            n_tokens=read.rows.n_tokens * n_checkpoints,
            bytes_per_row=float(FLOAT64_BYTES * n_numbers),
            reused=rows.reused or queries.reused,
        )
        note = f"{n_checkpoints} checkpoints; seconds contain loading each"
        return MethodScores(scores, cost, (note, *read.notes))

    def _combined(self, rows: np.ndarray, queries: np.ndarray, products: np.ndarray) -> np.ndarray:
        """Return the scores of texts with losses [checkpoints, texts]."""
        kind, neighbours = self.config.centring, self.config.neighbours
        try:
            own = z0inf_signatures(centred(rows, rows, kind), products, neighbours=neighbours)
            asked = z0inf_signatures(centred(queries, rows, kind), products, neighbours=neighbours)
        except ValueError as error:
            raise MethodRefused(f"Z0-Inf: {error}") from error
        scores: np.ndarray = own @ asked.T
        return scores * curve_agreement(rows, queries) if self.config.agreement else scores

    def _losses(
        self,
        task: PreparedTask,
        texts: Sequence[LabelledText],
        read: ReadTexts,
        progress: Progress,
        *,
        masked: bool,
    ) -> KeptLines:
        """Return the losses of texts that have any, float64 [checkpoints, texts]."""
        kept = [texts[place] for place in read.predicted]
        if not kept:
            raise MethodRefused("no text has a predicted token; raise max_tokens.")
        places = [str(folder) for folder in task.checkpoints]
        models = [task.model.model_copy(update={"name": place}) for place in places]
        identity = {
            "version": Z0INF_VERSION,
            "models": [model_fingerprint(resolve_model(own).path) for own in models],
            "texts": texts_digest(kept),
            "max_tokens": read.most,
            "masked": masked,
        }

        def make(checkpoints: range) -> np.ndarray:
            found = [
                row_losses(
                    models[number],
                    kept,
                    max_tokens=read.most,
                    completion=masked,
                    runtime=task.runtime,
                )
                for number in checkpoints
            ]
            return np.stack(found)

        folder = task.work / f"z0inf-{short_id(identity)}"
        return kept_lines(folder, len(models), make, progress, block=1)
