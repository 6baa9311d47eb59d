"""What every flow run keeps to: how long it waits for others, how long it may take, how it tells.

A flow's body is a ``with run_rules(...)`` block; in a flow that another one calls, the outer block
counts. Plain functions of the stages, called without a flow, wait for nobody.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING
from uuid import UUID

from tasks.config import RuntimeConfig
from tasks.patience import Patience, Waiting, with_patience

if TYPE_CHECKING:
    from logging import Logger, LoggerAdapter

LOG_SECONDS = 60.0
ARTIFACT_SECONDS = 5.0
"""Least time between two lines, and two updates of the artifact, while a run waits."""

_inside: ContextVar[bool] = ContextVar("inside", default=False)


class OutOfTimeError(TimeoutError):
    """A run took longer than its settings allow; what was finished is kept."""


@contextmanager
def run_rules(runtime: RuntimeConfig) -> Iterator[None]:
    """Hold the body of a flow to its settings.

    Raises:
        OutOfTimeError: ``runtime.timeout_seconds`` are over; within a batch, as a cancellation.
    """
    if _inside.get():
        yield
        return
    before = _inside.set(True)
    try:
        with with_patience(_patience(runtime)), _time_limit(runtime.timeout_seconds):
            yield
    finally:
        _inside.reset(before)


def _patience(runtime: RuntimeConfig) -> Patience:
    from prefect.logging import get_run_logger
    from prefect.runtime import flow_run

    logger = get_run_logger()
    told = _WaitingTold(logger)
    return Patience(runtime.wait_seconds, told, logger.warning, f"{flow_run.name} {flow_run.id}")


class _WaitingTold:
    """Tells in log, artifact and terminal for whom a run waits."""

    def __init__(self, logger: "Logger | LoggerAdapter[Logger]") -> None:
        self._logger = logger
        self._for: tuple[str, str] | None = None
        self._artifact: UUID | None = None
        self._logged = self._updated = 0.0

    def __call__(self, waiting: Waiting) -> None:
        now = time.monotonic()
        whose = (waiting.what, waiting.holder.token)
        if whose != self._for:
            self._for, self._artifact = whose, None
            self._logged = self._updated = float("-inf")
        if now - self._logged >= LOG_SECONDS:
            self._logged = now
            self._say(waiting)
        if now - self._updated >= ARTIFACT_SECONDS:
            self._updated = now
            self._draw(waiting)

    def _say(self, waiting: Waiting) -> None:
        left = max(0.0, waiting.wait_seconds - waiting.waited_seconds)
        text = f"waiting, up to {left:.0f} s more: {waiting}"
        self._logger.warning(text)
        if sys.stderr.isatty():
            sys.stderr.write(f"rise: {text}\n")

    def _draw(self, waiting: Waiting) -> None:
        from prefect.artifacts import create_progress_artifact, update_progress_artifact

        share = min(100.0, 100.0 * waiting.waited_seconds / max(waiting.wait_seconds, 1e-9))
        if self._artifact is not None:
            update_progress_artifact(artifact_id=self._artifact, progress=share)
            return
        description = f"patience used up, {waiting.wait_seconds:.0f} s in all: {waiting}"
        made = create_progress_artifact(progress=share, description=description)
        self._artifact = made if isinstance(made, UUID) else None


def _time_limit(seconds: float | None) -> AbstractContextManager[None]:
    return nullcontext() if seconds is None else _limited(seconds)


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    from prefect.utilities.timeout import timeout

    try:
        with timeout(seconds, timeout_exc_type=_ScopeEndedError):
            yield
    except _ScopeEndedError as error:
        raise OutOfTimeError(
            f"the run took longer than {seconds:g} s (runtime.timeout_seconds) and was stopped. "
            "What was finished is kept: run it again to go on there, or raise the limit."
        ) from error


class _ScopeEndedError(TimeoutError):
    """Of this scope, not of anything inside it."""
