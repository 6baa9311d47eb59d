"""How did the weights move between the checkpoints of one training? Read a slice at a time."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tasks.models import weight_files

SLICE_NUMBERS = 1 << 22
"""Weights of a checkpoint that are read at once."""


def weight_slices(checkpoints: Sequence[Path]) -> Iterator[np.ndarray]:
    """Yield the weights that may differ between checkpoints, float32 [checkpoints, slice].

    A file that all checkpoints share holds what was not trained, and is left out.

    Args:
        checkpoints: Folders of one model, oldest first.

    Raises:
        ValueError: The folders are not of one model.
    """
    from safetensors import safe_open

    places = [_places(folder) for folder in checkpoints]
    for other, folder in zip(places, checkpoints, strict=True):
        if other.keys() != places[0].keys():
            raise ValueError(
                f"{folder} and {checkpoints[0]} have weights of other names, so they are not "
                "checkpoints of one training."
            )
    for name in places[0]:
        files = [own[name] for own in places]
        if all(file.samefile(files[0]) for file in files):
            continue
        opened: list[Any] = [safe_open(file, framework="pt") for file in files]
        yield from _tensor_slices([own.get_slice(name) for own in opened])


def _tensor_slices(tensors: Sequence[Any]) -> Iterator[np.ndarray]:
    shape = tensors[0].get_shape()
    width = int(np.prod(shape[1:], dtype=np.int64))
    step = max(1, SLICE_NUMBERS // max(1, width))
    for start in range(0, shape[0], step):
        part = [own[start : start + step].to(torch.float32).flatten() for own in tensors]
        yield torch.stack(part).numpy()


def _places(folder: Path) -> dict[str, Path]:
    """Return the file that each weight lies in."""
    from safetensors import safe_open

    places: dict[str, Path] = {}
    for file in weight_files(folder):
        with safe_open(file, framework="pt") as opened:
            places |= dict.fromkeys(opened.keys(), file)
    return places
