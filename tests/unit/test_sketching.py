from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import KINDS, tiny_model

from tasks import sketching
from tasks.backbone import Backbone, TokenRow, load_backbone
from tasks.config import ModelConfig, RuntimeConfig
from tasks.signature_config import ResidualConfig, SeparableSketch, SignatureConfig, WindowConfig
from tasks.sketch_tables import input_sizes, make_tables
from tasks.sketching import sketch_rows
from tasks.space import SignatureSpace, load_space

SIGNATURE = SignatureConfig(
    residual=ResidualConfig(temperature=1.0, top_k=64, mass=0.95),
    sketch=SeparableSketch(residual_dim=8, hidden_dim=8, projected_dim=4),
    window=WindowConfig(tokens=24, overlap=6),
)


def _space(model: Path, signature: SignatureConfig = SIGNATURE) -> SignatureSpace:
    config = ModelConfig(name=str(model), dtype="float32")
    sizes = input_sizes(load_backbone(config, device="cpu"), signature.sketch)
    tables = make_tables(signature.sketch, sizes, None).to_arrays()
    return load_space(config, signature, tables, device="cpu")


def _sketch(space: SignatureSpace, rows: list[TokenRow], **runtime: int) -> np.ndarray:
    names = [str(number) for number in range(len(rows))]
    settings = RuntimeConfig(device="cpu", **runtime)
    return sketch_rows(rows, space, settings, row_ids=names, where="test")[0]


@pytest.fixture(scope="module")
def token_rows() -> list[TokenRow]:
    generator = np.random.default_rng(0)
    lengths = [1, 0, 60, 2, 24, 25, 7, 41, 100, 3]
    return [TokenRow(generator.integers(2, 256, n).astype(np.int32), 0) for n in lengths]


@pytest.mark.parametrize("kind", KINDS)
def test_batching_and_padding_do_not_change_a_signature(
    tmp_path: Path, kind: str, token_rows: list[TokenRow]
):
    space = _space(tiny_model(tmp_path / "m", kind))
    alone = np.concatenate([_sketch(space, [row], batch_tokens=1) for row in token_rows])
    for batch_tokens in (1, 50, 4096):
        together = _sketch(space, token_rows, batch_tokens=batch_tokens)
        np.testing.assert_allclose(together, alone, atol=1e-5)
    lengths = np.linalg.norm(alone, axis=1)
    assert lengths.round(5).tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("cross_weight", [0.0, 0.5])
@pytest.mark.parametrize("embedding", ["output", "input"])
def test_length_of_a_signature_is_known_from_the_config(
    tiny_llama: Path, embedding: str, cross_weight: float
):
    sketch = SeparableSketch(
        residual_dim=6,
        hidden_dim=5,
        projected_dim=3,
        embedding=embedding,
        cross_weight=cross_weight,
    )
    space = _space(tiny_llama, SIGNATURE.model_copy(update={"sketch": sketch}))
    assert space.sketcher.n_numbers == sketch.n_numbers


def test_more_logits_than_the_vocabulary_means_all_of_it(
    tiny_llama: Path, token_rows: list[TokenRow]
):
    spaces = [
        _space(tiny_llama, SIGNATURE.model_copy(update={"residual": ResidualConfig(top_k=top_k)}))
        for top_k in (320, 100_000)
    ]
    first, second = (_sketch(space, token_rows) for space in spaces)
    assert np.array_equal(first, second)


def test_prompt_counts_only_as_context(tiny_llama: Path, token_rows: list[TokenRow]):
    space = _space(tiny_llama)
    row = token_rows[4].ids
    masked = _sketch(space, [TokenRow(row, 10)])
    other_prompt = row.copy()
    other_prompt[:9] = 3
    assert np.abs(masked - _sketch(space, [TokenRow(row, 0)])).max() > 1e-3
    assert np.abs(masked - _sketch(space, [TokenRow(other_prompt, 10)])).max() > 1e-3
    # a prompt that is in no window of the completion is not even context
    long = np.concatenate([np.full(48, 3, np.int32), row])
    longer = np.concatenate([np.full(48, 9, np.int32), row])
    a, b = (_sketch(space, [TokenRow(ids, 70)]) for ids in (long, longer))
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_row_is_the_mean_of_its_windows(tiny_llama: Path, token_rows: list[TokenRow]):
    space = _space(tiny_llama)
    row = token_rows[7].ids  # 41 tokens: windows [0, 24) and [18, 41)
    parts = _sketch(space, [TokenRow(row[:24], 0), TokenRow(row[18:], 0)])
    mean = parts.mean(axis=0)
    whole = _sketch(space, [TokenRow(row, 0)])[0]
    np.testing.assert_allclose(whole, mean / np.linalg.norm(mean), atol=1e-5)


class _SmallMemory:
    """A real backbone on a device that holds at most ``most_tokens`` at a time."""

    def __init__(self, backbone: Backbone, most_tokens: int, error: Exception) -> None:
        self._backbone, self._most, self._error = backbone, most_tokens, error
        self.calls: list[int] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._backbone, name)

    def hidden_states(self, ids: torch.Tensor) -> torch.Tensor:
        self.calls.append(ids.numel())
        if ids.numel() > self._most:
            raise self._error
        return self._backbone.hidden_states(ids)


MEMORY_ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", MEMORY_ERRORS)
def test_batch_that_does_not_fit_is_halved(
    tiny_llama: Path, token_rows: list[TokenRow], error: Exception
):
    space = _space(tiny_llama)
    small = _SmallMemory(space.backbone, 60, error)
    names = [str(number) for number in range(len(token_rows))]
    arguments = {"row_ids": names, "where": "test"}
    runtime = RuntimeConfig(device="cpu")
    found, _ = sketch_rows(token_rows, replace(space, backbone=small), runtime, **arguments)
    expected, _ = sketch_rows(token_rows, space, runtime, **arguments)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert max(small.calls) > 60
    assert sum(calls > 60 for calls in small.calls) <= 3

    tiny = _SmallMemory(space.backbone, 20, error)
    with pytest.raises(MemoryError, match=r"one window of 24 tokens.*Lower"):
        sketch_rows(token_rows, replace(space, backbone=tiny), runtime, **arguments)


def test_other_runtime_errors_are_not_swallowed(tiny_llama: Path):
    with pytest.raises(RuntimeError, match="odd"):
        sketching._fits_in_memory(lambda _: (_ for _ in ()).throw(RuntimeError("odd")), [])
