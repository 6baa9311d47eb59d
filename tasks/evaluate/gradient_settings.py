"""Settings of the rival methods that need gradients or checkpoints; every field changes numbers."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from tasks.stage_config import Names, StageConfig


class LoraParameters(StageConfig):
    """Low-rank adapters: those that the model was fine-tuned with, or else fresh ones."""

    model_config = ConfigDict(title="Adapters (LoRA)")

    kind: Literal["lora"] = "lora"
    rank: int = Field(8, ge=1, title="Rank of fresh adapters")
    targets: Names = Field(
        (),
        title="Adapted layers",
        description="Ends of layer names. Empty: the query and value projections.",
    )


class BlockParameters(StageConfig):
    """The last blocks of the model."""

    model_config = ConfigDict(title="Last blocks")

    kind: Literal["block"] = "block"
    blocks: int = Field(1, ge=1, title="Blocks", description="Counted from the end.")
    pattern: str | None = Field(
        None, title="Only tensors named", description="A regular expression; empty: all of them."
    )


class FullParameters(StageConfig):
    """Every parameter."""

    model_config = ConfigDict(title="Every parameter")

    kind: Literal["full"] = "full"
    pattern: str | None = Field(
        None, title="Only tensors named", description="A regular expression; empty: all of them."
    )


ParameterChoice = Annotated[
    LoraParameters | BlockParameters | FullParameters, Field(discriminator="kind")
]


def parameters_name(choice: ParameterChoice) -> str:
    """Return what tables call a choice of parameters."""
    if isinstance(choice, LoraParameters):
        return "LoRA"
    plural = "" if isinstance(choice, BlockParameters) and choice.blocks == 1 else "s"
    counted = "all" if isinstance(choice, FullParameters) else f"{choice.blocks} block{plural}"
    return f"{counted} {choice.pattern}" if choice.pattern else counted


class ReadingConfig(StageConfig):
    """How a rival reads rows; prompts of queries are masked always."""

    max_tokens: int = Field(
        512, ge=2, title="Most tokens a text", description="Longer texts lose their end."
    )
    positions: Literal["all", "completion"] = Field(
        "completion", title="Positions of rows", description="completion: prompts are masked."
    )


class RapidInConfig(ReadingConfig):
    """RapidIn: loss gradients, each tensor at unit length, compressed (arXiv:2405.11724)."""

    model_config = ConfigDict(title="RapidIn")

    parameters: ParameterChoice = Field(BlockParameters(blocks=4), title="Gradients of")
    dim: int = Field(
        65_536, ge=1, title="Numbers kept of a row", description="K; two bytes a number."
    )
    shuffle: Literal["uniform", "published"] = Field(
        "uniform",
        title="Shuffle",
        description="published: permuted rows and columns, which mix worse.",
    )
    seed: int = Field(0, ge=0, lt=2**32, title="Seed", description="Of shuffle, signs, adapters.")


class TracInConfig(ReadingConfig):
    """TracIn: inner products of loss gradients, uncompressed, on some of the parameters."""

    model_config = ConfigDict(title="TracIn")

    parameters: ParameterChoice = Field(BlockParameters(), title="Gradients of")
    product: Literal["dot", "cosine", "tensors"] = Field(
        "dot",
        title="Product",
        description="cosine: of the whole gradient. tensors: a sum of cosines, one a tensor.",
    )
    checkpoints: Literal["last", "all"] = Field(
        "last",
        title="Checkpoints",
        description="all: a sum over the fine-tuning's checkpoints, where there are any.",
    )
    seed: int = Field(0, ge=0, lt=2**32, title="Seed", description="Of fresh adapters.")


class Z0InfConfig(ReadingConfig):
    """Z0-Inf: influence from losses at the checkpoints of a fine-tuning (arXiv:2510.11832)."""

    model_config = ConfigDict(title="Z0-Inf")

    neighbours: Literal["adjacent", "last"] = Field(
        "adjacent",
        title="Checkpoints compared with",
        description="adjacent: the ones before and after. last: the last two, as published.",
    )
    centring: Literal["own", "rows", "none"] = Field(
        "own",
        title="Mean loss that is subtracted",
        description="At each checkpoint: of rows and of queries (own), of rows, or none.",
    )
    agreement: bool = Field(
        default=False,
        title="Times agreement of curves",
        description="Multiply by the rank correlation of the two loss curves.",
    )


class EkFacConfig(ReadingConfig):
    """EK-FAC influence functions, as the package kronfluence computes them (arXiv:2308.03296)."""

    model_config = ConfigDict(title="EK-FAC (kronfluence)")

    blocks: int = Field(4, ge=1, title="Last blocks", description="Counted from the end.")
    pattern: str = Field(
        "mlp", title="Only layers named", description="A regular expression; of linear layers."
    )
    strategy: Literal["identity", "diagonal", "kfac", "ekfac"] = Field(
        "ekfac", title="Curvature", description="identity: none, inner products of gradients."
    )
    damping: float | None = Field(
        None,
        ge=0,
        title="Added to eigenvalues",
        description="Empty: a tenth of the mean eigenvalue of each layer, as published.",
    )
    loss: Literal["sum", "mean"] = Field(
        "sum", title="Loss of a text", description="Over its positions; sum is what EK-FAC is for."
    )
    batch_rows: int = Field(4, ge=1, title="Texts a batch")
    seed: int = Field(0, ge=0, lt=2**32, title="Seed", description="Of labels that are sampled.")


class TrackStarConfig(StageConfig):
    """TrackStar as the package bergson computes it (arXiv:2410.17413)."""

    model_config = ConfigDict(title="TrackStar (bergson)")

    program: str = Field(
        "bergson",
        title="Program",
        description="Found on the PATH, or a path: it may live in an environment of its own.",
        min_length=1,
    )
    positions: Literal["all", "completion"] = Field(
        "completion", title="Positions of rows", description="completion: prompts are masked."
    )
    projection_dim: int = Field(
        16, ge=1, title="Side of a module's projection", description="Its square is kept a module."
    )
    batch_tokens: int = Field(
        2048, ge=2, title="Tokens a batch", description="Longer texts lose their end."
    )
