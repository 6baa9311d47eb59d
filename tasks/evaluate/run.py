"""Methods times tasks: each cell once, kept by what it depends on.

A cell is one method on one task in one paradigm. Its scores are looked for before anything runs, so
an interrupted evaluation goes on at the cell where it stopped, and a further method or task costs
only itself. A method that refuses, or fails, is a line of the tables; the others go on.
"""

import logging
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from storage.files import waiting_lock
from tasks.backbone import resolve_device
from tasks.evaluate.kept import KeptResult, find_result, keep_result
from tasks.evaluate.measuring import MemoryWatch
from tasks.evaluate.method import MethodRefused, MethodScores, PreparedTask
from tasks.evaluate.ready import ReadyTask, read_task, ready_task
from tasks.evaluate.registry import ChosenMethod, choose_methods, table_names
from tasks.evaluate.settings import EvaluateConfig, Paradigm
from tasks.evaluate.texts import pair_digest
from tasks.models import resolve_model
from tasks.progress import NO_PROGRESS, Progress

LOG = logging.getLogger(__name__)
REASON_CHARS = 2_000


@dataclass(frozen=True)
class TaskReport:
    """A task that was made ready.

    Attributes:
        task: Its name.
        paradigm: predict or recall.
        n_rows: Rows of the pool.
        n_queries: Queries.
        training: Id of the fine-tuning; empty for predict.
        seconds: Wall time of this call.
    """

    task: str
    paradigm: Paradigm
    n_rows: int
    n_queries: int
    training: str
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    Attributes:
        task: Name of the task.
        paradigm: predict or recall.
        method: The method's name in tables.
        result: Id of the kept scores; empty where there are none.
        kind: ``scored``, ``kept`` (from a run before), ``refused`` or ``failed``.
        reason: Why there are no scores.
        seconds: Wall time of this call.
        has_task: False: the task could not be made ready, so that nothing is known of it.
    """

    task: str
    paradigm: Paradigm
    method: str
    result: str
    kind: str
    reason: str
    seconds: float
    has_task: bool = True

    @property
    def summary(self) -> str:
        """One line for people."""
        where = f"{self.method} on {self.task} ({self.paradigm})"
        if self.kind in ("refused", "failed"):
            return f"{where}: {self.kind}: {self.reason.splitlines()[0]}"
        return f"{where}: {self.kind}, {self.seconds:,.1f} s"


def check_evaluation(config: EvaluateConfig) -> None:
    """Refuse settings that cannot be run, before any work is done for them.

    Raises:
        ValueError: An unknown method or setting of one, a closed loop of methods that the run does
            not have, no such model, or a task that cannot be read.
    """
    chosen = choose_methods(config.methods)
    loop = config.counterfactual.closed_loop if config.counterfactual else None
    if loop is not None:
        table_names(loop.methods, chosen)
    resolve_model(config.model)
    resolve_device(config.runtime.device)
    for task in config.tasks:
        read_task(config, task.name)


def prepare(
    config: EvaluateConfig, task: str, paradigm: Paradigm, *, progress: Progress = NO_PROGRESS
) -> TaskReport:
    """Make a task ready: read it, and fine-tune the model where the paradigm asks for it.

    Raises:
        ValueError: The task cannot be read, or the training does not run with these settings.
    """
    started = time.perf_counter()
    ready = ready_task(config, task, paradigm, progress=progress)
    return TaskReport(
        task=task,
        paradigm=paradigm,
        n_rows=len(ready.texts.rows),
        n_queries=len(ready.texts.queries),
        training=ready.training["id"] if ready.training else "",
        seconds=time.perf_counter() - started,
    )


def without_task(
    config: EvaluateConfig, task: str, paradigm: Paradigm, error: Exception
) -> list[Outcome]:
    """Return what became of a task's methods where the task could not be made ready."""
    reason = f"the task could not be made ready: {_told(error)}"[:REASON_CHARS]
    return [
        Outcome(task, paradigm, name, "", "failed", reason, 0.0, has_task=False)
        for name in method_names(config)
    ]


def run_method(
    config: EvaluateConfig,
    task: str,
    paradigm: Paradigm,
    method: str,
    *,
    progress: Progress = NO_PROGRESS,
) -> Outcome:
    """Have one method score one task, unless its scores are kept from before.

    Args:
        config: The evaluation.
        task: Name of the task.
        paradigm: predict or recall.
        method: The method's name in the tables.
        progress: What the method says of its work.
    """
    started = time.perf_counter()
    ready = ready_task(config, task, paradigm)
    chosen = chosen_method(config, method)
    kept = kept_result(config, ready, chosen)
    kind, reason = "kept", ""
    if kept is None:
        kind, reason, kept = _scored(config, ready, chosen, progress)
    return Outcome(
        task=task,
        paradigm=paradigm,
        method=chosen.name,
        result=kept.result_id if kept else "",
        kind=kind,
        reason=reason,
        seconds=time.perf_counter() - started,
    )


