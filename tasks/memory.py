"""How much memory will this take, and is it there? Known before the work starts.

The prediction is a sum of what is surely held at once; it is printed with its parts when it does
not fit, so that the reader sees which setting to lower.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from rise_ops.tensor_sketch import SPECTRUM_BYTES
from tasks.backbone import ModelShape, model_is_loaded, model_shape
from tasks.batches import MAX_BATCH_WINDOWS
from tasks.config import IndexConfig, RuntimeConfig
from tasks.signature_config import PrincipalProjection, SeparableSketch, Sketch

OUT_OF_MEMORY = ("DefaultCPUAllocator", "out of memory", "not enough memory")
"""What torch's plain RuntimeErrors say when the CPU's, or Apple's, allocator fails."""
FLOAT32_BYTES = 4
FLOAT64_BYTES = 8
MOMENT_COPIES = 6
"""Arrays of a second moment's size that live at once: sums of both halves of the sample and of all,
product or eigenvectors, and their workspace."""
SPECTRUM_COPIES = 6
"""Arrays of `rise_ops.tensor_sketch.SPECTRUM_BYTES` that live at once."""
LOGIT_COPIES = 2
"""Arrays of the logits' size that live at once: the logits, and what top-k makes of them."""
LAYER_COPIES = 24
"""Arrays of [tokens, hidden] that live at once within a layer: an MLP is about 8 wide on its own,
attention and the float32 copies of normalisations are the rest."""


@dataclass(frozen=True)
class MemoryNeed:
    """Predicted bytes on top of the running program, by what needs them."""

    model: int
    head: int
    logits: int
    activations: int
    signatures: int
    calibration: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(asdict(self).values())


def predict_memory(
    shape: ModelShape, config: IndexConfig, runtime: RuntimeConfig, *, dtype: str
) -> MemoryNeed:
    """Predict the memory of sketching blocks.

    Args:
        shape: Sizes of the model.
        config: The index; ``block_rows`` signatures are collected in float32.
        runtime: Batch size and bytes for logits.
        dtype: Number format that the model runs in.
    """
    number_bytes = FLOAT32_BYTES if dtype == "float32" else 2
    sketch = config.signature.sketch
    n_numbers = sketch.n_numbers
    # in float32 the head is the model's own weight
    head_copy = 0 if dtype == "float32" else shape.vocabulary * shape.hidden
    # a coarse head: its weight in two bytes or, where that is no faster, in four
    coarse_copy = shape.vocabulary * shape.hidden if config.signature.head == "two_pass" else 0
    images = shape.vocabulary * _image_numbers(sketch)
    logits = min(runtime.head_bytes, FLOAT32_BYTES * runtime.batch_tokens * shape.vocabulary)
    # a block: float32 sums, their scaled copy, the same on the host, and the stored float16
    block = config.block_rows * n_numbers * (3 * FLOAT32_BYTES + 2)
    batch = min(MAX_BATCH_WINDOWS, runtime.batch_tokens) * n_numbers * 3 * FLOAT32_BYTES
    spectra = SPECTRUM_COPIES * SPECTRUM_BYTES if sketch.kind == "tensor" else 0
    return MemoryNeed(
        model=shape.n_parameters * number_bytes,
        head=(head_copy + coarse_copy + images) * FLOAT32_BYTES,
        logits=LOGIT_COPIES * logits,
        activations=LAYER_COPIES * runtime.batch_tokens * shape.hidden * FLOAT32_BYTES,
        signatures=block + batch + spectra,
        calibration=_calibration_bytes(shape, sketch),
    )


def _image_numbers(sketch: Sketch) -> int:
    """Return what is kept of each token: its image in a residual, and in a projected error."""
    if isinstance(sketch, SeparableSketch | PrincipalProjection):
        return sketch.residual_dim + sketch.projected_dim
    return 0


def _calibration_bytes(shape: ModelShape, sketch: Sketch) -> int:
    if not sketch.is_calibrated:
        return 0
    sides = [shape.hidden, shape.hidden]
    if isinstance(sketch, PrincipalProjection) and sketch.residual_dim > 0:
        sides.append(sketch.residual_buckets)
    # the embedding goes through a map that changes nothing; a product and its sum are float64
    moments = MOMENT_COPIES * FLOAT64_BYTES * sum(side * side for side in sides)
    return shape.vocabulary * shape.hidden * FLOAT32_BYTES + moments


def require_memory(
    config: IndexConfig,
    runtime: RuntimeConfig,
    *,
    device: str,
    dtype: str,
    n_processes: int = 1,
) -> int:
    """Return the bytes that sketching will take, and refuse work that does not fit.

    A model that this process has loaded is counted, but not asked for again.

    Args:
        config: The index.
        runtime: Batch size and bytes for logits.
        device: Where to compute.
        dtype: Number format that the model runs in.
        n_processes: Processes of this machine that do so at once, spread over its GPUs.

    Raises:
        ValueError: The model does not read windows as long as the config's.
        MemoryError: The device has less than predicted; the message has the numbers.
    """
    shape = model_shape(config.model)
    window = config.signature.window.tokens
    if shape.max_tokens is not None and window > shape.max_tokens:
        raise ValueError(
            f"signature.window.tokens is {window}, but {config.model.name} reads at most "
            f"{shape.max_tokens} tokens (max_position_embeddings). Lower it."
        )
    need = predict_memory(shape, config, runtime, dtype=dtype)
    held = need.model + need.head if model_is_loaded() else 0
    for place, n_here in _places(device, n_processes):
        free = available_bytes(place)
        if free is not None and n_here * need.total - held > free:
            raise MemoryError(_too_much(need, place, n_here, free))
    return n_processes * need.total


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that memory ran out, Python's or a device's."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in OUT_OF_MEMORY)


def _places(device: str, n_processes: int) -> list[tuple[str, int]]:
    """Return each device and how many processes will share it."""
    n_devices = n_gpus() if device == "cuda" and n_processes > 1 else 0
    if n_devices == 0:
        return [(device, n_processes)]
    shares = [len(range(number, n_processes, n_devices)) for number in range(n_devices)]
    return [(f"cuda:{number}", share) for number, share in enumerate(shares) if share]


def _too_much(need: MemoryNeed, device: str, n_processes: int, free: int) -> str:
    parts = ", ".join(f"{name} {_readable(size)}" for name, size in asdict(need).items())
    each = f"{n_processes} processes of {_readable(need.total)}: " if n_processes > 1 else ""
    fewer = "runtime.index_workers, " if n_processes > 1 else ""
    return (
        f"about {_readable(n_processes * need.total)} are needed on {device} ({each}{parts}), but "
        f"{_readable(free)} are available. Lower {fewer}block_rows, runtime.batch_tokens or "
        "runtime.head_bytes, choose a smaller sketch or model, or another device."
    )


def n_gpus() -> int:
    """Return how many GPUs of CUDA this process sees."""
    import torch

    return torch.cuda.device_count()


def available_bytes(device: str) -> int | None:
    """Return the bytes that a device has free; None where nobody says."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    listing = Path("/proc/meminfo")
    if device != "cpu" or not listing.is_file():
        return None
    fields = dict(line.split(":", 1) for line in listing.read_text().splitlines())
    free = int(fields["MemAvailable"].split()[0]) * 1024
    limit = _container_limit()
    return free if limit is None else min(free, limit)


def _container_limit() -> int | None:
    file = Path("/sys/fs/cgroup/memory.max")
    value = file.read_text().strip() if file.is_file() else "max"
    return int(value) if value.isdigit() else None


def _readable(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB"
