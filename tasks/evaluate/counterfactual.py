"""The counterfactual measures of a task: LDS, tail-patch and the closed loop, of all methods.

Tail-patch and the closed loop use the scores that the methods gave the whole task; LDS has them
score a few short rows. Trainings are kept under ``folder`` by what they are, whoever asks for them.
"""

import logging
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.evaluate.closed_loop import closed_loop
from tasks.evaluate.counterfactual_config import CounterfactualConfig
from tasks.evaluate.lds import lds_facts, lds_lines, lds_losses, lds_task, n_too_short
from tasks.evaluate.method import LabelledText, MethodRefused, MethodScores, PreparedTask
from tasks.evaluate.short_texts import MeasureRefused
from tasks.evaluate.tail_patch import tail_patch_lines
from tasks.memory import is_out_of_memory
from tasks.progress import NO_PROGRESS, Progress
from tasks.trainer import DivergedError

LOG = logging.getLogger(__name__)

Scorer = Callable[[PreparedTask], MethodScores]
"""`Method.scores`, or something that looks up what was kept.

It may raise `MethodRefused` or `MethodFailedError`.
"""

Line = dict[str, Any]

EVERY_METHOD = "every method"
"""Stands for the methods where a measure is refused, and not a method."""


class MethodFailedError(RuntimeError):
    """A method that should have scored broke; the message says how."""


@dataclass(frozen=True, eq=False)
class TrainedTask:
    """A task as the measures see it.

    Attributes:
        scored: What methods have scored; tail-patch and the closed loop choose among its rows.
        whole: The same without limits; LDS draws from it.
        held_out: Further labelled texts, for the losses of the closed loop.
    """

    scored: PreparedTask
    whole: PreparedTask
    held_out: Sequence[LabelledText] = ()


@dataclass(eq=False)
class Counterfactual:
    """Lines of the tables of `tasks.evaluate.tables`, without task and paradigm.

    Attributes:
        lds: Of ``LDS_SCHEMA``.
        tail_patch: Of ``TAIL_PATCH_SCHEMA``.
        closed_loop: Of ``CLOSED_LOOP_SCHEMA``.
        refusals: Of ``REFUSALS_SCHEMA``: methods without scores, and measures that were not taken.
        facts: What a reader should know of the trainings, JSON-ready.
        finished: Whether another try would find the same: all was measured, or the task is too
            small. A method without scores, a divergence, too little memory or an error may go away.
    """

    lds: list[Line] = field(default_factory=list)
    tail_patch: list[Line] = field(default_factory=list)
    closed_loop: list[Line] = field(default_factory=list)
    refusals: list[Line] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    finished: bool = True


def counterfactual(
    task: TrainedTask,
    scorers: Mapping[str, Scorer],
    config: CounterfactualConfig,
    folder: Path,
    *,
    controls: Collection[str] = (),
    progress: Progress = NO_PROGRESS,
) -> Counterfactual:
    """Measure methods on a task by what training does.

    Args:
        task: What is measured.
        scorers: Methods by name; one that refuses or fails is left out, and said.
        config: What is measured, and how.
        folder: Where trainings are kept.
        controls: Names of those methods that are controls, such as random order.
        progress: Receives one step for each training.

    Returns:
        What was measured. A measure that a task is too small for, whose training diverges or does
        not fit into memory, is a line of ``refusals``, of `EVERY_METHOD`; one that breaks is one of
        kind failed, and logged.
    """
    run = _Run(task.scored, scorers, config, folder, progress)
    run.attempt(lambda: run.lds(task.whole, controls))
    run.attempt(run.tail_patch)
    run.attempt(lambda: run.closed_loop(task.held_out))
    return run.result


class _Run:
    """The measures of one task; scores of the whole task are asked for once."""

    def __init__(
        self,
        task: PreparedTask,
        scorers: Mapping[str, Scorer],
        config: CounterfactualConfig,
        folder: Path,
        progress: Progress,
    ) -> None:
        self.result = Counterfactual()
        self._task, self._scorers, self._config = task, scorers, config
        self._folder, self._progress = folder, progress

    def attempt(self, take: Callable[[], None]) -> None:
        """Take a measure, or record why it is not taken on this task: no error ends the others."""
        try:
            take()
        except MeasureRefused as refusal:
            self._without(EVERY_METHOD, str(refusal))
        except Exception as error:  # noqa: BLE001 - what breaks here must not end the others
            if isinstance(error, DivergedError) or is_out_of_memory(error):
                self._without(EVERY_METHOD, str(error), finished=False)
                return
            LOG.warning("a measure of %s broke:\n%s", self._task.name, traceback.format_exc())
            reason = f"{type(error).__name__}: {error}"
            self._without(EVERY_METHOD, reason, kind="failed", finished=False)

    def lds(self, whole: PreparedTask, controls: Collection[str]) -> None:
        """See `tasks.evaluate.lds`."""
        config = self._config.lds
        if config is None:
            return
        small = lds_task(whole, config)
        found = lds_losses(small, config, self._folder, progress=self._progress)
        noise = found.noise(small.seed)
        self.result.lds = lds_lines(small, found, noise, self._scores(small), controls)
        self.result.facts["lds"] = lds_facts(small, found, noise, n_too_short(whole, config))

    def tail_patch(self) -> None:
        """See `tasks.evaluate.tail_patch`."""
        config = self._config.tail_patch
        if config is not None:
            self.result.tail_patch = tail_patch_lines(
                self._task, self._whole_scores, config, self._folder, progress=self._progress
            )

    def closed_loop(self, held_out: Sequence[LabelledText]) -> None:
        """See `tasks.evaluate.closed_loop`."""
        config = self._config.closed_loop
        if config is not None:
            scores, folder = self._whole_scores, self._folder
            self.result.closed_loop, self.result.facts["closed_loop"] = closed_loop(
                self._task, held_out, scores, config, folder, progress=self._progress
            )

    @cached_property
    def _whole_scores(self) -> dict[str, npt.NDArray[np.float32]]:
        return self._scores(self._task)

    def _scores(self, task: PreparedTask) -> dict[str, npt.NDArray[np.float32]]:
        scores = {}
        for name, scorer in self._scorers.items():
            try:
                scores[name] = scorer(task).scores
            except MethodRefused as refusal:
                self._without(name, str(refusal), finished=False)
            except MethodFailedError as failure:
                self._without(name, str(failure), kind="failed", finished=False)
        return scores

    def _without(
        self, name: str, reason: str, *, kind: str = "refused", finished: bool = True
    ) -> None:
        self.result.finished = self.result.finished and finished
        line = {"method": name, "kind": kind, "reason": reason}
        if line not in self.result.refusals:
            self.result.refusals.append(line)
