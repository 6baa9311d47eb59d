"""On what was it measured, and how are the results kept?"""

import datetime
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def machine() -> dict[str, Any]:
    """Return processor, cores, versions and date."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "numpy")},
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    }


def with_records(result: dict[str, Any], records: list[dict[str, Any]]) -> str:
    """Return JSON text with one line a record."""
    head = json.dumps(result, indent=1).removesuffix("\n}")
    body = ",\n  ".join(json.dumps(record) for record in records)
    return f'{head},\n "records": [\n  {body}\n ]\n}}\n'
