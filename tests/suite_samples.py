"""Quality suites that tests edit."""

from pathlib import Path
from typing import Any

import yaml

from tasks.quality_config import QualityConfig


def edit(folder: Path, gate: str, old: str, new: str) -> QualityConfig:
    """Replace one text in the suite of a gate."""
    path = folder / f"{gate}.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return QualityConfig(folder=str(folder))


def add(folder: Path, gate: str, table: str, **entry: Any) -> QualityConfig:
    """Put one more expectation at the end of a table."""
    path = folder / f"{gate}.yaml"
    suite = yaml.safe_load(path.read_text())
    suite["tables"][table].append(entry)
    path.write_text(yaml.safe_dump(suite, sort_keys=False))
    return QualityConfig(folder=str(folder))
