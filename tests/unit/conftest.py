"""Fixtures of the unit tests."""

from pathlib import Path

import pytest

from tasks.backbone import RowTokenizer, load_tokenizer
from tasks.config import ModelConfig


@pytest.fixture(scope="session")
def row_tokenizer(tiny_llama: Path) -> RowTokenizer:
    """The tiny model's own tokenizer: byte-level BPE with a chat template."""
    return load_tokenizer(ModelConfig(name=str(tiny_llama)))
