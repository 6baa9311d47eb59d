"""How long work reports that it moves: a stage counts, whoever started it draws.

The stages know neither terminals nor Prefect; `flows.progress` turns these calls into a progress
bar and a progress artifact.
"""

from typing import Protocol


class Progress(Protocol):
    """Receives the size of a piece of work and each step forward."""

    def start(self, *, total: int, unit: str) -> None:
        """Begin: ``total`` units of work (rows, blocks) lie ahead."""

    def advance(self, n_units: int) -> None:
        """``n_units`` more are done."""


class NoProgress:
    """Swallows progress: for tests and for calls that take moments."""

    def start(self, *, total: int, unit: str) -> None:
        """Ignore."""

    def advance(self, n_units: int) -> None:
        """Ignore."""


NO_PROGRESS = NoProgress()
