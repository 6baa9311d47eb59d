"""Draws a stage's progress: a bar on the terminal, and an artifact in a Prefect run."""

import sys
import time
from uuid import UUID

ARTIFACT_SECONDS = 2.0
"""Least time between two updates of the artifact: each is a request to the server."""


class TerminalProgress:
    """A bar on standard error, drawn only where that is a terminal."""

    def __init__(self, description: str) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self._description = description
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(description, total=None, unit="")

    def __enter__(self) -> "TerminalProgress":
        self._bar.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._bar.stop()

    def start(self, *, total: int, unit: str) -> None:
        """Show ``total`` units ahead."""
        self._bar.update(self._task, total=total, unit=unit)

    def advance(self, n_units: int) -> None:
        """Move the bar."""
        self._bar.advance(self._task, n_units)


class FlowProgress(TerminalProgress):
    """The bar, and a progress artifact that the Prefect UI shows while the flow runs."""

    def __init__(self, description: str) -> None:
        super().__init__(description)
        self._artifact: UUID | None = None
        self._total = 0
        self._done = 0
        self._written = 0.0

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        if error[0] is None:  # else a server that is gone would hide the true cause
            self._update_artifact()

    def start(self, *, total: int, unit: str) -> None:
        """Show ``total`` units ahead, on both."""
        from prefect.artifacts import create_progress_artifact

        super().start(total=total, unit=unit)
        self._total = total
        self._artifact = _as_uuid(
            create_progress_artifact(progress=0.0, description=f"{self._description} ({unit})")
        )
        self._written = time.monotonic()

    def advance(self, n_units: int) -> None:
        """Move both; the artifact at most every `ARTIFACT_SECONDS`."""
        super().advance(n_units)
        self._done += n_units
        if time.monotonic() - self._written >= ARTIFACT_SECONDS:
            self._update_artifact()

    def _update_artifact(self) -> None:
        from prefect.artifacts import update_progress_artifact

        if self._artifact is None or self._total == 0:
            return
        share = min(100.0, 100.0 * self._done / self._total)
        update_progress_artifact(artifact_id=self._artifact, progress=share)
        self._written = time.monotonic()


def _as_uuid(value: object) -> UUID | None:
    return value if isinstance(value, UUID) else None
