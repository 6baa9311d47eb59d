"""On what was it measured, and how are the results kept?

Records of speed share one form (`performance`), so that one program can write the table of them:
`performance_table.py`.
"""

import datetime
import json
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tasks.evaluate.machine import hardware

LIBRARIES = ("torch", "transformers", "numpy")


def machine() -> dict[str, Any]:
    """Return processor, cores, versions and date."""
    return {**hardware("cpu"), **versions(), "date": today()}


def versions(more: Sequence[str] = ()) -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide speed."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in (*LIBRARIES, *more)},
    }


def peak_rss_bytes() -> int:
    """Return the most memory that this process had; ru_maxrss would count its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def today() -> str:
    return datetime.datetime.now(tz=datetime.UTC).date().isoformat()


def target(what: str, median: str, unit: str, **limit: float) -> dict[str, Any]:
    """Return what a median is held against.

    Args:
        what: Named in the table.
        median: Its name among the medians.
        unit: Of both.
        limit: ``at_least`` or ``at_most``; neither where nothing was asked for.
    """
    return {"what": what, "median": median, "unit": unit, **limit}


def performance(
    shapes: Mapping[str, Any],
    medians: Mapping[str, float],
    targets: Sequence[Mapping[str, Any]],
    *,
    device: str = "cpu",
    libraries: Sequence[str] = (),
    **details: Any,
) -> dict[str, Any]:
    """Return a record of speed: command, hardware, versions, shapes, medians and targets.

    Args:
        shapes: Sizes of the work.
        medians: Over repeats; ratios are of times that were taken in turns.
        targets: From `target`.
        device: Where it ran.
        libraries: Whose versions matter besides `LIBRARIES`.
        details: Anything else worth keeping.
    """
    program = Path(sys.argv[0]).name
    return {
        "command": f"python benchmarks/{program} {shlex.join(sys.argv[1:])}".strip(),
        "date": today(),
        "hardware": hardware(device),
        "versions": versions(libraries),
        "shapes": dict(shapes),
        "medians": dict(medians),
        "targets": [dict(one) for one in targets],
        **details,
    }


def write_record(record: Mapping[str, Any], path: Path) -> None:
    """Write a record, and say what was measured."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps({"medians": record["medians"], "targets": record["targets"]}, indent=1))


def with_records(result: dict[str, Any], records: list[dict[str, Any]]) -> str:
    """Return JSON text with one line a record."""
    head = json.dumps(result, indent=1).removesuffix("\n}")
    body = ",\n  ".join(json.dumps(record) for record in records)
    return f'{head},\n "records": [\n  {body}\n ]\n}}\n'
