"""What a method costs: seconds by phase, and memory while it runs."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

SAMPLE_SECONDS = 0.05


class Stopwatch:
    """Adds up wall seconds by phase: ``with watch("index"): ...``."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Count the time of a block to a phase."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[phase] = self[phase] + time.perf_counter() - started

    def __getitem__(self, phase: str) -> float:
        """Return a phase's seconds; 0 for one that never began."""
        return self._seconds.get(phase, 0.0)


class MemoryWatch:
    """Looks at the resident memory of the process and its children; ``peak_bytes`` is the most."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.peak_bytes = 0

    def __enter__(self) -> "MemoryWatch":
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()
        self._sample()

    def _look(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        total = self._process.memory_info().rss
        for child in self._process.children(recursive=True):
            with suppress(psutil.Error):  # it may be gone by now
                total += child.memory_info().rss
        self.peak_bytes = max(self.peak_bytes, total)
