"""Which texts are measured on: real ones that every machine has, or rows of a file."""

import json
from collections.abc import Iterator
from pathlib import Path

from tasks.backbone import RowTokenizer, TokenRow
from tasks.demo_corpus import library_docstrings

FIELDS = ("text", "instruction", "prompt", "input", "output", "completion")


def token_rows(tokenizer: RowTokenizer, *, n_tokens: int, path: Path | None) -> list[TokenRow]:
    """Return rows until there are ``n_tokens`` tokens, or no more rows.

    Args:
        tokenizer: Of the model.
        n_tokens: Least tokens.
        path: JSON Lines; None: the standard library's docstrings, in their order.
    """
    rows: list[TokenRow] = []
    for text in _texts(path):
        rows += tokenizer.encode([text], [0])
        if sum(len(row.ids) for row in rows) >= n_tokens:
            break
    return rows


def _texts(path: Path | None) -> Iterator[str]:
    if path is None:
        yield from (text for _, text in library_docstrings())
        return
    with path.open() as file:
        for line in file:
            record = json.loads(line)
            yield "\n".join(str(record[field]) for field in FIELDS if record.get(field))
