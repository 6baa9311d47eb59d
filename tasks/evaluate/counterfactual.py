"""The counterfactual measures of a task: LDS, tail-patch and the closed loop, of all methods.

Tail-patch and the closed loop use the scores that the methods gave the whole task; LDS has them
score a few short rows. Trainings are kept under ``folder`` by what they are, whoever asks for them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.evaluate.closed_loop import closed_loop_lines
from tasks.evaluate.counterfactual_config import CounterfactualConfig
from tasks.evaluate.lds import lds_facts, lds_lines, lds_losses, lds_task
from tasks.evaluate.method import LabelledText, MethodRefused, MethodScores, PreparedTask
from tasks.evaluate.tail_patch import tail_patch_lines
from tasks.progress import NO_PROGRESS, Progress

Scorer = Callable[[PreparedTask], MethodScores]
"""`Method.scores`, or something that looks up what was kept; may raise `MethodRefused`."""

Line = dict[str, Any]


@dataclass(eq=False)
class Counterfactual:
    """Lines of the tables of `tasks.evaluate.tables`, without task and paradigm.

    Attributes:
        lds: Of ``LDS_SCHEMA``.
        tail_patch: Of ``TAIL_PATCH_SCHEMA``.
        closed_loop: Of ``CLOSED_LOOP_SCHEMA``.
        refusals: Of ``REFUSALS_SCHEMA``: methods that do not score the rows of LDS.
        facts: What a reader should know of the trainings, JSON-ready.
    """

    lds: list[Line] = field(default_factory=list)
    tail_patch: list[Line] = field(default_factory=list)
    closed_loop: list[Line] = field(default_factory=list)
    refusals: list[Line] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def counterfactual(
    task: PreparedTask,
    scorers: Mapping[str, Scorer],
    config: CounterfactualConfig,
    folder: Path,
    *,
    held_out: Sequence[LabelledText] = (),
    progress: Progress = NO_PROGRESS,
) -> Counterfactual:
    """Measure methods on a task by what training does.

    Args:
        task: The whole task.
        scorers: Methods by name; one that refuses is left out, and said.
        config: What is measured, and how.
        folder: Where trainings are kept.
        held_out: Further labelled texts, for the losses of the closed loop.
        progress: Receives one step for each training.

    Raises:
        ValueError: The task is too small for a measure; the message says which setting to change.
    """
    result = Counterfactual()
    if config.lds is not None:
        small = lds_task(task, config.lds)
        found = lds_losses(small, config.lds, folder, progress=progress)
        scores = _score(small, scorers, result)
        result.lds = lds_lines(small, found, scores)
        result.facts["lds"] = lds_facts(small, found)
    if config.tail_patch is None and config.closed_loop is None:
        return result
    scores = _score(task, scorers, result)
    if config.tail_patch is not None:
        result.tail_patch = tail_patch_lines(
            task, scores, config.tail_patch, folder, progress=progress
        )
    if config.closed_loop is not None:
        result.closed_loop = closed_loop_lines(
            task, held_out, scores, config.closed_loop, folder, progress=progress
        )
    return result


def _score(
    task: PreparedTask, scorers: Mapping[str, Scorer], result: Counterfactual
) -> dict[str, npt.NDArray[np.float32]]:
    scores = {}
    for name, scorer in scorers.items():
        try:
            scores[name] = scorer(task).scores
        except MethodRefused as refusal:
            line = {"method": name, "kind": "refused", "reason": str(refusal)}
            if line not in result.refusals:
                result.refusals.append(line)
    return scores
