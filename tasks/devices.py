"""Which GPU is whose: every worker process claims one, and the kernel frees it when it dies.

A claim is a lock on a file that is named by the GPU's own id, so it holds across runs, restarts of
workers and whatever order ``CUDA_VISIBLE_DEVICES`` gives. Where there are more processes than GPUs
they are spread evenly.
"""

import fcntl
import itertools
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from storage.files import open_own


@dataclass
class _Claim:
    """What this process holds; the open file is the lock."""

    device: str | None = None
    file: BinaryIO | None = field(default=None, repr=False)


_claim = _Claim()


def claimed_device() -> str | None:
    """Return the GPU that this process has claimed, None where it has not or needs none."""
    return _claim.device


def claim_device(device: str) -> None:
    """Claim a GPU for this process, if ``device`` leaves open which; once.

    Args:
        device: As in the settings; ``auto`` and ``cuda`` mean any GPU, others that very device.
    """
    if _claim.device is not None or device not in ("auto", "cuda"):
        return
    import torch

    n_devices = torch.cuda.device_count()
    if n_devices == 0:
        return
    ids = [str(torch.cuda.get_device_properties(number).uuid) for number in range(n_devices)]
    number, _claim.file = claim_one(ids, _claims_folder())
    _claim.device = f"cuda:{number}"
    torch.cuda.set_device(number)


def claim_one(ids: Sequence[str], folder: Path) -> tuple[int, BinaryIO]:
    """Claim the thing that the fewest processes have claimed, the first of several.

    Args:
        ids: Names of the things.
        folder: Where the locks lie.

    Returns:
        Its number, and the open file that holds the claim until it is closed.
    """
    for share in itertools.count():
        for number, one in enumerate(ids):
            file = open_own(folder / f"{one}.{share}.lock")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                continue
            return number, file
    raise AssertionError  # pragma: no cover - a count has no end


def _claims_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"rise-devices-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
