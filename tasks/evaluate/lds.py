"""LDS of methods on a task: retrain on subsets of a few short rows, ask who foretold the losses.

The rows and queries are drawn from the task and cut short (`lds_task`); methods score these, not
the whole texts. Beside the methods stand what they are to be read against: knowing the label alone,
the scores of the best method given to other rows (nothing), and what a method could reach at all,
as trainings of equal subsets differ by the order of their rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rise_ops.lds import Lds, NoiseFloor, lds, noise_floor, random_subsets
from tasks.backbone import load_tokenizer
from tasks.evaluate.counterfactual_config import LdsConfig
from tasks.evaluate.loss_bank import LossBank, Training
from tasks.evaluate.method import PreparedTask
from tasks.evaluate.short_texts import MeasureRefused, balanced, cut_texts, same_label, with_loss
from tasks.progress import NO_PROGRESS, Progress


@dataclass(frozen=True, eq=False)
class LdsLosses:
    """What the retrainings gave.

    Attributes:
        subsets: Rows of each subset, bool ``[subsets, rows]``.
        losses: Of each query after it, float64 ``[subsets, queries]``.
        again: Of the first subsets, trained in another order.
        before: Of each query, before any training.
        seconds: Median of a training.
    """

    subsets: npt.NDArray[np.bool_]
    losses: npt.NDArray[np.float64]
    again: npt.NDArray[np.float64]
    before: npt.NDArray[np.float64]
    seconds: float

    @property
    def floor(self) -> NoiseFloor:
        """How much of the differences is noise."""
        return noise_floor(self.losses, self.losses[: len(self.again)], self.again)


def lds_task(task: PreparedTask, config: LdsConfig) -> PreparedTask:
    """Return the few short rows and queries of a task that trainings are repeated on.

    Rows that are at least as long as the cut are preferred, so that rows are of one length where
    the task has enough of them; prompts of queries carry no loss.

    Raises:
        MeasureRefused: Fewer than 4 rows, or no query, have a predicted token before the cut.
    """
    tokenizer = load_tokenizer(task.model)
    most = config.training.max_tokens
    rows = cut_texts(task.rows, tokenizer, max_tokens=most)
    whole = {n for n, own in enumerate(tokenizer.count([r.text for r in rows])) if own >= most}
    usable = with_loss(rows, tokenizer, completion=config.training.positions == "completion")
    n_taken = config.rows + (config.queries if config.queries_from == "rows" else 0)
    taken = balanced(rows, usable, n_taken, seed=config.seed, preferred=whole)
    if config.queries_from == "rows":
        answered = set(with_loss(rows, tokenizer, completion=True))
        candidates = [n for n in taken if n in answered]
        asked = balanced(rows, candidates, config.queries, seed=config.seed + 1)
        kept = [n for n in taken if n not in set(asked)]
        queries = [rows[n] for n in asked]
        positives = same_label([rows[n] for n in kept], queries)
    else:
        kept = taken
        cut = cut_texts(task.queries, tokenizer, max_tokens=most)
        askable = with_loss(cut, tokenizer, completion=True)
        asked = balanced(cut, askable, config.queries, seed=config.seed)
        queries = [cut[n] for n in asked]
        positives = task.positives[np.ix_(kept, asked)]
    if len(kept) < 4 or not queries:
        raise MeasureRefused(
            f"LDS on {task.name} needs 4 rows and a query with a predicted token among their first "
            f"{most}, found {len(kept)} and {len(queries)}. Raise lds.training.max_tokens, or "
            "leave LDS out for this task."
        )
    return replace(
        task,
        rows=[rows[n] for n in kept],
        queries=queries,
        positives=positives,
        work=task.work / "lds",
        seed=config.seed,
    )


def lds_losses(
    task: PreparedTask, config: LdsConfig, folder: Path, *, progress: Progress = NO_PROGRESS
) -> LdsLosses:
    """Retrain on the subsets, or read what was kept.

    Args:
        task: As `lds_task` gives it.
        config: Of the subsets and of the training.
        folder: Where banks are kept.
        progress: Receives one step a training.
    """
    bank = LossBank(folder, task.model, task.rows, task.queries, config.training, task.runtime)
    everything = tuple(range(len(task.queries)))
    subsets = random_subsets(len(task.rows), config.subsets, share=config.share, seed=config.seed)
    chosen = [tuple(int(row) for row in np.flatnonzero(own)) for own in subsets]
    first = [Training(rows, 0, everything) for rows in chosen]
    again = [Training(rows, 1, everything) for rows in chosen[: config.repeats]]
    base = Training((), 0, everything)
    # repeats early: an unfinished bank can tell its noise already
    bank.fill([base, *first[: config.repeats], *again, *first], progress=progress)
    return LdsLosses(
        subsets=subsets,
        losses=np.array([bank.losses(own) for own in first]),
        again=np.array([bank.losses(own) for own in again]),
        before=bank.losses(base),
        seconds=bank.seconds(first),
    )


def lds_lines(
    task: PreparedTask,
    found: LdsLosses,
    scores: Mapping[str, npt.NDArray[np.float32]],
) -> list[dict[str, Any]]:
    """Return the LDS of every method and of the controls, without task and paradigm.

    Args:
        task: As `lds_task` gives it.
        found: Of its retrainings.
        scores: Of its rows and queries, by method.
    """
    measured = {name: _lds(task, found, own) for name, own in scores.items()}
    lines = [_line("method", name, own, found) for name, own in measured.items()]
    if task.positives.any() and not task.positives.all():
        known = _lds(task, found, task.positives.astype(np.float32))
        lines.append(_line("same_domain", "same label", known, found))
    if measured:
        best = max(measured, key=lambda name: measured[name].value)
        lines.append(_shuffled_line(best, measured[best], found))
    return [*lines, *_floor_lines(found)]


def lds_facts(task: PreparedTask, found: LdsLosses) -> dict[str, Any]:
    """Return what a reader should know of the retrainings, JSON-ready."""
    floor = found.floor
    return {
        "rows": len(task.rows),
        "queries": len(task.queries),
        "subsets": len(found.subsets),
        "rows_a_subset": int(found.subsets[0].sum()),
        "seconds_a_training": found.seconds,
        "loss_before": float(found.before.mean()),
        "loss_after": float(found.losses.mean()),
        "repeated": floor.n_repeated,
        "deviation_between_seeds": floor.deviation_between_seeds,
        "deviation_between_subsets": floor.deviation_between_subsets,
    }


def _lds(task: PreparedTask, found: LdsLosses, scores: npt.NDArray[np.float32]) -> Lds:
    rng = np.random.default_rng(task.seed)
    return lds(scores.astype(np.float64), found.subsets, found.losses, rng=rng)


def _line(kind: str, name: str, own: Lds, found: LdsLosses) -> dict[str, Any]:
    return {
        "method": name,
        "kind": kind,
        "value": own.value,
        "low": own.interval.low if own.interval else None,
        "high": own.interval.high if own.interval else None,
        "deviation": own.deviation_over_subsets,
        "n_queries": found.losses.shape[1],
        "n_subsets": len(found.losses),
    }


def _shuffled_line(name: str, own: Lds, found: LdsLosses) -> dict[str, Any]:
    line = _line("shuffled", f"shuffled scores of {name}", own, found)
    changes = {"value": own.shuffled, "low": None, "high": None}
    return {**line, **changes, "deviation": own.shuffled_deviation}


def _floor_lines(found: LdsLosses) -> list[dict[str, Any]]:
    """Return what is to be reached: with everything but the noise foretold, and by a second run."""
    floor = found.floor
    values: Sequence[tuple[str, float]] = (
        ("all but the noise", floor.best_correlation),
        ("the same subset trained again", floor.seed_to_seed),
    )
    return [
        {
            "method": name,
            "kind": "noise_floor",
            "value": value,
            "low": None,
            "high": None,
            "deviation": None,
            "n_queries": found.losses.shape[1],
            "n_subsets": floor.n_repeated,
        }
        for name, value in values
    ]
