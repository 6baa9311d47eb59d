"""What runs inside a worker process: one piece of work at a time, on a device of its own.

A process makes itself ready once: it holds the versions of its libraries against those of whoever
sends the work, claims a GPU and sets its threads. What it loads it keeps for the next piece.
"""

import functools
import importlib.metadata
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from storage.errors import NotFoundError
from tasks.devices import claim_device, claimed_device

SAME_VERSIONS = ("rise-pipeline", "torch", "transformers", "tokenizers")
"""Libraries that decide numbers: workers must have the versions of the process that sends work."""

TELL_SECONDS = 0.5
"""Least time between two messages about the progress of one piece of work."""


@dataclass(frozen=True)
class Terms:
    """What a worker is told of the work beside the work itself.

    Attributes:
        topic: Where it tells how it moves, among the events of the scheduler.
        device: As in the settings: ``auto`` and ``cuda`` let it claim a GPU.
        threads: Threads of its products on a CPU; None leaves them as they are.
        versions: Of `SAME_VERSIONS`, where the work comes from.
    """

    topic: str
    device: str
    threads: int | None
    versions: dict[str, str]


@dataclass(frozen=True)
class Done:
    """What a piece of work gave, and where it was done."""

    result: Any
    worker: str
    device: str


_ONE_AT_A_TIME = threading.Lock()
"""A worker with several threads takes one piece at a time all the same: there is one model."""


def work(function: Callable[..., Any], shared: Any, item: Any, terms: Terms) -> Done:
    """Return ``function(shared, item, progress=...)``, done in this process.

    Raises:
        ValueError: The process has other versions of the libraries.
        NotFoundError: The process does not see what it is to work on; names the worker.
    """
    with _ONE_AT_A_TIME:
        _make_ready(terms)
        progress = ToldProgress(terms.topic, item)
        progress.begin()
        try:
            result = function(shared, item, progress=progress)
        except NotFoundError as error:
            raise NotFoundError(
                f"worker {worker_name()} does not see what this process sees: {error} Workers "
                "must have the store, and the model, at the same paths: mount the same folders."
            ) from error
        progress.tell()
        return Done(result, worker_name(), claimed_device() or "")


def versions() -> dict[str, str]:
    """Return the versions of `SAME_VERSIONS` that are installed here, without local build tags."""
    found = {}
    for name in SAME_VERSIONS:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name).partition("+")[0]
    return found


def worker_name() -> str:
    """Return host and process, for people."""
    return f"{socket.gethostname()}:{os.getpid()}"


class ToldProgress:
    """Progress of one piece of work, told to whoever sent it."""

    def __init__(self, topic: str, item: Any) -> None:
        self._topic, self._item = topic, item
        self._told, self._done = time.monotonic(), 0

    def start(self, *, total: int, unit: str) -> None:
        """Ignore: whoever sent the work knows how much it is."""

    def advance(self, n_units: int) -> None:
        """Count, and tell from time to time."""
        self._done += n_units
        if time.monotonic() - self._told >= TELL_SECONDS:
            self.tell()

    def begin(self) -> None:
        """Tell that the work begins."""
        self._send({"item": self._item, "begins": True})

    def tell(self) -> None:
        """Tell how much is done."""
        self._told = time.monotonic()
        self._send({"item": self._item, "done": self._done})

    def _send(self, message: dict[str, Any]) -> None:
        from distributed import get_worker

        get_worker().log_event(self._topic, message)


@functools.lru_cache(maxsize=4)
def _ready(device: str, threads: int | None) -> None:
    claim_device(device)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def _make_ready(terms: Terms) -> None:
    here = versions()
    others = [
        f"{name} {here.get(name, 'is missing')} instead of {version}"
        for name, version in terms.versions.items()
        if here.get(name) != version
    ]
    if others:
        raise ValueError(
            f"worker {worker_name()} has {', '.join(others)}: its signatures could differ from "
            "those of others. Install the same versions (constraints.txt) on every worker."
        )
    _ready(terms.device, terms.threads)
