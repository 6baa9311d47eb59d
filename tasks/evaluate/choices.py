"""What the command line says of tasks and methods, as settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.backbone import load_tokenizer
from tasks.config import ModelConfig, RowsConfig
from tasks.config_file import validated
from tasks.evaluate.built_in import BUILT_IN
from tasks.evaluate.own_rows import read_rows
from tasks.evaluate.plant_config import PlantConfig
from tasks.evaluate.planted import PlantedFiles, plant, write_planted
from tasks.evaluate.registry import REGISTRY

ALL = "all"
NOT_OF_ALL = ("rise", "rapidin", "sentence-embedding", "sum")
"""Methods that other names stand for, or that are nothing without settings."""


def task_list(names: str | None) -> list[str]:
    """Return task names from a list with commas, or every task that comes with the suite."""
    if names is None:
        return []
    return list(BUILT_IN) if names == ALL else _parts(names)


def method_list(names: str | None) -> list[str] | None:
    """Return method names from a list with commas, or every method; None where nothing was said."""
    if names is None:
        return None
    if names == ALL:
        return [name for name in REGISTRY if name not in NOT_OF_ALL]
    return _parts(names)


def own_task(
    rows: Mapping[str, Any] | None, queries: Mapping[str, Any] | None, label: str
) -> list[dict[str, Any]]:
    """Return the settings of a task of the user's rows; none where no rows were given.

    Raises:
        ValueError: Queries without rows.
    """
    if rows is None:
        if queries is not None:
            raise ValueError("--queries are asked about --rows; give both, or --rows alone.")
        return []
    found: dict[str, Any] = {
        "kind": "labelled",
        "name": "own",
        "rows": {"source": rows, "label_field": label},
    }
    if queries is not None:
        found["queries"] = {"source": queries, "label_field": label}
    return [found]


def plant_files(
    folder: Path,
    source: Mapping[str, Any] | None,
    options: Mapping[str, Any],
    *,
    model: str | None,
) -> PlantedFiles:
    """Plant a behaviour in rows, and write the task into a folder.

    Args:
        folder: Made if missing.
        source: Where the rows are.
        options: Of `PlantConfig`; None: its default.
        model: Name of the model; its tokenizer renders chats.

    Raises:
        ValueError: An option is not valid, or the rows are not usable, or too few.
    """
    given = {name: value for name, value in options.items() if value is not None}
    config = validated(PlantConfig, given, origin="options")
    rows = validated(RowsConfig, {"source": source}, origin="options")
    named = ModelConfig() if model is None else ModelConfig(name=model)
    texts = plant(read_rows(rows, load_tokenizer(named), what="rows").rows, config)
    return write_planted(folder, texts, model=named.name)


def _parts(names: str) -> list[str]:
    return [part.strip() for part in names.split(",") if part.strip()]
