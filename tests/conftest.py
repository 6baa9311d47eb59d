"""Fixtures that several tests share: a private cache folder and one tiny model a session."""

import os
from collections.abc import Iterator
from pathlib import Path

# tiny tensors gain nothing from threads, and on a busy machine they wait for each other
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from tiny import tiny_model

torch.set_num_threads(1)

USER_CACHE = Path(os.environ.get("RISE_HOME") or Path.home() / ".cache" / "rise")


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep digests and converted models of a test run out of the user's cache."""
    real = os.environ.get("RISE_HOME")
    os.environ["RISE_HOME"] = str(tmp_path_factory.mktemp("rise-home"))
    yield
    if real is None:
        del os.environ["RISE_HOME"]
    else:
        os.environ["RISE_HOME"] = real


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with tied embeddings and its tokenizer; do not write into it."""
    return tiny_model(tmp_path_factory.mktemp("tiny-llama") / "model")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of the real SmolLM2; the test is skipped when it was never fetched."""
    folder = USER_CACHE / "models" / "smollm2-135m-instruct"
    if not folder.is_dir():
        pytest.skip("SmolLM2 is not fetched: `rise models fetch smollm2-135m-instruct`")
    return folder
