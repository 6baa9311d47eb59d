"""The closed loop: train on what a method chooses, and see what the held-out losses say.

Every arm trains from the same start on the same number of predicted tokens, in as many steps.
``top`` and ``bottom`` take the rows that a method values highest and lowest for queries of one
label, the target; ``random`` and ``oracle`` (rows of the target's label) need no method, ``base``
no training. What is held out is never trained on. A method passes if the loss on the target is
lower after ``top`` than after ``random``, and higher after ``bottom``: each by more than three
deviations between seeds, and beyond chance over the held-out texts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rise_ops.bootstrap import Interval, bootstrap_mean
from tasks.evaluate.closed_loop_plan import Arm, LoopPlan
from tasks.evaluate.counterfactual_config import ClosedLoopConfig
from tasks.evaluate.loss_bank import LossBank, Training
from tasks.evaluate.method import LabelledText, PreparedTask
from tasks.progress import NO_PROGRESS, Progress

DEVIATIONS_TO_PASS = 3.0

DIRECTIONS = {"top": 1.0, "oracle": 1.0, "bottom": -1.0}
"""Sign that the loss of random rows less that of an arm should have."""


@dataclass(frozen=True)
class Apart:
    """By how much an arm is apart from random rows on the target, as a right method has it.

    Attributes:
        value: Top: random - top; bottom: bottom - random. Mean over texts, of means over seeds.
        low: End of its 95 % interval over held-out texts; None with fewer than two texts.
        high: The other end.
    """

    value: float
    low: float | None
    high: float | None

    @property
    def is_beyond_chance(self) -> bool:
        """Whether the interval lies above 0."""
        return self.low is not None and self.low > 0


@dataclass(frozen=True)
class Verdict:
    """What the closed loop says of a method; losses on the target, means over seeds.

    Attributes:
        method: Its name.
        top: After its strongest rows.
        random: After random rows.
        bottom: After its weakest rows.
        deviation: Between seeds: root of the mean variance of the three arms.
        top_apart: By how much top is better than random.
        bottom_apart: By how much bottom is worse than random.
        recovered: Of what the oracle gains over random rows, the share that top gains; None where
            the oracle is not better beyond chance.
        passed: Both steps are more than three deviations between seeds, and beyond chance.
    """

    method: str
    top: float
    random: float
    bottom: float
    deviation: float
    top_apart: Apart
    bottom_apart: Apart
    recovered: float | None
    passed: bool


def closed_loop(
    task: PreparedTask,
    held_out: Sequence[LabelledText],
    scores: Mapping[str, npt.NDArray[np.float32]],
    config: ClosedLoopConfig,
    folder: Path,
    *,
    progress: Progress = NO_PROGRESS,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return every training of the closed loop, without task and paradigm, and facts of them.

    Args:
        task: The whole task.
        held_out: Texts with labels in neither pool nor queries; empty: rows are taken out of the
            pool.
        scores: Of the task's rows and queries, by method; of methods that ``config`` names.
        config: Target, budget, seeds, training.
        folder: Where banks are kept: rows that two methods choose are trained on once.
        progress: Receives one step for each training.

    Raises:
        MeasureRefused: The target has no queries, too few rows, or no held-out text.
    """
    plan = LoopPlan(task, held_out, config)
    arms = plan.arms({name: own for name, own in scores.items() if _chosen(name, config)})
    bank = LossBank(folder, task.model, task.rows, plan.held_out, config.training, task.runtime)
    texts = tuple(range(len(plan.held_out)))
    trainings = {arm: Training(arm.rows, arm.seed, texts) for arm in arms}
    bank.fill([*trainings.values()], progress=progress)
    losses = {arm: bank.losses(training) for arm, training in trainings.items()}
    is_target = np.array([own.label == plan.target for own in plan.held_out])
    apart = _apart({arm: own[is_target] for arm, own in losses.items()}, seed=config.seed)
    lines = [
        {
            "method": arm.method,
            "arm": arm.arm,
            "seed": arm.seed,
            **plan.about(arm),
            "loss_target": float(own[is_target].mean()),
            "loss_elsewhere": float(own[~is_target].mean()) if (~is_target).any() else None,
            **apart[arm.method, arm.arm],
        }
        for arm, own in losses.items()
    ]
    return lines, plan.facts()


def verdicts(lines: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """Return what the lines of one task and paradigm say of each method."""
    oracle = _apart_of(lines, "", "oracle")
    random = _target_losses(lines, "", "random")
    found = []
    for method in dict.fromkeys(line["method"] for line in lines if line["arm"] == "top"):
        top, bottom = (_target_losses(lines, method, arm) for arm in ("top", "bottom"))
        above, below = (_apart_of(lines, method, arm) for arm in ("top", "bottom"))
        deviation = math.sqrt(np.mean([np.var(own, ddof=1) for own in (top, random, bottom)]))
        low, middle, high = (float(np.mean(own)) for own in (top, random, bottom))
        least = min(middle - low, high - middle)
        by_seeds = least > 0 and least > DEVIATIONS_TO_PASS * deviation
        found.append(
            Verdict(
                method=method,
                top=low,
                random=middle,
                bottom=high,
                deviation=deviation,
                top_apart=above,
                bottom_apart=below,
                recovered=above.value / oracle.value if oracle.is_beyond_chance else None,
                passed=by_seeds and above.is_beyond_chance and below.is_beyond_chance,
            )
        )
    return found


def _chosen(name: str, config: ClosedLoopConfig) -> bool:
    return not config.methods or name in config.methods


def _apart(
    losses: Mapping[Arm, npt.NDArray[np.float64]], *, seed: int
) -> dict[tuple[str, str], dict[str, float | None]]:
    """Return the columns of `Apart` of each method and arm; null for random rows and the base."""
    arms = dict.fromkeys((arm.method, arm.arm) for arm in losses)
    means = {
        key: np.mean([own for arm, own in losses.items() if (arm.method, arm.arm) == key], axis=0)
        for key in arms
    }
    found: dict[tuple[str, str], dict[str, float | None]] = {}
    for method, arm in arms:
        value: float | None = None
        interval: Interval | None = None
        if arm in DIRECTIONS:
            of_texts = DIRECTIONS[arm] * (means["", "random"] - means[method, arm])
            value = float(of_texts.mean())
            interval = bootstrap_mean(of_texts, rng=np.random.default_rng(seed))
        found[method, arm] = {
            "apart": value,
            "apart_low": interval.low if interval else None,
            "apart_high": interval.high if interval else None,
        }
    return found


def _apart_of(lines: Sequence[Mapping[str, Any]], method: str, arm: str) -> Apart:
    line = next(one for one in lines if one["method"] == method and one["arm"] == arm)
    return Apart(line["apart"], line["apart_low"], line["apart_high"])


def _target_losses(lines: Sequence[Mapping[str, Any]], method: str, arm: str) -> list[float]:
    own = (line for line in lines if line["method"] == method and line["arm"] == arm)
    return [line["loss_target"] for line in own]
