"""How a model is trained on some rows: what of it, how fast, how long, and what is kept.

Every field changes numbers, so every field is part of what a training run is known by.
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from tasks.stage_config import Names, StageConfig


class FullTraining(StageConfig):
    """Every parameter."""

    model_config = ConfigDict(title="Every parameter")

    kind: Literal["full"] = "full"


class BlocksTraining(StageConfig):
    """The last blocks and the final norm; what the first blocks give is computed once."""

    model_config = ConfigDict(title="Last blocks")

    kind: Literal["blocks"] = "blocks"
    blocks: int = Field(4, ge=1, title="Blocks", description="Counted from the end.")


class LoraTraining(StageConfig):
    """Low-rank adapters (needs the package peft); checkpoints have them merged."""

    model_config = ConfigDict(title="Low-rank adapters (LoRA)")

    kind: Literal["lora"] = "lora"
    rank: int = Field(8, ge=1, title="Rank")
    alpha: float = Field(16.0, gt=0.0, title="Scale", description="Divided by the rank.")
    targets: Names = Field(
        ("q_proj", "v_proj"),
        title="Adapted layers",
        description="Names, or ends of names, of linear layers.",
        min_length=1,
    )


Trained = Annotated[FullTraining | BlocksTraining | LoraTraining, Field(discriminator="kind")]


class TrainingConfig(StageConfig):
    """One training run with AdamW.

    The loss of a batch is the mean of its rows' mean losses; with ``batch_tokens``, the mean over
    its predicted tokens.
    """

    trained: Trained = Field(BlocksTraining(), title="What is trained")
    learning_rate: float = Field(2e-4, gt=0.0, title="Learning rate")
    epochs: int = Field(3, ge=1, title="Epochs")
    batch_rows: int = Field(8, ge=1, title="Rows a batch")
    batch_tokens: int | None = Field(
        None,
        ge=1,
        title="Predicted tokens a batch",
        description="About so many, in place of rows: as many tokens are as many steps.",
    )
    warmup: float = Field(0.1, ge=0.0, le=1.0, title="Warm-up", description="Share of the steps.")
    decay: Literal["none", "linear"] = Field(
        "none", title="Decay of the learning rate", description="linear: to 0 with the last step."
    )
    clip: float = Field(1.0, gt=0.0, title="Longest gradient", description="Longer ones are cut.")
    weight_decay: float = Field(0.0, ge=0.0, title="Weight decay")
    max_tokens: int = Field(
        256, ge=2, title="Most tokens a row", description="Longer rows lose their end."
    )
    positions: Literal["all", "completion"] = Field(
        "all", title="Positions of training rows", description="completion: prompts are masked."
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        title="Number format of products",
        description="Weights are float32 either way; bfloat16: products in autocast.",
    )
    checkpoints: int = Field(
        1, ge=1, title="Checkpoints", description="Equally spaced; the last one is the end."
    )
    seed: int = Field(
        0, ge=0, lt=2**32, title="Seed", description="Of the order of rows, and of adapters."
    )

    @model_serializer(mode="wrap")
    def _without_unset(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # an unset field does not enter what a training is known by
        found: dict[str, Any] = dump(self)
        if self.batch_tokens is None:
            found.pop("batch_tokens", None)
        return found
