import os
from pathlib import Path

import pytest

from tasks import memory
from tasks.backbone import ModelShape, model_shape
from tasks.config import IndexConfig, ModelConfig, RuntimeConfig
from tasks.memory import available_bytes, predict_memory
from tasks.signature_config import PrincipalProjection, SignatureConfig, TensorSketch

SHAPE = ModelShape(n_parameters=135_000_000, vocabulary=49_152, hidden=576, max_tokens=8192)


def test_available_memory_is_known_on_linux():
    available = available_bytes("cpu")
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert available is not None
    assert 0 < available <= total
    assert available_bytes("mps") is None


def test_prediction_follows_what_is_held():
    config, runtime = IndexConfig(signature="paper"), RuntimeConfig()
    need = predict_memory(SHAPE, config, runtime, dtype="bfloat16")
    assert need.model == 270_000_000
    assert need.head == 4 * 49_152 * (576 + 128 + 64)
    assert need.logits == 2 * runtime.head_bytes
    assert need.signatures > 1024 * 24_576 * 14
    assert need.total == sum(vars(need).values())

    assert predict_memory(SHAPE, config, runtime, dtype="float32").model == 540_000_000
    small = RuntimeConfig(batch_tokens=16, head_bytes=1 << 20)
    assert predict_memory(SHAPE, config, small, dtype="bfloat16").total < need.total - 600_000_000
    few = IndexConfig(signature="paper", block_rows=64)
    assert predict_memory(SHAPE, few, runtime, dtype="bfloat16").total < need.total - 300_000_000


@pytest.mark.parametrize(
    ("sketch", "images", "calibration"),
    [
        (PrincipalProjection(), 64, 49_152 * 576 * 4 + 6 * 8 * 2 * 576**2),
        (
            PrincipalProjection(residual_dim=32, residual_weight=1.0),
            96,
            49_152 * 576 * 4 + 6 * 8 * (2 * 576**2 + 2048**2),
        ),
        (TensorSketch(), 0, 0),
        (TensorSketch(whiten="hidden"), 0, 49_152 * 576 * 4 + 6 * 8 * 2 * 576**2),
    ],
)
def test_prediction_knows_every_kind_of_sketch(sketch: object, images: int, calibration: int):
    signature = SignatureConfig(sketch=sketch)
    config, runtime = IndexConfig(signature=signature), RuntimeConfig()
    need = predict_memory(SHAPE, config, runtime, dtype="float32")
    assert need.head == 4 * 49_152 * images
    assert need.calibration == calibration
    assert need.signatures > 1024 * sketch.n_numbers * 14
    two_pass = config.model_copy(
        update={"signature": signature.model_copy(update={"head": "two_pass"})}
    )
    more = predict_memory(SHAPE, two_pass, runtime, dtype="float32")
    assert more.head - need.head == 4 * 49_152 * 576


def test_shape_of_a_model_needs_no_weights(tiny_llama: Path):
    from transformers.models.auto import AutoModelForCausalLM

    shape = model_shape(ModelConfig(name=str(tiny_llama)))
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    assert shape.n_parameters == sum(p.numel() for p in model.parameters())
    assert (shape.vocabulary, shape.hidden, shape.max_tokens) == (320, 32, 512)


@pytest.mark.parametrize("loaded", [False, True])
def test_loaded_model_is_not_asked_for_again(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, *, loaded: bool
):
    config = IndexConfig(model=ModelConfig(name=str(tiny_llama)))
    shape = model_shape(config.model)
    need = predict_memory(shape, config, RuntimeConfig(), dtype="float32")
    monkeypatch.setattr(memory, "available_bytes", lambda _: need.total - need.model)
    monkeypatch.setattr(memory, "model_is_loaded", lambda: loaded)
    arguments = {"device": "cpu", "dtype": "float32"}
    if loaded:
        assert memory.require_memory(config, RuntimeConfig(), **arguments) == need.total
    else:
        with pytest.raises(MemoryError):
            memory.require_memory(config, RuntimeConfig(), **arguments)


@pytest.mark.parametrize(
    ("n_gpus", "processes", "places"),
    [
        (0, 3, ["cpu"]),
        (2, 3, ["cuda:0", "cuda:1"]),
        (4, 2, ["cuda:0", "cuda:1"]),
    ],
)
def test_processes_ask_for_their_share_of_each_device(
    tiny_llama: Path,
    monkeypatch: pytest.MonkeyPatch,
    n_gpus: int,
    processes: int,
    places: list[str],
):
    config, runtime = IndexConfig(model=ModelConfig(name=str(tiny_llama))), RuntimeConfig()
    one = predict_memory(model_shape(config.model), config, runtime, dtype="float32").total
    asked: list[str] = []

    def available(place: str) -> int:
        asked.append(place)
        return most * one

    monkeypatch.setattr(memory, "model_is_loaded", lambda: False)
    monkeypatch.setattr(memory, "n_gpus", lambda: n_gpus)
    monkeypatch.setattr(memory, "available_bytes", available)
    device = "cuda" if n_gpus else "cpu"
    most = -(-processes // max(1, n_gpus))  # the share of the first device
    arguments = {"device": device, "dtype": "float32", "n_processes": processes}
    assert memory.require_memory(config, runtime, **arguments) == processes * one
    assert asked == places
    most -= 1
    message = rf"on {places[0]} .*Lower (runtime.index_workers, )?block_rows"
    with pytest.raises(MemoryError, match=message):
        memory.require_memory(config, runtime, **arguments)
