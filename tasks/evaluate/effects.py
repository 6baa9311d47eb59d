"""The counterfactual measures of a cell, taken once and kept: what do trainings say of methods?

Kept by the task, the methods and the settings together. Losses of trainings are banked on their
own, so that a further method is measured without training anew, and so is whatever another try may
measure after all: it is taken again by the next run.
"""

import logging
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from storage.files import read_json, short_id, write_json
from tasks.backbone import device_kind, load_tokenizer, resolve_device
from tasks.evaluate.counterfactual import (
    EVERY_METHOD,
    Counterfactual,
    MethodFailedError,
    Scorer,
    TrainedTask,
    counterfactual,
)
from tasks.evaluate.counterfactual_config import CounterfactualConfig
from tasks.evaluate.kept import RESULT_VERSION
from tasks.evaluate.method import CONTROLS, MethodRefused, MethodScores, PreparedTask
from tasks.evaluate.ready import ReadyTask, ready_task
from tasks.evaluate.registry import ChosenMethod, choose_methods, table_names
from tasks.evaluate.run import REASON_CHARS, Outcome, scores_of
from tasks.evaluate.settings import EvaluateConfig, Paradigm, settings_of
from tasks.evaluate.texts import labelled_digest
from tasks.progress import NO_PROGRESS, Progress
from tasks.training import TRAINING_VERSION

LOG = logging.getLogger(__name__)
EFFECTS_VERSION = 3
"""Raised when the same things would give other numbers."""

EFFECTS = "counterfactual"
BANK = "trainings"

MEASURES = ("lds", "tail_patch", "closed_loop")
"""Measures and the tables of the same names; each is taken and kept alone."""


@dataclass(frozen=True)
class EffectsReport:
    """What was measured; see `Counterfactual`.

    Attributes:
        task: Name of the task.
        paradigm: predict or recall.
        n_lines: Lines of each table.
        reasons: Why a measure was not taken.
    """

    task: str
    paradigm: Paradigm
    n_lines: Mapping[str, int]
    reasons: Mapping[str, str]

    @property
    def summary(self) -> str:
        """One line for people."""
        parts = [f"{n:,} lines of {name}" for name, n in self.n_lines.items()]
        parts += [f"no {name}: {reason}" for name, reason in self.reasons.items()]
        return f"trainings on {self.task} ({self.paradigm}): {'; '.join(parts)}"


def measure_effects(
    config: EvaluateConfig,
    task: str,
    paradigm: Paradigm,
    methods: Sequence[str],
    *,
    progress: Progress = NO_PROGRESS,
) -> EffectsReport:
    """Take the counterfactual measures of a task, those that are not finished from before.

    A task that is too small for one of them is said so; the others are taken. A measure that lacks
    a method, or diverged, or did not fit into memory, or broke, is no finished one.

    Args:
        config: With counterfactual settings.
        task: Name of the task.
        paradigm: predict or recall.
        methods: Names of the methods that have scores.
        progress: Receives one step for each training.
    """
    ready = ready_task(config, task, paradigm)
    chosen = [one for one in choose_methods(config.methods) if one.name in methods]
    n_lines: dict[str, int] = {}
    reasons: dict[str, str] = {}
    for measure, settings in _asked(config).items():
        path = _path(config, ready, chosen, measure, settings)
        if not path.is_file() or not read_json(path)["finished"]:
            write_json(path, asdict(_measured(config, ready, chosen, settings, progress)))
        found = read_json(path)
        n_lines[measure] = len(found[measure])
        for line in found["refusals"]:
            if line["method"] == EVERY_METHOD:
                reasons[measure] = line["reason"]
    return EffectsReport(task, paradigm, n_lines, reasons)


def kept_effects(
    config: EvaluateConfig, ready: ReadyTask, methods: Sequence[ChosenMethod]
) -> dict[str, dict[str, Any]]:
    """Return the fields of `Counterfactual` for each measure that was taken, finished or not."""
    if not config.measures_training(ready.texts.name, ready.paradigm):
        return {}
    paths = {
        measure: _path(config, ready, methods, measure, settings)
        for measure, settings in _asked(config).items()
    }
    return {measure: read_json(path) for measure, path in paths.items() if path.is_file()}


def scored_methods(outcomes: Sequence[Outcome], task: str, paradigm: Paradigm) -> list[str]:
    """Return the methods that have scores on a task."""
    mine = [one for one in outcomes if (one.task, one.paradigm) == (task, paradigm)]
    return [one.method for one in mine if one.result]


def _asked(config: EvaluateConfig) -> dict[str, CounterfactualConfig]:
    """Return each measure that is asked for, with settings that ask for it alone."""
    whole = config.counterfactual
    if whole is None:
        return {}
    none = dict.fromkeys(MEASURES)
    if whole.closed_loop is not None:
        methods = table_names(whole.closed_loop.methods, choose_methods(config.methods))
        loop = whole.closed_loop.model_copy(update={"methods": methods})
        whole = whole.model_copy(update={"closed_loop": loop})
    return {
        measure: whole.model_copy(update={**none, measure: getattr(whole, measure)})
        for measure in MEASURES
        if getattr(whole, measure) is not None
    }


def _measured(
    config: EvaluateConfig,
    ready: ReadyTask,
    methods: Sequence[ChosenMethod],
    settings: CounterfactualConfig,
    progress: Progress,
) -> Counterfactual:
    return counterfactual(
        TrainedTask(
            scored=ready.prepared(config),
            whole=ready.prepared(config, ready.whole),
            held_out=ready.texts.held_out,
        ),
        {one.name: _scorer(config, ready, one) for one in methods},
        settings,
        Path(config.work).absolute() / BANK,
        controls=[one.name for one in methods if one.family == CONTROLS],
        progress=progress,
    )


def _scorer(config: EvaluateConfig, ready: ReadyTask, method: ChosenMethod) -> Scorer:
    def scorer(task: PreparedTask) -> MethodScores:
        try:
            kept = scores_of(config, ready, method, task)
        except MethodRefused:
            raise
        except Exception as error:
            LOG.warning("%s failed:\n%s", method.name, traceback.format_exc())
            raise MethodFailedError(f"{type(error).__name__}: {error}"[:REASON_CHARS]) from error
        return MethodScores(kept.scores(), kept.cost, tuple(kept.notes))

    return scorer


def _path(
    config: EvaluateConfig,
    ready: ReadyTask,
    methods: Sequence[ChosenMethod],
    measure: str,
    settings: CounterfactualConfig,
) -> Path:
    known = {
        "version": EFFECTS_VERSION,
        "training_version": TRAINING_VERSION,
        "result_version": RESULT_VERSION,
        "tokenizer": load_tokenizer(ready.model).fingerprint,
        "device": device_kind(resolve_device(config.runtime.device)),
        **ready.identity,
        "whole": ready.whole.identity,
        "methods": [[one.name, one.key, dict(one.settings)] for one in methods],
        "held_out": labelled_digest(ready.texts.held_out),
        "settings": settings_of(settings),
        "seed": config.seed,
    }
    name = f"{measure}-{ready.texts.name}-{ready.paradigm}-{short_id(known)}.json"
    return Path(config.work).absolute() / EFFECTS / name
