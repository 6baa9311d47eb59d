"""What worker processes do in tests: functions of a module, so that they can be sent by name."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from storage.errors import MismatchError, NotFoundError
from tasks.progress import Progress

FOLDER = "RISE_TEST_FOLDER"
"""Variable with a folder: each file ``<item>.<number>`` in it is one death of that item."""


def die_of(item: int, folder: str, progress: Progress) -> None:
    """Kill this process in the middle of an item, if it is to die of it."""
    for mark in sorted(Path(folder).glob(f"{item}.*")):
        progress.advance(1)
        time.sleep(0.6)
        progress.advance(1)  # told
        time.sleep(0.2)
        mark.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def dying_block(plan: Any, block: int, *, progress: Progress) -> Any:
    """Sketch a block, and die of it; block 0 waits until block 1 is begun in another process."""
    from tasks.block_work import sketch_block_elsewhere

    folder = Path(os.environ[FOLDER])
    (folder / f"begun-{block}").touch()
    ends = time.monotonic() + 60
    while block == 0 and not (folder / "begun-1").exists() and time.monotonic() < ends:
        time.sleep(0.05)
    die_of(block, str(folder), progress)
    return sketch_block_elsewhere(plan, block, progress=progress)


def double(folder: str, item: int, *, progress: Progress) -> int:
    die_of(item, folder, progress)
    return 2 * item


def fail(_: Any, item: int, *, progress: Progress) -> int:
    del progress
    if item == 2:
        raise ValueError(f"item {item} is wrong")
    return item


def mismatch() -> None:
    raise MismatchError("two", [("seed", 1, 2)], "Do something.")


def not_found() -> None:
    raise NotFoundError("no such store.")
