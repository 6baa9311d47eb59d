"""What is in a store, in plain dictionaries: listing, details, lineage of a row, integrity."""

from dataclasses import asdict
from typing import Any

from storage.catalog import list_artifacts
from storage.errors import NotFoundError
from storage.lineage import LineageStep, walk_back, walk_forward
from tasks.integrity import check_store

SUMMARY_FIELDS = (
    "n_rows",
    "n_rejected",
    "n_tokens",
    "n_queries",
    "query_set",
    "index",
    "corpus",
    "reason",
)
"""Manifest fields that a one-line listing shows."""


def list_store(root: str) -> list[dict[str, Any]]:
    """Return one dictionary an artifact: kind, name, id, created, detail (one line of text).

    Raises:
        NotFoundError: There is no store at ``root``.
    """
    return [
        {**asdict(artifact), "created": artifact.created or "", "detail": _summary(artifact.detail)}
        for artifact in list_artifacts(root)
    ]


def trace(root: str, row: str) -> list[dict[str, Any]]:
    """Return the stations of a row, from its source line to the releases that carry it.

    Args:
        root: Folder of the store.
        row: A row id, or ``source:line``.

    Raises:
        NotFoundError: No row has that id, and nothing came from such a line.
    """
    source, _, line = row.rpartition(":")
    try:
        steps = walk_back(root, row)
    except NotFoundError:
        if not (source and line.isdigit()):
            raise
        steps = walk_forward(root, source=source, line=int(line))
    return [_plain_step(step) for step in steps]


def verify_store(root: str) -> list[str]:
    """Read everything back and return one text for each thing that is missing or damaged.

    Raises:
        NotFoundError: There is no store at ``root``.
    """
    return [problem for checked in check_store(root) for problem in checked.problems]


def _summary(detail: dict[str, Any]) -> str:
    if "problem" in detail:
        return str(detail["problem"])
    shown = {name: detail[name] for name in SUMMARY_FIELDS if detail.get(name) is not None}
    return ", ".join(
        f"{value:,} {name[2:]}" if name.startswith("n_") else f"{name} {value}"
        for name, value in shown.items()
    )


def _plain_step(step: LineageStep) -> dict[str, Any]:
    return {"kind": step.kind, "id": step.id, "detail": step.detail}
