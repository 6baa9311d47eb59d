"""What every attribution method is to the suite: texts in, scores out, and what it cost.

One sign: a higher score is a stronger proponent. One shape: ``[rows, queries]``. A method that
cannot run on a task says why (`MethodRefused`); that is a line of the report, not a failure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tasks.config import ModelConfig, RuntimeConfig
from tasks.progress import NO_PROGRESS, Progress

CONTROLS = "controls"
"""Family of what the others are to beat, and no method: length, random order."""


class MethodRefused(ValueError):  # noqa: N818 - a verdict on a method and a task, not a fault
    """A method does not run here: its package is missing, or weights or rows do not fit."""


@dataclass(frozen=True)
class LabelledText:
    """A row or a query.

    Attributes:
        text_id: Unique among rows or queries.
        text: The whole text.
        prompt_chars: Leading characters of ``text`` that are the prompt; of a query they carry no
            loss.
        label: Where it came from; rows of a query's label are its positives.
    """

    text_id: str
    text: str
    prompt_chars: int
    label: str


@dataclass(frozen=True, eq=False)
class PreparedTask:
    """A task that methods run on.

    Attributes:
        name: Of the task, with its paradigm where it was fine-tuned.
        rows: The pool, in an order that is independent of labels.
        queries: What is to be explained.
        positives: Rows that are right for a query, bool ``[rows, queries]``.
        model: What is attributed: the pretrained model, or the fine-tuned one.
        checkpoints: Folders of the fine-tuning's checkpoints, oldest first; none for "predict".
        runtime: Device, batch size, limits.
        work: A folder of this method and task, kept between runs.
        seed: Of whatever is random.
        pool_work: A folder of this method, pool and model: what is made of rows alone may be kept
            there for other tasks of the same pool.
    """

    name: str
    rows: Sequence[LabelledText]
    queries: Sequence[LabelledText]
    positives: npt.NDArray[np.bool_]
    model: ModelConfig
    checkpoints: Sequence[Path]
    runtime: RuntimeConfig
    work: Path
    seed: int = 0
    pool_work: Path | None = None

    @property
    def lock(self) -> Path:
        """Where a second process that runs the method on these rows waits for the first."""
        mine = self.pool_work or self.work
        return mine.with_name(f"{mine.name}.lock")


@dataclass(frozen=True)
class Cost:
    """What a method took.

    Attributes:
        index_seconds: Everything that is done once for the rows, loading the model left out; of
            parts that were kept from before, what they took then.
        query_seconds: Everything that is done for the queries, scoring included.
        n_tokens: Tokens of the rows that a model read; 0 where none did.
        bytes_per_row: What is stored of a row; 0 where nothing is.
        load_seconds: Reading the model; None where there is none, or where it was in memory.
        reused: Parts were kept from before, so that memory now says nothing of the method.
        start_bytes: Resident memory of the whole process when it began. This and the following are
            measured by whoever runs the method; None where nothing was measured.
        peak_bytes: The most while it ran.
        device_peak_bytes: The most that tensors took on a CUDA device; None elsewhere.
    """

    index_seconds: float
    query_seconds: float
    n_tokens: int = 0
    bytes_per_row: float = 0.0
    load_seconds: float | None = None
    reused: bool = False
    start_bytes: int | None = None
    peak_bytes: int | None = None
    device_peak_bytes: int | None = None


@dataclass(frozen=True, eq=False)
class MethodScores:
    """What a method says of a task.

    Attributes:
        scores: float32 ``[rows, queries]``, finite, higher = stronger proponent.
        cost: What it took.
        notes: What a reader should know: what was cut, which parameters, which package version.
    """

    scores: npt.NDArray[np.float32]
    cost: Cost
    notes: tuple[str, ...] = field(default=())


class Method(Protocol):
    """An attribution method with its settings."""

    @property
    def name(self) -> str:
        """Short and unique among the methods of a run: ``RISE compact``, ``BM25``."""

    @property
    def settings(self) -> dict[str, object]:
        """JSON-ready settings; part of what a kept result is known by."""

    def scores(self, task: PreparedTask, *, progress: Progress = NO_PROGRESS) -> MethodScores:
        """Score every row for every query.

        Raises:
            MethodRefused: It cannot run on this task here.
        """
