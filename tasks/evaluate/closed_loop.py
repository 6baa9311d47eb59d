"""The closed loop: train on what a method chooses, and see what the held-out losses say.

Every arm trains from the same start on the same number of tokens. ``top`` and ``bottom`` take the
rows that a method values highest and lowest for queries of one label, the target; ``random`` and
``oracle`` (rows of the target's label) need no method, ``base`` no training. Held-out texts are
never chosen from, and a row that equals one of them is left out. A method passes if the loss on the
target is lower after ``top`` than after ``random``, and higher after ``bottom``, each by more than
three deviations between seeds.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.backbone import load_tokenizer
from tasks.evaluate.counterfactual_config import ClosedLoopConfig
from tasks.evaluate.loss_bank import LossBank, Training
from tasks.evaluate.method import LabelledText, PreparedTask
from tasks.evaluate.short_texts import MeasureRefused, balanced, cut_texts, with_loss
from tasks.progress import NO_PROGRESS, Progress

DEVIATIONS_TO_PASS = 3.0

FULL_SHARE = 0.99
"""A budget is spent when this share of it is; rows that do not fit the rest are passed over."""


@dataclass(frozen=True)
class Verdict:
    """What the closed loop says of a method; losses on the target, means over seeds.

    Attributes:
        method: Its name.
        top: After its strongest rows.
        random: After random rows.
        bottom: After its weakest rows.
        deviation: Between seeds: root of the mean variance of the three arms.
        passed: ``top < random < bottom``, each step by more than three deviations.
    """

    method: str
    top: float
    random: float
    bottom: float
    deviation: float
    passed: bool


@dataclass(frozen=True)
class _Arm:
    method: str
    arm: str
    seed: int
    rows: tuple[int, ...]


def closed_loop_lines(
    task: PreparedTask,
    held_out: Sequence[LabelledText],
    scores: Mapping[str, npt.NDArray[np.float32]],
    config: ClosedLoopConfig,
    folder: Path,
    *,
    progress: Progress = NO_PROGRESS,
) -> list[dict[str, Any]]:
    """Return every training of the closed loop, without task and paradigm.

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
    plan = _Plan(task, held_out, config)
    arms = plan.arms({name: own for name, own in scores.items() if _chosen(name, config)})
    bank = plan.bank(folder)
    trainings = {arm: Training(arm.rows, arm.seed, plan.texts) for arm in arms}
    bank.fill([*trainings.values()], progress=progress)
    return [plan.line(arm, bank.losses(training)) for arm, training in trainings.items()]


