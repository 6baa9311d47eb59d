"""A small task of two kinds of text, and scores whose worth for it is known."""

from pathlib import Path

import numpy as np

from tasks.config import ModelConfig, RuntimeConfig
from tasks.evaluate.method import Cost, LabelledText, MethodScores, PreparedTask
from tasks.training_config import BlocksTraining, TrainingConfig

SHORT = TrainingConfig(
    trained=BlocksTraining(blocks=1), epochs=2, batch_rows=4, learning_rate=3e-3, max_tokens=16
)
LOOP = SHORT.model_copy(update={"batch_tokens": 48})
FOX = "The {}th quick brown fox jumps over the lazy dog."
TALK = "User {}: hello there, Paris is what? Assistant: fine."


def texts(n: int, *, first: int = 0) -> list[LabelledText]:
    """Two kinds of text that have hardly a word in common, one after the other."""
    return [
        LabelledText(f"t{k}", (FOX, TALK)[k % 2].format(k), 0, ("fox", "talk")[k % 2])
        for k in range(first, first + n)
    ]


def small_task(model: Path, work: Path) -> PreparedTask:
    """Forty rows and eight queries of the two kinds; right are those of a query's kind."""
    rows, queries = texts(40), texts(8, first=100)
    right = np.array([[row.label == query.label for query in queries] for row in rows])
    return PreparedTask(
        name="kinds",
        rows=rows,
        queries=queries,
        positives=right,
        model=ModelConfig(name=str(model), dtype="float32"),
        checkpoints=(),
        runtime=RuntimeConfig(device="cpu"),
        work=work,
    )


def known(task: PreparedTask) -> MethodScores:
    """The label, with a little of the row's place so that ranks are strict."""
    scores = task.positives + 1e-3 * np.arange(len(task.rows))[:, None] / len(task.rows)
    return MethodScores(scores.astype(np.float32), Cost(0.0, 0.0))
