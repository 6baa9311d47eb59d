"""Tail-patch: after one step on a query's strongest rows, is the query more likely?

For each query the model takes one step of the training's optimiser, from the same start, on the
batch of its k strongest rows, and the change of the query's log-probability (nats a token, prompt
left out) is what the rows were worth. Random rows of the pool stand beside them, query by query:
any text teaches something. One step says less than a retraining, and costs seconds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rise_ops.bootstrap import bootstrap_mean
from tasks.backbone import load_tokenizer
from tasks.evaluate.counterfactual_config import TailPatchConfig
from tasks.evaluate.loss_bank import LossBank, Training
from tasks.evaluate.method import PreparedTask
from tasks.evaluate.short_texts import (
    MeasureRefused,
    balanced,
    cut_texts,
    predicted_tokens,
    with_loss,
)
from tasks.progress import NO_PROGRESS, Progress


def tail_patch_lines(
    task: PreparedTask,
    scores: Mapping[str, npt.NDArray[np.float32]],
    config: TailPatchConfig,
    folder: Path,
    *,
    progress: Progress = NO_PROGRESS,
) -> list[dict[str, Any]]:
    """Return what the strongest rows of every method are worth, without task and paradigm.

    Args:
        task: The whole task.
        scores: Of its rows and queries, by method.
        config: Of the step.
        folder: Where banks are kept: rows that two methods choose are trained on once.
        progress: Receives one step for each training.

    Raises:
        MeasureRefused: The pool has fewer rows than the step takes, or no query can be measured.
    """
    plan = _Plan(task, config)
    wanted = {name: plan.strongest(own) for name, own in scores.items()}
    drawn = [plan.random_rows(draw) for draw in range(config.random_draws)]
    every = [plan.base, *wanted.values(), *drawn]
    bank = LossBank(folder, task.model, task.rows, task.queries, plan.training, task.runtime)
    bank.fill([one for own in every for one in own], progress=progress)
    before = _losses(bank, plan.base)
    random_gain = before - np.mean([_losses(bank, own) for own in drawn], axis=0)
    lines = []
    for name, own in wanted.items():
        gain = before - _losses(bank, own)
        lines.append(
            {
                "method": name,
                "k": config.rows,
                **_with_interval(gain, ("value", "low", "high"), seed=config.seed),
                "random": float(random_gain.mean()),
                **_with_interval(
                    gain - random_gain, ("above", "above_low", "above_high"), seed=config.seed
                ),
                "tokens": plan.mean_tokens(own),
                "random_tokens": plan.mean_tokens([one for steps in drawn for one in steps]),
                "n_queries": len(plan.queries),
            }
        )
    return lines


class _Plan:
    """Which steps are taken for which queries."""

    def __init__(self, task: PreparedTask, config: TailPatchConfig) -> None:
        self._config = config
        self.training = config.training.model_copy(
            update={
                "epochs": 1,
                "batch_rows": config.rows,
                "batch_tokens": None,
                "warmup": 0.0,
                "decay": "none",
            }
        )
        tokenizer, most = load_tokenizer(task.model), config.training.max_tokens
        queries = cut_texts(task.queries, tokenizer, max_tokens=most)
        masked = config.training.positions == "completion"
        self._n_tokens = predicted_tokens(task.rows, tokenizer, completion=masked, max_tokens=most)
        self._usable = np.flatnonzero(self._n_tokens)
        askable = with_loss(queries, tokenizer, completion=True)
        self.queries = balanced(queries, askable, config.queries, seed=config.seed)
        if len(self._usable) < config.rows or not self.queries:
            raise MeasureRefused(
                f"tail-patch on {task.name} needs {config.rows} rows and a query with a predicted "
                f"token among their first {most}, found {len(self._usable)} and "
                f"{len(self.queries)}. Raise tail_patch.training.max_tokens or lower "
                "tail_patch.rows, or leave tail-patch out for this task."
            )

    @property
    def base(self) -> list[Training]:
        """No step at all."""
        return [Training((), 0, (query,)) for query in self.queries]

    def strongest(self, scores: npt.NDArray[np.float32]) -> list[Training]:
        """Steps on each query's highest rows."""
        order = np.argsort(-scores[self._usable], axis=0, kind="stable")[: self._config.rows]
        return [self._step(self._usable[order[:, query]], query) for query in self.queries]

    def random_rows(self, draw: int) -> list[Training]:
        """Steps on rows drawn by seed."""
        steps = []
        for query in self.queries:
            rng = np.random.default_rng([self._config.seed, draw, query])
            steps.append(self._step(rng.permutation(self._usable)[: self._config.rows], query))
        return steps

    def mean_tokens(self, steps: Sequence[Training]) -> float:
        """Return how many predicted tokens a step has, mean."""
        return float(np.mean([self._n_tokens[list(step.rows)].sum() for step in steps]))

    def _step(self, rows: npt.NDArray[np.int64], query: int) -> Training:
        return Training(tuple(sorted(int(row) for row in rows)), 0, (query,))


def _with_interval(
    values: npt.NDArray[np.float64], names: tuple[str, str, str], *, seed: int
) -> dict[str, float | None]:
    """Return the mean over queries and the ends of its interval, by these names."""
    interval = bootstrap_mean(values, rng=np.random.default_rng(seed))
    ends = (interval.low, interval.high) if interval else (None, None)
    return dict(zip(names, (float(values.mean()), *ends), strict=True))


def _losses(bank: LossBank, trainings: list[Training]) -> npt.NDArray[np.float64]:
    return np.concatenate([bank.losses(one) for one in trainings])