def verdicts(lines: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """Return what the lines of one task and paradigm say of each method."""
    found = []
    random = _target_losses(lines, "", "random")
    for method in dict.fromkeys(line["method"] for line in lines if line["arm"] == "top"):
        top, bottom = (_target_losses(lines, method, arm) for arm in ("top", "bottom"))
        deviation = math.sqrt(np.mean([np.var(own, ddof=1) for own in (top, random, bottom)]))
        low, middle, high = (float(np.mean(own)) for own in (top, random, bottom))
        least = min(middle - low, high - middle)
        passed = least > 0 and least > DEVIATIONS_TO_PASS * deviation
        found.append(Verdict(method, low, middle, high, deviation, passed))
    return found


def rows_within(
    order: Sequence[int], n_tokens: npt.NDArray[np.int64], *, budget: int
) -> tuple[int, ...]:
    """Return rows in their order until the budget of tokens is spent; ascending.

    A row that does not fit into what is left is passed over.
    """
    taken, left = [], budget
    for row in order:
        if n_tokens[row] <= left:
            taken.append(int(row))
            left -= int(n_tokens[row])
        if left <= (1.0 - FULL_SHARE) * budget:
            break
    return tuple(sorted(taken))


def _chosen(name: str, config: ClosedLoopConfig) -> bool:
    return not config.methods or name in config.methods


def _target_losses(lines: Sequence[Mapping[str, Any]], method: str, arm: str) -> list[float]:
    own = (line for line in lines if line["method"] == method and line["arm"] == arm)
    return [line["loss_target"] for line in own]


class _Plan:
    """Which rows every arm takes, and which texts are held out."""

    def __init__(
        self, task: PreparedTask, held_out: Sequence[LabelledText], config: ClosedLoopConfig
    ) -> None:
        self._task, self._config = task, config
        self.target = config.target or _most_frequent(task.queries)
        self._tokenizer = load_tokenizer(task.model)
        self._masked = config.training.positions == "completion"
        rows = cut_texts(task.rows, self._tokenizer, max_tokens=config.training.max_tokens)
        self._n_tokens = np.array(self._tokenizer.count([r.text for r in rows]), dtype=np.int64)
        usable = with_loss(rows, self._tokenizer, completion=self._masked)
        source = list(held_out) or [task.rows[n] for n in usable]
        self.held_out = self._hold_out(source, taken_from_pool=not held_out)
        self.texts = tuple(range(len(self.held_out)))
        texts = {own.text for own in self.held_out}
        self._usable = [n for n in usable if task.rows[n].text not in texts]
        self._of_target = [n for n in self._usable if task.rows[n].label == self.target]
        self._asked = self._selection_queries()
        self.budget = self._checked_budget()

    def arms(self, scores: Mapping[str, npt.NDArray[np.float32]]) -> list[_Arm]:
        """Return every training: base, random, oracle, and two a method and seed."""
        seeds = range(self._config.seeds)
        arms = [_Arm("", "base", 0, ())]
        for name, candidates in (("random", self._usable), ("oracle", self._of_target)):
            for seed in seeds:
                rng = np.random.default_rng([self._config.seed, seed])
                order = [int(row) for row in rng.permutation(candidates)]
                arms.append(_Arm("", name, seed, self._within(order)))
        for method, own in scores.items():
            values = own[:, self._asked].astype(np.float64).mean(axis=1)
            ranked = sorted(self._usable, key=lambda row: -values[row])
            for arm, order in (("top", ranked), ("bottom", ranked[::-1])):
                rows = self._within(order)
                arms += [_Arm(method, arm, seed, rows) for seed in seeds]
        return arms

    def bank(self, folder: Path) -> LossBank:
        """Return the bank of these trainings."""
        training = self._config.training
        return LossBank(
            folder, self._task.model, self._task.rows, self.held_out, training, self._task.runtime
        )

    def line(self, arm: _Arm, losses: npt.NDArray[np.float64]) -> dict[str, Any]:
        """Return a line of the table."""
        target = np.array([own.label == self.target for own in self.held_out])
        right = [self._task.rows[row].label == self.target for row in arm.rows]
        return {
            "method": arm.method,
            "arm": arm.arm,
            "seed": arm.seed,
            "n_rows": len(arm.rows),
            "n_tokens": int(self._n_tokens[list(arm.rows)].sum()),
            "purity": float(np.mean(right)) if right else None,
            "loss_target": float(losses[target].mean()),
            "loss_elsewhere": float(losses[~target].mean()) if (~target).any() else None,
        }

    def _within(self, order: Sequence[int]) -> tuple[int, ...]:
        return rows_within(order, self._n_tokens, budget=self.budget)

    def _hold_out(
        self, source: Sequence[LabelledText], *, taken_from_pool: bool
    ) -> list[LabelledText]:
        """Draw as many texts of the target as of the others; of the pool, at most a third."""
        most = self._config.training.max_tokens
        cut = cut_texts(source, self._tokenizer, max_tokens=most)
        usable = with_loss(cut, self._tokenizer, completion=True)
        parts: list[LabelledText] = []
        for is_target in (True, False):
            own = [n for n in usable if (source[n].label == self.target) == is_target]
            n = self._config.held_out
            n = min(n, len(own) // 3) if taken_from_pool else n
            parts += [source[k] for k in balanced(source, own, n, seed=self._config.seed)]
        if not any(own.label == self.target for own in parts):
            raise MeasureRefused(
                f"the closed loop on {self._task.name} has no held-out text of label "
                f"{self.target!r}; name another label (closed_loop.target), or leave it out."
            )
        return parts

    def _selection_queries(self) -> list[int]:
        queries = self._task.queries
        own = [n for n, query in enumerate(queries) if query.label == self.target]
        if not own:
            raise MeasureRefused(
                f"closed_loop.target is {self.target!r}, but queries of {self._task.name} are "
                f"{sorted({query.label for query in queries})}; name one of these."
            )
        most, seed = self._config.selection_queries, self._config.seed
        return balanced(queries, own, most, seed=seed)

    def _checked_budget(self) -> int:
        """Return the tokens an arm gets: no more than the oracle has, or half of the pool."""
        of_target = int(self._n_tokens[self._of_target].sum())
        half = int(self._n_tokens[self._usable].sum()) // 2
        budget = min(self._config.tokens, of_target, half)
        if budget < int(self._n_tokens[self._usable].max(initial=1)):
            raise MeasureRefused(
                f"the closed loop on {self._task.name} has {of_target} tokens of label "
                f"{self.target!r} and {2 * half} in all: too few for an arm. Use more rows, or "
                "leave it out."
            )
        return budget


def _most_frequent(queries: Sequence[LabelledText]) -> str:
    counts = Counter(query.label for query in queries)
    return max(sorted(counts), key=lambda label: counts[label])
