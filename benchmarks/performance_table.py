"""Write the README's table of speed from the records under docs/performance.

    python benchmarks/performance_table.py            # rewrite README.md between its markers
    python benchmarks/performance_table.py --check    # fail if it is not what the records give

A record is what `evidence_machine.performance` returns: command, date, hardware, versions, shapes,
medians and targets. One line a target with a limit; what misses it says so.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from evidence_tables import filled

ROOT = Path(__file__).resolve().parent.parent
FIELDS = ("command", "date", "hardware", "versions", "shapes", "medians", "targets")
HEADER = ["| what | measured | target | met | machine, record |", "|---|---|---|---|---|"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    readme = ROOT / "README.md"
    before = readme.read_text()
    after = filled(before, "performance", table(read_records(ROOT / "docs" / "performance")))
    if arguments.check and after != before:
        raise SystemExit("README.md: the table is out of date; run benchmarks/performance_table.py")
    readme.write_text(after)


def read_records(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the records by file name, in order.

    Raises:
        ValueError: A record lacks a field, or a target names a median that is not there.
    """
    records = {path.name: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    for name, record in records.items():
        if missing := [field for field in FIELDS if field not in record]:
            raise ValueError(f"{name} lacks {', '.join(missing)}; a record has {FIELDS}.")
        unknown = {one["median"] for one in record["targets"]} - set(record["medians"])
        if unknown:
            raise ValueError(f"{name}: targets of medians that are not there: {sorted(unknown)}.")
    return records


def table(records: dict[str, dict[str, Any]]) -> str:
    """Return the table, one line a median that something was asked of."""
    lines = [
        line(target, record, name)
        for name, record in records.items()
        for target in record["targets"]
        if "at_least" in target or "at_most" in target
    ]
    return "\n".join([*HEADER, *lines])


def line(target: dict[str, Any], record: dict[str, Any], name: str) -> str:
    value, unit = record["medians"][target["median"]], target["unit"]
    hardware = record["hardware"]
    machine = hardware.get("gpu") or f"{hardware['processor']}, threads: {hardware['threads']}"
    cells = [
        target["what"],
        quantity(value, unit),
        limit(target),
        {None: "", True: "yes", False: "**no**"}[is_met(value, target)],
        f"{machine}, [{name.removesuffix('.json')}](docs/performance/{name})",
    ]
    return f"| {' | '.join(cells)} |"


def limit(target: dict[str, Any]) -> str:
    if "at_least" in target:
        return f"at least {quantity(target['at_least'], target['unit'])}"
    return f"at most {quantity(target['at_most'], target['unit'])}"


def is_met(value: float, target: dict[str, Any]) -> bool | None:
    """Return whether a value meets its target; None where there is none."""
    if "at_least" in target:
        return value >= target["at_least"]
    if "at_most" in target:
        return value <= target["at_most"]
    return None


def quantity(value: float, unit: str) -> str:
    number = f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"
    return f"{number} {unit}".strip()


if __name__ == "__main__":
    main()
