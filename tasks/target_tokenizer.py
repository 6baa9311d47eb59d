"""The tokenizer of the model that a release is meant for: how many tokens its rows are there."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.config import ModelConfig
from tasks.models import resolve_model

TOKENIZER_FILE = "tokenizer.json"


class TargetTokenizer:
    """Counts tokens; no special tokens are added.

    Attributes:
        name: As the user gave it.
        sha256: Of the tokenizer's own description: two names of one tokenizer have one.
    """

    def __init__(self, name: str, tokenizer: Any) -> None:
        """Use `load_target_tokenizer`."""
        self.name = name
        self.sha256 = hashlib.sha256(tokenizer.to_str().encode()).hexdigest()
        self._tokenizer = tokenizer

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text."""
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [len(encoding) for encoding in encodings]


def load_target_tokenizer(name: str) -> TargetTokenizer:
    """Load a tokenizer from this machine.

    Args:
        name: A ``tokenizer.json``, a folder that has one, or a model as `rise models ls` names it.

    Raises:
        ValueError: There is no such tokenizer, or its file cannot be read.
    """
    from tokenizers import Tokenizer

    file = _tokenizer_file(name)
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(
            f"target_tokenizer {name!r}: {file} cannot be read ({error}). Give a folder with a "
            f"{TOKENIZER_FILE} of the tokenizers library."
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return TargetTokenizer(name, tokenizer)


def _tokenizer_file(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_file() and path.suffix == ".json":
        return path
    if not (path / TOKENIZER_FILE).is_file():
        path = resolve_model(ModelConfig(name=name)).path
    if not (path / TOKENIZER_FILE).is_file():
        raise ValueError(
            f"target_tokenizer {name!r}: {path} has no {TOKENIZER_FILE}. Save the tokenizer there "
            "with save_pretrained, or give another one."
        )
    return path / TOKENIZER_FILE
