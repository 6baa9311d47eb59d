"""How is time taken when others use the machine too?

Ways are timed in turns, so that a busy moment slows all of them, and medians are taken. On a GPU
two events mark a way's begin and end, and the host waits once, after the last round.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Literal

import torch

Clock = Literal["wall", "cpu"]


def in_turns(
    ways: Mapping[str, Callable[[], object]], *, repeats: int, device: str, clock: Clock = "wall"
) -> dict[str, list[float]]:
    """Return the seconds of each way, round by round. Run each way once before: to warm up.

    Args:
        ways: What is timed, by name.
        repeats: Rounds that count.
        device: Where the ways compute.
        clock: ``cpu`` counts processor time, fairer on a machine that others use; CPU only.
    """
    if device.startswith("cuda"):
        return _by_events(ways, repeats=repeats)
    now = time.process_time if clock == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = now()
            way()
            seconds[name].append(now() - start)
    return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    """Return each way's median."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def _by_events(ways: Mapping[str, Callable[[], object]], *, repeats: int) -> dict[str, list[float]]:
    marks: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            way()
            end.record()
            marks[name].append((begin, end))
    torch.cuda.synchronize()
    return {
        name: [begin.elapsed_time(end) / 1e3 for begin, end in pairs]
        for name, pairs in marks.items()
    }
