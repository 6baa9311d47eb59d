"""The counterfactual measures inside an evaluation: on its tasks, by its methods, in its folder.

They are of the paradigm "predict": every training starts at the model that is attributed. Scores of
a whole task are those of the evaluation; of the few short rows of LDS they are made and kept in the
same way. What came out is one file, by everything that it depends on.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from storage.files import read_json, short_id, write_json
from tasks.backbone import load_tokenizer
from tasks.evaluate.counterfactual import Counterfactual, Scorer, counterfactual
from tasks.evaluate.counterfactual_config import CounterfactualConfig
from tasks.evaluate.method import Cost, MethodRefused, MethodScores, PreparedTask
from tasks.evaluate.ready import ReadyTask, ready_task
from tasks.evaluate.registry import ChosenMethod, choose_methods
from tasks.evaluate.run import cell_scores
from tasks.evaluate.settings import EvaluateConfig, Paradigm, settings_of
from tasks.evaluate.texts import texts_digest
from tasks.progress import NO_PROGRESS, Progress

COUNTERFACTUAL_VERSION = 1
"""Raised when the same trainings would give other lines."""

BANKS = "banks"
FOLDER = "counterfactual"
PARADIGM: Paradigm = "predict"

Lines = dict[str, list[dict[str, Any]]]
TABLES = ("lds", "tail_patch", "closed_loop", "refusals")


@dataclass(frozen=True)
class CounterfactualReport:
    """What was measured on a task.

    Attributes:
        task: Its name.
        lines: Of the tables lds, tail_patch, closed_loop and refusals.
        facts: What a reader should know of the trainings.
        seconds: Wall time of this call; little where trainings were kept.
    """

    task: str
    lines: Lines
    facts: Mapping[str, Any]
    seconds: float


def run_counterfactual(
    config: EvaluateConfig, task: str, *, progress: Progress = NO_PROGRESS
) -> CounterfactualReport:
    """Measure the methods of an evaluation on a task by what training does.

    Args:
        config: The evaluation, with ``counterfactual`` set.
        task: Name of the task.
        progress: Receives one step for each training.

    Raises:
        ValueError: ``counterfactual`` is not set, there is no such task, or a training failed.
    """
    if config.counterfactual is None:
        raise ValueError("counterfactual is not set; give cpu, gpu or settings.")
    started = time.perf_counter()
    ready = ready_task(config, task, PARADIGM)
    found = counterfactual(
        _whole(config, ready),
        {one.name: _scorer(config, ready, one) for one in choose_methods(config.methods)},
        config.counterfactual,
        Path(config.work).absolute() / BANKS,
        held_out=ready.texts.held_out,
        progress=progress,
    )
    write_json(_file(config, ready, config.counterfactual), _record(task, found))
    lines, facts = kept_counterfactual(config, ready)
    return CounterfactualReport(task, lines, facts, time.perf_counter() - started)


def kept_counterfactual(
    config: EvaluateConfig, ready: ReadyTask
) -> tuple[Lines, Mapping[str, Any]]:
    """Return the lines that were measured on a task with these settings, and facts; or none."""
    empty: Lines = {name: [] for name in TABLES}
    if config.counterfactual is None or ready.paradigm != PARADIGM:
        return empty, {}
    file = _file(config, ready, config.counterfactual)
    if not file.is_file():
        return empty, {}
    record = read_json(file)
    return {name: record[name] for name in TABLES}, record["facts"]


def _record(task: str, found: Counterfactual) -> dict[str, Any]:
    cell = {"task": task, "paradigm": PARADIGM}
    lines = {name: [cell | line for line in getattr(found, name)] for name in TABLES}
    return {**lines, "facts": found.facts}


def _file(config: EvaluateConfig, ready: ReadyTask, settings: CounterfactualConfig) -> Path:
    identity = {
        **ready.identity,
        "version": COUNTERFACTUAL_VERSION,
        "held_out": texts_digest(ready.texts.held_out),
        "methods": [
            [one.name, one.key, dict(one.settings)] for one in choose_methods(config.methods)
        ],
        "counterfactual": settings_of(settings),
        "seed": config.seed,
    }
    return Path(config.work).absolute() / FOLDER / f"{ready.texts.name}-{short_id(identity)}.json"


def _whole(config: EvaluateConfig, ready: ReadyTask) -> PreparedTask:
    """Return the task for the measures themselves, which keep nothing in its folder."""
    return PreparedTask(
        name=ready.texts.name,
        rows=ready.texts.rows,
        queries=ready.texts.queries,
        positives=ready.texts.positives,
        model=ready.model,
        checkpoints=(),
        runtime=config.runtime,
        work=Path(config.work).absolute() / FOLDER,
        seed=config.seed,
    )


def _scorer(config: EvaluateConfig, ready: ReadyTask, method: ChosenMethod) -> Scorer:
    """Return what scores the whole task or a part of it, and keeps that as an evaluation does."""

    def scorer(task: PreparedTask) -> MethodScores:
        own = ready
        if task.rows is not ready.texts.rows:
            texts = replace(ready.texts, rows=task.rows, queries=task.queries)
            lengths = load_tokenizer(ready.model).count([row.text for row in task.rows])
            own = replace(ready, texts=texts, lengths=lengths)
        _, reason, kept = cell_scores(config, own, method)
        if kept is None:
            raise MethodRefused(reason)
        return MethodScores(kept.scores(), Cost(0.0, 0.0))

    return scorer