def method_names(config: EvaluateConfig) -> list[str]:
    """Return what the tables call the methods, in the order of the settings."""
    return [one.name for one in choose_methods(config.methods)]


def chosen_method(config: EvaluateConfig, method: str) -> ChosenMethod:
    """Return the method of that name in the tables.

    Raises:
        ValueError: The settings have none.
    """
    chosen = choose_methods(config.methods)
    found = next((one for one in chosen if one.name == method), None)
    if found is None:
        raise ValueError(f"no method {method!r}; there are {[one.name for one in chosen]}.")
    return found


def kept_result(
    config: EvaluateConfig, ready: ReadyTask, chosen: ChosenMethod
) -> KeptResult | None:
    """Return the scores of a cell from a run before; None when there are none."""
    return find_result(Path(config.work), _identity(ready, chosen, ready.prepared(config)))


def cells(config: EvaluateConfig) -> Sequence[tuple[str, Paradigm]]:
    """Return every task with every paradigm, in the order of the settings."""
    return [(task.name, paradigm) for task in config.tasks for paradigm in config.paradigms]


def scores_of(
    config: EvaluateConfig,
    ready: ReadyTask,
    chosen: ChosenMethod,
    task: PreparedTask,
    *,
    progress: Progress = NO_PROGRESS,
) -> KeptResult:
    """Return a method's scores of a task, or of a small one made of it, kept or made now.

    Raises:
        MethodRefused: The method cannot run on it here.
        Exception: Whatever a method fails with.
    """
    work, identity = Path(config.work), _identity(ready, chosen, task)
    kept = find_result(work, identity)
    if kept is not None:
        return kept
    placed = ready.placed(config, chosen, task)
    # a second process waits, then finds the scores; what is made of rows alone is shared, too
    with waiting_lock(placed.lock):
        kept = find_result(work, identity)
        if kept is not None:
            return kept
        return keep_result(
            work,
            identity,
            _checked(chosen, placed, progress),
            device=resolve_device(config.runtime.device),
            pool=placed.lock.parent.name,
            names={"task": ready.texts.name, "paradigm": ready.paradigm, "method": chosen.name},
        )


def _identity(ready: ReadyTask, chosen: ChosenMethod, task: PreparedTask) -> dict[str, object]:
    return {
        **ready.identity,
        "texts": pair_digest(task.rows, task.queries),
        "method": chosen.key,
        "settings": dict(chosen.settings),
        "seed": task.seed,
    }


def _scored(
    config: EvaluateConfig, ready: ReadyTask, chosen: ChosenMethod, progress: Progress
) -> tuple[str, str, KeptResult | None]:
    """Return what became of a cell, why, and its scores if there are any."""
    try:
        kept = scores_of(config, ready, chosen, ready.prepared(config), progress=progress)
    except MethodRefused as error:
        return "refused", (str(error) or "no reason given")[:REASON_CHARS], None
    except Exception as error:  # noqa: BLE001 - others' packages run in here; the rest must go on
        LOG.warning("%s on %s failed:\n%s", chosen.name, ready.name, traceback.format_exc())
        return "failed", _told(error)[:REASON_CHARS], None
    return "scored", "", kept


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _checked(chosen: ChosenMethod, task: PreparedTask, progress: Progress) -> MethodScores:
    """Return a method's scores, checked, with the memory that it took."""
    with MemoryWatch(resolve_device(task.runtime.device)) as memory:
        found = chosen.scores(task, progress=progress)
    expected = (len(task.rows), len(task.queries))
    if found.scores.shape != expected or found.scores.dtype != np.float32:
        raise TypeError(
            f"expected float32 scores of shape {expected}, got {found.scores.dtype} "
            f"{found.scores.shape}"
        )
    if not np.isfinite(found.scores).all():
        n_bad = int((~np.isfinite(found.scores)).sum())
        raise FloatingPointError(f"{n_bad} of the scores are not finite")
    if found.cost.reused:
        return found
    cost = replace(
        found.cost,
        start_bytes=memory.start_bytes,
        peak_bytes=memory.peak_bytes,
        device_peak_bytes=memory.device_peak_bytes,
    )
    return replace(found, cost=cost)
