"""Work that gives one line of numbers a text, kept block by block, so that a killed run goes on.

A block is one file, there whole or not at all, with the seconds that it took. The folder is named
by everything that the numbers follow from; other settings are another folder.
"""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from storage.files import remove_partials, write_bytes
from tasks.progress import NO_PROGRESS, Progress

BLOCK_LINES = 32
"""Lines a block: what a killed run does again at most."""


@dataclass(frozen=True, eq=False)
class KeptLines:
    """Finished work.

    Attributes:
        values: One line a text, in the order of texts.
        seconds: What making them took, over all runs.
        reused: Some were there before.
    """

    values: np.ndarray
    seconds: float
    reused: bool = False


def kept_lines(
    folder: Path,
    n_lines: int,
    make: Callable[[range], np.ndarray],
    progress: Progress = NO_PROGRESS,
    *,
    block: int = BLOCK_LINES,
) -> KeptLines:
    """Make the lines that are not there yet, and return all of them.

    Args:
        folder: Where they are kept; named by what the numbers follow from.
        n_lines: How many there are, 1 or more.
        make: Makes the lines of a range, [lines, numbers].
        progress: Receives one unit a line.
        block: Lines a block.

    Raises:
        ValueError: There are no lines.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_partials(folder)
    progress.start(total=n_lines, unit="texts")
    values: np.ndarray | None = None
    seconds, reused = 0.0, False
    for start in range(0, n_lines, block):
        places = range(start, min(start + block, n_lines))
        file = folder / f"lines-{start:08d}.npz"
        if file.is_file():
            reused = True
        else:
            _write(file, make, places)
        with np.load(file) as kept:
            lines, took = kept["lines"], float(kept["seconds"])
        if values is None:
            values = np.empty((n_lines, lines.shape[1]), dtype=lines.dtype)
        values[places.start : places.stop] = lines
        seconds += took
        progress.advance(len(places))
    if values is None:
        raise ValueError(f"there is nothing to do: expected 1 text or more, got {n_lines}.")
    return KeptLines(values, seconds, reused)


def _write(file: Path, make: Callable[[range], np.ndarray], places: range) -> None:
    started = time.monotonic()
    lines = make(places)
    buffer = io.BytesIO()
    np.savez(buffer, lines=lines, seconds=time.monotonic() - started)
    write_bytes(file, buffer.getvalue())
