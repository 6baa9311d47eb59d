"""How much memory did a piece of work hold at most? Looked at every few hundredths of a second."""

import threading
from contextlib import suppress
from types import TracebackType

import psutil

SECONDS_BETWEEN = 0.05


class PeakMemory:
    """Within a ``with`` block, watches the resident memory of this process and of its children.

    Attributes:
        peak_bytes: The most that was seen.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self.peak_bytes = 0

    def __enter__(self) -> "PeakMemory":
        self._watcher.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._watcher.join()
        self._look()

    def _watch(self) -> None:
        while not self._over.wait(SECONDS_BETWEEN):
            self._look()

    def _look(self) -> None:
        total = self._process.memory_info().rss
        for child in self._process.children(recursive=True):
            with suppress(psutil.Error):  # it may be gone by now
                total += child.memory_info().rss
        self.peak_bytes = max(self.peak_bytes, total)
