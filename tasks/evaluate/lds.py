"""LDS of methods on a task: retrain on subsets of a few short rows, ask who foretold the losses.

The rows and queries are drawn from the task and cut short (`lds_task`); methods score these, not
the whole texts. Beside the methods stand what they are to be read against: controls such as random
scores, knowing the label alone, the scores of the best method given to other rows (nothing), the
ceiling of what a method could reach at all, as trainings of equal subsets differ by the order of
their rows, and how far two such trainings agree.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rise_ops.bootstrap import Interval
from rise_ops.lds import Lds, Noise, holm, lds, noise_of, random_subsets
from tasks.backbone import load_tokenizer
from tasks.evaluate.counterfactual_config import LdsConfig
from tasks.evaluate.loss_bank import LossBank, Training
from tasks.evaluate.method import PreparedTask
from tasks.evaluate.short_texts import MeasureRefused, balanced, cut_texts, same_label, with_loss
from tasks.progress import NO_PROGRESS, Progress

SCORED_KINDS = ("method", "control")
"""Kinds of lines whose scores a method of the run gave."""
LEAST_PREDICTED = 5
"""Predicted tokens of a query: the loss of fewer is that of a word, and jumps with it."""


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

    def noise(self, seed: int) -> Noise:
        """Return how much of the differences is noise; the seed is of its resamples."""
        return noise_of(self.losses, self.losses[: len(self.again)], self.again, seed=seed)


def lds_task(task: PreparedTask, config: LdsConfig) -> PreparedTask:
    """Return the few short rows and queries of a task that trainings are repeated on.

    Rows that are at least as long as the cut are preferred, so that rows are of one length where
    the task has enough of them; prompts of queries carry no loss, and a query with fewer than
    `LEAST_PREDICTED` predicted tokens is not drawn.

    Raises:
        MeasureRefused: Fewer than 4 rows have a predicted token before the cut, or no query enough.
    """
    tokenizer = load_tokenizer(task.model)
    most = config.training.max_tokens
    rows = cut_texts(task.rows, tokenizer, max_tokens=most)
    whole = {n for n, own in enumerate(tokenizer.count([r.text for r in rows])) if own >= most}
    usable = with_loss(rows, tokenizer, completion=config.training.positions == "completion")
    n_taken = config.rows + (config.queries if config.queries_from == "rows" else 0)
    taken = balanced(rows, usable, n_taken, seed=config.seed, preferred=whole)
    if config.queries_from == "rows":
        answered = set(with_loss(rows, tokenizer, completion=True, least=LEAST_PREDICTED))
        candidates = [n for n in taken if n in answered]
        asked = balanced(rows, candidates, config.queries, seed=config.seed + 1)
        kept = [n for n in taken if n not in set(asked)]
        queries = [rows[n] for n in asked]
        positives = same_label([rows[n] for n in kept], queries)
    else:
        kept = taken
        cut = cut_texts(task.queries, tokenizer, max_tokens=most)
        askable = with_loss(cut, tokenizer, completion=True, least=LEAST_PREDICTED)
        asked = balanced(cut, askable, config.queries, seed=config.seed)
        queries = [cut[n] for n in asked]
        positives = task.positives[np.ix_(kept, asked)]
    if len(kept) < 4 or not queries:
        raise MeasureRefused(
            f"LDS on {task.name} needs 4 rows with a predicted token among their first {most}, and "
            f"a query with {LEAST_PREDICTED}, found {len(kept)} and {len(queries)}. Raise "
            "lds.training.max_tokens, or leave LDS out for this task."
        )
    return replace(
        task,
        rows=[rows[n] for n in kept],
        queries=queries,
        positives=positives,
        work=task.work / "lds",
        seed=config.seed,
    )


def n_too_short(task: PreparedTask, config: LdsConfig) -> int:
    """Return how many of a task's queries `lds_task` draws from have too few predicted tokens."""
    tokenizer = load_tokenizer(task.model)
    asked = task.rows if config.queries_from == "rows" else task.queries
    cut = cut_texts(asked, tokenizer, max_tokens=config.training.max_tokens)
    return len(cut) - len(with_loss(cut, tokenizer, completion=True, least=LEAST_PREDICTED))


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
    noise: Noise,
    scores: Mapping[str, npt.NDArray[np.float32]],
    controls: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Return the LDS of every method and of the controls, without task and paradigm.

    Args:
        task: As `lds_task` gives it.
        found: Of its retrainings.
        noise: Of these.
        scores: Of its rows and queries, by method.
        controls: Those that are none: they cannot be the best, and p-values are not corrected for
            them.
    """
    everything = _lds(task, found, scores)
    measured = {name: own for name, own in everything.items() if name not in controls}
    domain = None
    if task.positives.any() and not task.positives.all():
        # the same seed: the same resamples as those of the methods
        domain = _lds(task, found, {"same label": task.positives})["same label"]
    best = max(measured, key=lambda name: measured[name].value, default="")
    lines = _method_lines(measured, best, domain, found)
    lines += [
        _line("control", name, own, found) | {"p": own.p} | _to_label(own, domain)
        for name, own in everything.items()
        if name in controls
    ]
    if domain is not None:
        lines.append(_line("same_domain", "same label", domain, found) | {"p": domain.p})
    if measured:
        lines.append(_shuffled_line(best, measured[best], found))
    return [*lines, *_noise_lines(found, noise)]


def lds_facts(
    task: PreparedTask, found: LdsLosses, noise: Noise, n_left_out: int
) -> dict[str, Any]:
    """Return what a reader should know of the retrainings, JSON-ready.

    Args:
        task: As `lds_task` gives it.
        found: Of its retrainings.
        noise: Of these.
        n_left_out: Queries that were too short to be drawn.
    """
    return {
        "rows": len(task.rows),
        "queries": len(task.queries),
        "queries_too_short": n_left_out,
        "subsets": len(found.subsets),
        "rows_a_subset": int(found.subsets[0].sum()),
        "seconds_a_training": found.seconds,
        "loss_before": float(found.before.mean()),
        "loss_after": float(found.losses.mean()),
        "repeated": noise.n_repeated,
        "deviation_between_seeds": noise.deviation_between_seeds,
        "deviation_between_subsets": noise.deviation_between_subsets,
    }


def _lds(
    task: PreparedTask, found: LdsLosses, scores: Mapping[str, npt.NDArray[Any]]
) -> dict[str, Lds]:
    wide = {name: own.astype(np.float64) for name, own in scores.items()}
    return lds(wide, found.subsets, found.losses, seed=task.seed)


def _method_lines(
    measured: Mapping[str, Lds], best: str, domain: Lds | None, found: LdsLosses
) -> list[dict[str, Any]]:
    """Return a line a method: its LDS, and how it stands to the best and to the label alone."""
    corrected = holm([own.p for own in measured.values()])
    lines = []
    for (name, own), p_holm in zip(measured.items(), corrected, strict=True):
        line = _line("method", name, own, found) | {"p": own.p, "p_holm": p_holm}
        line |= _ends("to_best", None if name == best else own.less(measured[best]))
        lines.append(line | _to_label(own, domain))
    return lines


def _to_label(own: Lds, domain: Lds | None) -> dict[str, Any]:
    return _ends("to_label", None if domain is None else own.less(domain))


def _ends(name: str, interval: Interval | None) -> dict[str, Any]:
    low, high = (interval.low, interval.high) if interval else (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def _line(kind: str, name: str, own: Lds, found: LdsLosses) -> dict[str, Any]:
    return _empty_line(found) | {
        "method": name,
        "kind": kind,
        "value": own.value,
        "low": own.interval.low,
        "high": own.interval.high,
        "deviation": own.deviation_over_subsets,
        "n_constant": own.n_constant,
    }


def _empty_line(found: LdsLosses) -> dict[str, Any]:
    empty = ("low", "high", "deviation", "p", "p_holm", "n_constant")
    return {
        **dict.fromkeys(empty),
        **_ends("to_best", None),
        **_ends("to_label", None),
        "n_queries": found.losses.shape[1],
        "n_subsets": len(found.losses),
    }


def _shuffled_line(name: str, own: Lds, found: LdsLosses) -> dict[str, Any]:
    return _empty_line(found) | {
        "method": f"shuffled scores of {name}",
        "kind": "shuffled",
        "value": own.shuffled,
        "deviation": own.shuffled_deviation,
    }


def _noise_lines(found: LdsLosses, noise: Noise) -> list[dict[str, Any]]:
    """Return what is to be reached with everything but the noise foretold, and by a second run."""
    empty = _empty_line(found) | {"n_subsets": noise.n_repeated}
    ceiling = {"method": "all but the noise", "kind": "ceiling", "value": noise.ceiling}
    ends = {"low": noise.ceiling_interval.low, "high": noise.ceiling_interval.high}
    again = {"method": "the same subset trained again", "kind": "reliability"}
    return [empty | ceiling | ends, empty | again | {"value": noise.reliability}]
