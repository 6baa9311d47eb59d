"""Do the gradients of a method fit here? Known before a model is loaded, refused with numbers."""

from dataclasses import asdict, dataclass

from tasks.backbone import model_shape
from tasks.config import ModelConfig
from tasks.evaluate.gradient_parameters import chosen_parameters, empty_model
from tasks.evaluate.gradient_settings import BlockParameters, ParameterChoice
from tasks.evaluate.method import MethodRefused
from tasks.memory import FLOAT32_BYTES, LAYER_COPIES, available_bytes

GRADIENT_COPIES = 3
"""Arrays of a gradient's size that live at once: by tensor, scaled, and laid end to end."""
LOGIT_COPIES = 4
"""Arrays of the logits' size that live at once: logits, softmax, and the gradients of both."""
SKETCH_BYTES = 5
"""Of each number of a gradient: where it goes, and its sign."""


@dataclass(frozen=True)
class GradientNeed:
    """Predicted bytes, by what needs them."""

    model: int
    gradients: int
    activations: int
    logits: int
    shuffle: int = 0
    queries: int = 0
    kept: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return sum(asdict(self).values())


def count_chosen(model: ModelConfig, choice: ParameterChoice) -> int:
    """Return how many numbers a gradient has; nothing is loaded.

    Raises:
        MethodRefused: The model has not so many blocks, or no such layer or tensor.
    """
    chosen = chosen_parameters(empty_model(model), choice, config=model, seed=0)
    return sum(own.numel() for own in chosen.values())


def predict_gradient_memory(
    model: ModelConfig,
    choice: ParameterChoice,
    *,
    longest: int,
    sketched: bool,
    held_gradients: int = 0,
    kept_bytes: int = 0,
) -> GradientNeed:
    """Predict the memory of taking gradients one text at a time.

    Args:
        model: The model, in float32.
        choice: Which parameters.
        longest: Tokens of the longest text.
        sketched: Whether a gradient is compressed.
        held_gradients: Whole gradients of queries that are held.
        kept_bytes: Of compressed gradients, all in memory when scores are made.
    """
    shape = model_shape(model)
    n_numbers = count_chosen(model, choice)
    settings = empty_model(model).config.get_text_config()
    # adapters lie in every block; what lies before the first chosen block keeps nothing
    n_blocks = settings.num_hidden_layers
    deep = min(choice.blocks, n_blocks) if isinstance(choice, BlockParameters) else n_blocks
    heads = settings.num_attention_heads
    layer = LAYER_COPIES * longest * shape.hidden + heads * longest * longest
    return GradientNeed(
        model=shape.n_parameters * FLOAT32_BYTES,
        gradients=GRADIENT_COPIES * n_numbers * FLOAT32_BYTES,
        activations=deep * layer * FLOAT32_BYTES,
        logits=LOGIT_COPIES * longest * shape.vocabulary * FLOAT32_BYTES,
        shuffle=SKETCH_BYTES * n_numbers if sketched else 0,
        queries=held_gradients * n_numbers * FLOAT32_BYTES,
        kept=kept_bytes,
    )


def require_gradient_memory(need: GradientNeed, *, device: str, advice: str) -> None:
    """Refuse what does not fit.

    Args:
        need: What is predicted.
        device: Where.
        advice: What to do about it, a sentence.

    Raises:
        MethodRefused: The device has less; the message has the parts.
    """
    free = available_bytes(device)
    if free is None or need.total <= free:
        return
    parts = ", ".join(f"{name} {_gigabytes(size)}" for name, size in asdict(need).items() if size)
    raise MethodRefused(
        f"about {_gigabytes(need.total)} are needed on {device} ({parts}), but {_gigabytes(free)} "
        f"are available. {advice}"
    )


def _gigabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB"
