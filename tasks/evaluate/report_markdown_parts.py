"""Pieces of an evaluation's Markdown that several of its sections are made of."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.evaluate.report_data import Results


def markdown_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, n_texts: int = 1
) -> str:
    """Return a table; behind the first ``n_texts`` columns all are aligned to the right."""
    marks = ["---"] * n_texts + ["---:"] * (len(columns) - n_texts)
    lines = [columns, marks, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escaped(words: str) -> str:
    """Return text of which nothing acts as Markdown or ends a cell."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(words.split()))


def method_name(results: Results, name: str) -> str:
    """Return a method as tables write it: RISE in bold."""
    found = results.method(name)
    return f"**{escaped(name)}**" if found is not None and found.family == "RISE" else escaped(name)


def place_name(results: Results, line: Mapping[str, Any]) -> str:
    """Return what tables call the task, and where needed the paradigm, of a line."""
    found = (one.name for one in results.places if one.key == (line["task"], line["paradigm"]))
    return next(found, json.dumps(line["task"])[1:-1])
