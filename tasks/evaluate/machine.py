"""Where and with what was it measured?"""

import datetime
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch


def machine(device: str) -> dict[str, Any]:
    """Return the hardware and the device, resolved: cpu, cuda, cuda:1 or mps."""
    return {**hardware(device), "device": device}


def hardware(device: str) -> dict[str, Any]:
    """Return processor, cores, threads and, where the device is one, the GPU.

    Args:
        device: Resolved: cpu, cuda, cuda:1 or mps.
    """
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    found: dict[str, Any] = {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    if device.startswith("cuda"):
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


def together(machines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one machine as it is; of several, each different value with "or", and their number.

    Args:
        machines: Each different one once, at least one.
    """
    if len(machines) == 1:
        return dict(machines[0])
    names = dict.fromkeys(name for one in machines for name in one)
    values = {
        name: list(dict.fromkeys(str(one[name]) for one in machines if name in one))
        for name in names
    }
    return {"machines": len(machines), **{name: " or ".join(own) for name, own in values.items()}}


def now() -> str:
    """Return the time, UTC, to the second."""
    return datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds")
