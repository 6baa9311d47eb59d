"""Files to ingest, written by the tests that read them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tasks.config import FilesSource, RowLimits, RowsConfig
from tasks.records import Record
from tasks.sources import read_records


def write_jsonl(path: Path, rows: Iterable[dict[str, Any] | str | bytes]) -> Path:
    """Write a JSON Lines file; a string or bytes is put there as it stands."""
    with path.open("wb") as file:
        for row in rows:
            raw = json.dumps(row, ensure_ascii=False) if isinstance(row, dict) else row
            file.write((raw.encode() if isinstance(raw, str) else raw) + b"\n")
    return path


def rows_config(*paths: Path, max_rejected_share: float = 0.05, **settings: Any) -> RowsConfig:
    """Return the config that reads these files."""
    limits = settings.pop("limits", RowLimits(max_rejected_share=max_rejected_share))
    return RowsConfig(
        source=FilesSource(paths=tuple(str(path) for path in paths)), limits=limits, **settings
    )


def read(*paths: Path, limits: RowLimits | None = None, **settings: Any) -> list[Record]:
    """Read every record of some files."""
    source = FilesSource(paths=tuple(str(path) for path in paths), **settings)
    return list(read_records(source, limits or RowLimits()))


def texts(n: int, *, start: int = 0) -> list[dict[str, Any]]:
    """Return ``n`` good rows, each different."""
    return [{"text": f"row number {i} tells its own story"} for i in range(start, start + n)]
