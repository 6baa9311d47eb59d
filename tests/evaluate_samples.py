"""A tiny task for methods of the evaluation suite."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tiny_rows import WORDS

from tasks.config import ModelConfig, RuntimeConfig
from tasks.evaluate.method import LabelledText, PreparedTask


def labelled_texts(n_texts: int, *, start: int = 0, prompt: int = 6) -> list[LabelledText]:
    """Texts of a few words, of two labels; the first characters are the prompt."""
    texts = []
    for number in range(start, start + n_texts):
        n_words = 4 + number % 5
        words = " ".join(WORDS[(number * 5 + i * i) % len(WORDS)] for i in range(n_words))
        texts.append(LabelledText(f"t{number}", words, prompt, "ab"[number % 2]))
    return texts


def prepared_task(
    model: Path,
    work: Path,
    *,
    rows: Sequence[LabelledText] | None = None,
    queries: Sequence[LabelledText] | None = None,
    checkpoints: Sequence[Path] = (),
    **changes: Any,
) -> PreparedTask:
    """Return a task of six rows and three queries, on a model's folder, on the CPU."""
    rows = labelled_texts(6) if rows is None else rows
    queries = labelled_texts(3, start=20) if queries is None else queries
    labels = np.array([row.label for row in rows])
    return PreparedTask(
        name="tiny",
        rows=rows,
        queries=queries,
        positives=labels[:, None] == np.array([query.label for query in queries]),
        model=ModelConfig(name=str(model), dtype="float32"),
        checkpoints=tuple(checkpoints),
        runtime=RuntimeConfig(device="cpu"),
        work=work,
        **changes,
    )
