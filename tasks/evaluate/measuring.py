"""What a method costs: seconds by phase, and memory while it runs."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
import torch

from tasks.backbone import Backbone, backbone_loads, load_backbone
from tasks.evaluate.method import PreparedTask

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


def timed_backbone(task: PreparedTask) -> tuple[Backbone, float | None]:
    """Return the task's model, and the seconds of loading it; None where it was in memory."""
    before, started = backbone_loads(), time.perf_counter()
    backbone = load_backbone(task.model, device=task.runtime.device)
    seconds = time.perf_counter() - started
    return backbone, seconds if backbone_loads() > before else None


class MemoryWatch:
    """Looks at the resident memory of the process and its children, and at that of a CUDA device.

    Attributes:
        start_bytes: Resident when it began.
        peak_bytes: The most since then.
        device_peak_bytes: The most that tensors took on the device; None where it is no CUDA
            device.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._device = device if device.startswith("cuda") else None
        self._process = psutil.Process()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.start_bytes = self.peak_bytes = 0
        self.device_peak_bytes: int | None = None

    def __enter__(self) -> "MemoryWatch":
        if self._device:
            torch.cuda.init()  # type: ignore[no-untyped-call]  # the count cannot be reset before
            torch.cuda.reset_peak_memory_stats(self._device)
        self._sample()
        self.start_bytes = self.peak_bytes
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()
        self._sample()
        if self._device:
            self.device_peak_bytes = torch.cuda.max_memory_allocated(self._device)

    def _look(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        total = self._process.memory_info().rss
        for child in self._process.children(recursive=True):
            with suppress(psutil.Error):  # it may be gone by now
                total += child.memory_info().rss
        self.peak_bytes = max(self.peak_bytes, total)
