"""A small corpus, its queries, and the settings of a run over them with a tiny model."""

import json
from pathlib import Path
from typing import Any

SUBJECTS = ["boats", "bread", "clouds", "drums", "engines", "ferns", "glass", "harbours"]


def write_rows(path: Path, start: int, stop: int) -> None:
    """Write JSON Lines with ids ``row-<number>``."""
    lines = [
        json.dumps(
            {
                "id": f"row-{number:03d}",
                "prompt": f"Say something about {SUBJECTS[number % 8]}. ",
                "completion": f"Number {number} is about {SUBJECTS[number % 8]} and little else.",
            }
        )
        for number in range(start, stop)
    ]
    path.write_text("\n".join(lines) + "\n")


def pipeline_settings(folder: Path, model: Path) -> dict[str, Any]:
    """Write 30 rows and 3 queries into a folder; return the settings of a pipeline over them."""
    write_rows(folder / "rows-0.jsonl", 0, 30)
    write_rows(folder / "queries.jsonl", 100, 103)
    return {
        "store": str(folder / "store"),
        "rows": {
            "source": {"kind": "files", "paths": [str(folder / "rows-*.jsonl")]},
            "id_field": "id",
        },
        "queries": {
            "source": {"kind": "files", "paths": [str(folder / "queries.jsonl")]},
            "id_field": "id",
        },
        "indexing": {
            "model": {"name": str(model), "dtype": "float32"},
            "signature": {
                "sketch": {
                    "kind": "separable",
                    "residual_dim": 8,
                    "hidden_dim": 8,
                    "projected_dim": 4,
                },
                "window": {"tokens": 64, "overlap": 8},
            },
            "block_rows": 8,
        },
        "scoring": {"top_k": 5},
        "releasing": {"select": {"kind": "top_k", "top_k": 7}},
    }
