"""Methods that run no model: words, length, chance."""

import importlib.metadata
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from rise_ops.baselines.bm25 import Bm25Index
from rise_ops.baselines.length_scores import length_scores
from rise_ops.baselines.random_scores import random_scores
from rise_ops.baselines.tf_idf import TfIdfIndex
from tasks.backbone import load_tokenizer
from tasks.evaluate.measuring import Stopwatch
from tasks.evaluate.method import Cost, LabelledText, MethodScores, PreparedTask
from tasks.progress import NO_PROGRESS, Progress

WORDS_VERSION = 1
"""Of all methods here; raised whenever the same settings would give other numbers."""


@dataclass(frozen=True)
class Bm25Method:
    """BM25 of whole texts; see `rise_ops.baselines.bm25`."""

    k1: float = 1.5
    b: float = 0.75
    name: str = "BM25"

    @property
    def settings(self) -> dict[str, object]:
        """See `Method`."""
        package = importlib.metadata.version("bm25s")
        return {"version": WORDS_VERSION, "bm25s": package, "k1": self.k1, "b": self.b}

    def scores(self, task: PreparedTask, *, progress: Progress = NO_PROGRESS) -> MethodScores:
        """See `Method`."""
        logging.getLogger("bm25s").disabled = True  # on import it sets itself to DEBUG
        watch = Stopwatch()
        with watch("index"):
            index = Bm25Index(_texts(task.rows), k1=self.k1, b=self.b)
        with watch("query"):
            found = index.scores(_texts(task.queries))
        return _word_scores(task, found, watch, index.n_bytes)


@dataclass(frozen=True)
class TfIdfMethod:
    """Cosine of TF-IDF vectors of whole texts."""

    name: str = "TF-IDF"

    @property
    def settings(self) -> dict[str, object]:
        """See `Method`."""
        return {"version": WORDS_VERSION}

    def scores(self, task: PreparedTask, *, progress: Progress = NO_PROGRESS) -> MethodScores:
        """See `Method`."""
        watch = Stopwatch()
        with watch("index"):
            index = TfIdfIndex(_texts(task.rows))
        with watch("query"):
            found = index.scores(_texts(task.queries))
        return _word_scores(task, found, watch, index.n_bytes)


@dataclass(frozen=True)
class LengthMethod:
    """The length of a row, whatever the query."""

    unit: Literal["tokens", "words", "characters"] = "tokens"
    name: str = "length"

    @property
    def settings(self) -> dict[str, object]:
        """See `Method`."""
        return {"version": WORDS_VERSION, "unit": self.unit}

    def scores(self, task: PreparedTask, *, progress: Progress = NO_PROGRESS) -> MethodScores:
        """See `Method`."""
        watch = Stopwatch()
        with watch("index"):
            lengths = self._lengths(task)
        return MethodScores(
            length_scores(lengths, n_queries=len(task.queries)),
            Cost(watch["index"], 0.0, bytes_per_row=4.0),
            (f"in {self.unit}",),
        )

    def _lengths(self, task: PreparedTask) -> list[int]:
        texts = _texts(task.rows)
        if self.unit == "tokens":
            return load_tokenizer(task.model).count(texts)
        return [len(text.split()) if self.unit == "words" else len(text) for text in texts]


@dataclass(frozen=True)
class RandomMethod:
    """Chance."""

    seed: int = 0
    name: str = "random"

    @property
    def settings(self) -> dict[str, object]:
        """See `Method`."""
        return {"version": WORDS_VERSION, "seed": self.seed}

    def scores(self, task: PreparedTask, *, progress: Progress = NO_PROGRESS) -> MethodScores:
        """See `Method`."""
        found: npt.NDArray[np.float32] = random_scores(
            _texts(task.rows), _texts(task.queries), seed=self.seed + task.seed
        )
        return MethodScores(found, Cost(0.0, 0.0))


def _word_scores(
    task: PreparedTask, found: npt.NDArray[np.float32], watch: Stopwatch, n_bytes: int
) -> MethodScores:
    """Return scores with what the index took; its bytes are spread over the rows."""
    cost = Cost(
        watch["index"], watch["query"], bytes_per_row=float(round(n_bytes / max(1, len(task.rows))))
    )
    return MethodScores(found, cost, ("whole texts, prompts too",))


def _texts(texts: Sequence[LabelledText]) -> list[str]:
    return [one.text for one in texts]
