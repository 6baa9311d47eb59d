"""What a release cost: time and tokens as the stages reported them, bytes as they lie on disk.

Times differ between two runs that make the same bytes, so they are no part of a release. A run
that knows them leaves them beside the report, in ``cost.json``, and the page can be drawn again.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from storage.errors import NotFoundError
from storage.files import read_json, write_json

COST_FILE = "cost.json"


@dataclass(frozen=True)
class StageCost:
    """What one stage of a run took.

    Attributes:
        stage: ``ingest``, ``index``, ``queries``, ``score`` or ``release``.
        seconds: Wall time; None where the stage does not say.
        n_tokens: Tokens that it worked on; None where it counts none.
        already: Its result was there, so that it had little to do.
    """

    stage: str
    seconds: float | None = None
    n_tokens: int | None = None
    already: bool = False

    @property
    def tokens_per_second(self) -> float | None:
        """Speed; None where it is not known, or means nothing."""
        if not self.seconds or not self.n_tokens:
            return None
        return self.n_tokens / self.seconds


def costs_of(**reports: Any) -> tuple[StageCost, ...]:
    """Return the costs in the reports of stages, given by the stages' names in their order."""
    return tuple(_cost(stage, report) for stage, report in reports.items() if report is not None)


def _cost(stage: str, report: Any) -> StageCost:
    sketched = getattr(report, "n_sketched", None)
    return StageCost(
        stage=stage,
        seconds=getattr(report, "seconds", None),
        n_tokens=getattr(report, "n_tokens", None) if stage == "index" else None,
        already=bool(getattr(report, "already", sketched == 0)),
    )


def record_costs(folder: Path, costs: Sequence[StageCost]) -> None:
    """Leave costs beside the report of a release."""
    write_json(folder / COST_FILE, {"stages": [asdict(cost) for cost in costs]})


def recorded_costs(folder: Path) -> tuple[StageCost, ...]:
    """Return the costs that were left beside a release; empty when none were."""
    try:
        stages = read_json(folder / COST_FILE)["stages"]
    except NotFoundError:
        return ()
    return tuple(StageCost(**stage) for stage in stages)
