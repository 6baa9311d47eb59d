"""Does one method know what another does not? The sum of several methods' scores.

Of each query, a part's scores are taken as deviations from their mean over the rows, in standard
deviations, times the part's weight: scales of methods differ, and this makes them one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, ConfigDict, Field

from storage.files import waiting_lock
from tasks.evaluate.method import Cost, MethodRefused, MethodScores, PreparedTask
from tasks.evaluate.settings import MethodChoice, named_method
from tasks.progress import NO_PROGRESS, Progress
from tasks.stage_config import StageConfig

if TYPE_CHECKING:
    from tasks.evaluate.registry import ChosenMethod

SUM_VERSION = 1
"""Raised whenever the same settings would give other numbers."""


class SumPart(MethodChoice):
    """A method of a sum."""

    model_config = ConfigDict(title="Part of a sum")

    weight: float = Field(
        1.0, gt=0, allow_inf_nan=False, title="Weight", description="Of its standardised scores."
    )


class SumConfig(StageConfig):
    """Which methods are added up."""

    model_config = ConfigDict(title="Sum of methods")

    of: Annotated[
        tuple[Annotated[SumPart, BeforeValidator(named_method)], ...], Field(strict=False)
    ] = Field(min_length=2, title="Methods", description="Names, or names with weight.")


@dataclass(frozen=True)
class SumMethod:
    """A weighted sum of standardised scores.

    What a part keeps of its rows, an index or states, serves the same method run by itself.

    Attributes:
        parts: Each method with its weight.
    """

    parts: Sequence[tuple["ChosenMethod", float]]

    @property
    def name(self) -> str:
        """See `Method`."""
        return " + ".join(
            part.name if weight == 1 else f"{weight:g} {part.name}" for part, weight in self.parts
        )

    @property
    def settings(self) -> dict[str, object]:
        """See `Method`."""
        of = [
            {"method": part.key, "settings": dict(part.settings), "weight": weight}
            for part, weight in self.parts
        ]
        return {"version": SUM_VERSION, "of": of}

    def scores(self, task: PreparedTask, *, progress: Progress = NO_PROGRESS) -> MethodScores:
        """See `Method`.

        Raises:
            MethodRefused: A part refused; says which.
        """
        found = [_part_scores(part, task, progress) for part, _ in self.parts]
        weights = [weight for _, weight in self.parts]
        total = sum(
            weight * standardised(own.scores) for weight, own in zip(weights, found, strict=True)
        )
        named = zip(self.parts, found, strict=True)
        notes = [f"{part.name}: {note}" for (part, _), own in named for note in own.notes]
        costs = [own.cost for own in found]
        return MethodScores(np.asarray(total, dtype=np.float32), _whole(costs), tuple(notes))


def standardised(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return each query's scores less their mean, over their standard deviation.

    Args:
        scores: float32 ``[rows, queries]``.

    Returns:
        float64 ``[rows, queries]``; 0 where all rows of a query have one score.
    """
    wide = scores.astype(np.float64)
    less = wide - wide.mean(axis=0)
    spread = np.where(np.ptp(wide, axis=0) > 0, wide.std(axis=0), np.inf)
    return np.asarray(less / spread)


def _part_scores(part: "ChosenMethod", task: PreparedTask, progress: Progress) -> MethodScores:
    """Return a part's scores; a part that runs by itself elsewhere is waited for."""
    work = task.work.with_name(part.folder)
    pool = None if task.pool_work is None else task.pool_work.with_name(part.folder)
    for folder in (work, pool):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    placed = replace(task, work=work, pool_work=pool)
    with waiting_lock(placed.lock):
        try:
            return part.scores(placed, progress=progress)
        except MethodRefused as error:
            raise MethodRefused(f"{part.name}, a part of the sum, refused: {error}") from error


def _whole(costs: Sequence[Cost]) -> Cost:
    """Return the costs of the parts together; tokens are those of the part that reads most."""
    loads = [one.load_seconds for one in costs if one.load_seconds is not None]
    return Cost(
        index_seconds=sum(one.index_seconds for one in costs),
        query_seconds=sum(one.query_seconds for one in costs),
        n_tokens=max(one.n_tokens for one in costs),
        bytes_per_row=sum(one.bytes_per_row for one in costs),
        load_seconds=sum(loads) if loads else None,
        reused=any(one.reused for one in costs),
    )
