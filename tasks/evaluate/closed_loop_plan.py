"""Which rows every arm of the closed loop takes, and which texts are held out from all of them.

Texts are held out by group: one prompt often has several answers, and a model that trains on one of
them has seen half of the other. A group is a masked prompt, or a whole text where there is none; a
prompt that many rows share is a template, and no group.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.backbone import load_tokenizer
from tasks.evaluate.counterfactual_config import ClosedLoopConfig
from tasks.evaluate.method import LabelledText, PreparedTask
from tasks.evaluate.short_texts import MeasureRefused, balanced, cut_texts, predicted_tokens
from tasks.training_batches import planned_batches

MOST_SKIPPED = 50
"""So many rows that do not fit into what is left of a budget end it."""

TEMPLATE_SHARE = 0.1
"""A prompt that more than this share of the rows have is a template: it tells no texts apart."""


@dataclass(frozen=True)
class Arm:
    """One training of an arm: a way to choose rows, with a seed.

    Attributes:
        method: Who chose its rows; empty where nobody did.
        arm: top, bottom, random, oracle or base.
        seed: Of the order, and of random rows.
        rows: Positions in the task's rows, ascending.
    """

    method: str
    arm: str
    seed: int
    rows: tuple[int, ...]


class LoopPlan:
    """The arms, the texts and the budget of one task.

    Attributes:
        target: The label that is asked about.
        held_out: Texts of the target and others; their losses are read as far as ``max_tokens``.
        budget: Predicted tokens an arm gets.
        bound: What the budget is bound by: ``asked``, ``oracle`` (rows of the target) or ``pool``
            (half of it).
    """

    def __init__(
        self, task: PreparedTask, held_out: Sequence[LabelledText], config: ClosedLoopConfig
    ) -> None:
        """Draw the held-out texts and see how much an arm may have.

        Args:
            task: The whole task.
            held_out: Texts in neither pool nor queries; empty: rows are taken out of the pool.
            config: Target, budget, seeds, training.

        Raises:
            MeasureRefused: The target has no queries, too few rows, or no held-out text.
        """
        self._task, self._config = task, config
        self.target = config.target or _most_frequent(task.queries)
        self._tokenizer = load_tokenizer(task.model)
        self._n_tokens = self._predicted(
            task.rows, completion=config.training.positions == "completion"
        )
        prompts = Counter(_prompt(row) for row in task.rows)
        most = TEMPLATE_SHARE * len(task.rows)
        self._templates = {prompt for prompt, n in prompts.items() if n > max(most, 1)}
        self._row_keys = self._keys(task.rows)
        self._asked = self._selection_queries()
        usable = np.flatnonzero(self._n_tokens).tolist()
        source = list(held_out) or [task.rows[n] for n in usable]
        drawn, self._n_like_queries = self._hold_out(source, taken_from_pool=not held_out)
        self.held_out = [source[n] for n in drawn]
        taken = set().union(*self._keys(self.held_out))
        self._usable = [n for n in usable if taken.isdisjoint(self._row_keys[n])]
        self._n_left_out = len(usable) - len(self._usable)
        self._of_target = [n for n in self._usable if task.rows[n].label == self.target]
        self.budget, self.bound = self._checked_budget()

    def arms(self, scores: Mapping[str, npt.NDArray[np.float32]]) -> list[Arm]:
        """Return every training: base, random, oracle, and two a method and seed."""
        seeds = range(self._config.seeds)
        arms = [Arm("", "base", 0, ())]
        for name, candidates in (("random", self._usable), ("oracle", self._of_target)):
            for seed in seeds:
                rng = np.random.default_rng([self._config.seed, seed])
                order = [int(row) for row in rng.permutation(candidates)]
                arms.append(Arm("", name, seed, self._within(order)))
        for method, own in scores.items():
            values = own[:, self._asked].astype(np.float64).mean(axis=1)
            ranked = sorted(self._usable, key=lambda row: -values[row])
            for arm, order in (("top", ranked), ("bottom", ranked[::-1])):
                rows = self._within(order)
                arms += [Arm(method, arm, seed, rows) for seed in seeds]
        return arms

    def about(self, arm: Arm) -> dict[str, Any]:
        """Return what an arm trains on, as columns of the table."""
        right = [self._task.rows[row].label == self.target for row in arm.rows]
        sizes = self._n_tokens[list(arm.rows)]
        batches = planned_batches(
            len(self._task.rows),
            arm.rows,
            self._config.training,
            seed=arm.seed,
            n_predicted=sizes,
        )
        return {
            "n_rows": len(arm.rows),
            "n_tokens": int(sizes.sum()),
            "n_steps": len(batches),
            "asked_tokens": self._config.tokens,
            "budget": self.budget,
            "bound": self.bound,
            "purity": float(np.mean(right)) if right else None,
        }

    def facts(self) -> dict[str, Any]:
        """Return what a reader should know of the arms, JSON-ready."""
        of_target = sum(own.label == self.target for own in self.held_out)
        return {
            "target": self.target,
            "held_out": {"target": of_target, "elsewhere": len(self.held_out) - of_target},
            "held_out_candidates_like_selection_queries": self._n_like_queries,
            "rows": len(self._usable),
            "rows_of_target": len(self._of_target),
            "rows_left_out_as_held_out": self._n_left_out,
            "selection_queries": len(self._asked),
            "tokens": {"asked": self._config.tokens, "used": self.budget, "bound": self.bound},
        }

    def _within(self, order: Sequence[int]) -> tuple[int, ...]:
        return rows_within(order, self._n_tokens, budget=self.budget)

    def _predicted(
        self, texts: Sequence[LabelledText], *, completion: bool
    ) -> npt.NDArray[np.int64]:
        most = self._config.training.max_tokens
        return predicted_tokens(texts, self._tokenizer, completion=completion, max_tokens=most)

    def _keys(self, texts: Sequence[LabelledText]) -> list[set[tuple[str, str]]]:
        """Return by what each text is known: its prompt, and what a training reads of it."""
        most = self._config.training.max_tokens
        cut = cut_texts(texts, self._tokenizer, max_tokens=most)
        keys = []
        for whole, own in zip(texts, cut, strict=True):
            found = {("text", _normalised(own.text))}
            prompt = _prompt(whole)
            if prompt and prompt not in self._templates:
                found.add(("prompt", prompt))
            keys.append(found)
        return keys

    def _hold_out(
        self, source: Sequence[LabelledText], *, taken_from_pool: bool
    ) -> tuple[list[int], int]:
        """Draw one text a group, of the target and as many of the others; of the pool, a third.

        Returns:
            Positions in ``source``, and how many texts are passed over as a query that chooses has
            their prompt or text.
        """
        keys = self._keys(source)
        asked = set().union(*self._keys([self._task.queries[n] for n in self._asked]))
        able = np.flatnonzero(self._predicted(source, completion=True)).tolist()
        free = [n for n in able if asked.isdisjoint(keys[n])]
        taken: set[tuple[str, str]] = set()
        drawn: list[int] = []
        for is_target in (True, False):
            own = [n for n in free if (source[n].label == self.target) == is_target]
            own = _one_a_group(own, keys, taken)
            n = min(self._config.held_out, len(own) // 3 if taken_from_pool else len(own))
            part = balanced(source, own, n, seed=self._config.seed)
            taken.update(*(keys[k] for k in part))
            drawn += part
        if not any(source[n].label == self.target for n in drawn):
            raise MeasureRefused(
                f"the closed loop on {self._task.name} has no held-out text of label "
                f"{self.target!r}; name another label (closed_loop.target), or leave it out."
            )
        return drawn, len(able) - len(free)

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

    def _checked_budget(self) -> tuple[int, str]:
        """Return the tokens an arm gets: no more than the oracle has, or half of the pool."""
        of_target = int(self._n_tokens[self._of_target].sum())
        half = int(self._n_tokens[self._usable].sum()) // 2
        bounds = [(self._config.tokens, "asked"), (of_target, "oracle"), (half, "pool")]
        budget, bound = min(bounds, key=lambda one: one[0])
        longest = int(self._n_tokens[self._usable].max(initial=1))
        if budget < longest and bound == "asked":
            raise MeasureRefused(
                f"closed_loop.tokens is {budget}, and the longest row of {self._task.name} has "
                f"{longest} predicted tokens; an arm must hold it. Raise closed_loop.tokens to "
                f"{longest} or more, or lower closed_loop.training.max_tokens."
            )
        if budget < longest:
            raise MeasureRefused(
                f"the closed loop on {self._task.name} has {of_target} tokens of label "
                f"{self.target!r} and {2 * half} in all: too few for an arm. Use more rows, or "
                "leave it out."
            )
        return budget, bound


def rows_within(
    order: Sequence[int], n_tokens: npt.NDArray[np.int64], *, budget: int
) -> tuple[int, ...]:
    """Return rows in their order until the budget of tokens is spent; ascending.

    A row that does not fit into what is left is passed over, until too many were.
    """
    taken, left, skipped = [], budget, 0
    for row in order:
        if not left or skipped == MOST_SKIPPED:
            break
        if n_tokens[row] <= left:
            taken.append(int(row))
            left -= int(n_tokens[row])
        else:
            skipped += 1
    return tuple(sorted(taken))


def _one_a_group(
    numbers: Sequence[int],
    keys: Sequence[Collection[tuple[str, str]]],
    taken: Collection[tuple[str, str]],
) -> list[int]:
    """Return the first text of each group; none of a group that is taken."""
    seen, found = set(taken), []
    for number in numbers:
        if seen.isdisjoint(keys[number]):
            found.append(number)
        seen.update(keys[number])
    return found


def _prompt(text: LabelledText) -> str:
    return _normalised(text.text[: text.prompt_chars])


def _normalised(text: str) -> str:
    return " ".join(text.casefold().split())


def _most_frequent(queries: Sequence[LabelledText]) -> str:
    counts = Counter(query.label for query in queries)
    return max(sorted(counts), key=lambda label: counts[label])
