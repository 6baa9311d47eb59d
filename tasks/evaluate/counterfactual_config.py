"""Settings of the counterfactual measures: what is trained, on how much, how often.

Two sizes come with names: ``cpu`` (minutes to hours on two cores) and ``gpu``.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from tasks.stage_config import Names, StageConfig
from tasks.training_config import BlocksTraining, FullTraining, TrainingConfig

SHORT = TrainingConfig(trained=BlocksTraining(blocks=4), epochs=3, batch_rows=8, max_tokens=48)
"""What docs/evidence.md used: some 14 s on two cores for 48 rows of 48 tokens."""


class _MeasureConfig(StageConfig):
    """A measure with a field ``training``; settings that name a part of it keep the rest."""

    @field_validator("training", mode="before", check_fields=False)
    @classmethod
    def _rest_as_the_default(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        default: TrainingConfig = cls.model_fields["training"].default
        return {**default.model_dump(), **value}


class LdsConfig(_MeasureConfig):
    """Retrainings on random subsets of a few rows."""

    rows: int = Field(96, ge=4, title="Rows", description="As many of each label as there are.")
    queries: int = Field(36, ge=1, title="Queries", description="As many of each label.")
    queries_from: Literal["task", "rows"] = Field(
        "task",
        title="Queries are",
        description="task: the task's own. rows: rows left out of the subsets, of every label.",
    )
    subsets: int = Field(40, ge=3, title="Subsets")
    share: float = Field(0.5, gt=0.0, lt=1.0, title="Share of the rows in a subset")
    repeats: int = Field(
        6,
        ge=2,
        title="Subsets trained twice",
        description="They say how much is noise; of one pair alone it cannot be told from what "
        "another order does to all subsets alike, which is none.",
    )
    seed: int = Field(7, ge=0, lt=2**32, title="Seed of rows and subsets")
    training: TrainingConfig = Field(SHORT, title="Training")


class TailPatchConfig(_MeasureConfig):
    """One training step on a query's strongest rows."""

    rows: int = Field(8, ge=1, title="Rows of the step")
    queries: int = Field(20, ge=1, title="Queries", description="At most; drawn by seed.")
    random_draws: int = Field(3, ge=1, title="Draws of random rows a query")
    seed: int = Field(7, ge=0, lt=2**32, title="Seed of queries and draws")
    training: TrainingConfig = Field(
        TrainingConfig(trained=BlocksTraining(blocks=4), max_tokens=96),
        title="Training",
        description="Epochs, batch size and warm-up do not matter: it is one step.",
    )


class ClosedLoopConfig(_MeasureConfig):
    """Trainings on what methods choose, at an equal budget of tokens and in as many steps.

    Raises:
        ValueError: ``training.batch_tokens`` is null or below ``max_tokens``: steps would follow
            how many rows an arm has.
    """

    target: str | None = Field(
        None, title="Target label", description="Empty: the label that most queries have."
    )
    tokens: int = Field(
        6_000, ge=2, title="Tokens an arm", description="Predicted tokens of its rows, once."
    )
    seeds: int = Field(3, ge=2, title="Seeds", description="Of the order and of random rows.")
    held_out: int = Field(
        100,
        ge=2,
        title="Held-out texts",
        description="Of the target, and as many of the others; never chosen from.",
    )
    selection_queries: int = Field(
        50, ge=1, title="Queries that choose", description="At most; of the target label."
    )
    methods: Names = Field(
        (),
        title="Methods that choose",
        description="As settings or tables name them. Empty: all; each is two arms, trained once "
        "a seed.",
    )
    seed: int = Field(7, ge=0, lt=2**32, title="Seed of held-out texts and draws")
    training: TrainingConfig = Field(
        TrainingConfig(trained=BlocksTraining(blocks=4), epochs=2, batch_tokens=500, max_tokens=64),
        title="Training",
        description="batch_tokens: at least max_tokens, so that arms take as many steps.",
    )

    @field_validator("training")
    @classmethod
    def _as_many_steps(cls, training: TrainingConfig) -> TrainingConfig:
        if training.batch_tokens is None or training.batch_tokens < training.max_tokens:
            found = "null" if training.batch_tokens is None else training.batch_tokens
            raise ValueError(
                f"batch_tokens is {found}; the closed loop needs at least max_tokens "
                f"({training.max_tokens}), so that arms of as many tokens take as many steps. "
                "Raise batch_tokens or lower max_tokens"
            )
        return training


class CounterfactualConfig(StageConfig):
    """Which of the three are measured; null leaves one out."""

    lds: LdsConfig | None = Field(LdsConfig(), title="LDS")
    tail_patch: TailPatchConfig | None = Field(TailPatchConfig(), title="Tail-patch")
    closed_loop: ClosedLoopConfig | None = Field(ClosedLoopConfig(), title="Closed loop")


def _gpu() -> CounterfactualConfig:
    full = TrainingConfig(
        trained=FullTraining(),
        learning_rate=5e-5,
        epochs=2,
        batch_rows=16,
        max_tokens=256,
        precision="bfloat16",
    )
    return CounterfactualConfig(
        lds=LdsConfig(rows=512, queries=100, subsets=100, repeats=10, training=full),
        tail_patch=TailPatchConfig(queries=100, training=full),
        closed_loop=ClosedLoopConfig(
            tokens=1_200_000,
            held_out=400,
            training=full.model_copy(update={"batch_tokens": 4_000}),
        ),
    )


SIZES: Mapping[str, CounterfactualConfig] = {"cpu": CounterfactualConfig(), "gpu": _gpu()}


def _named_size(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value not in SIZES:
        raise ValueError(f"counterfactual {value!r}: expected {', '.join(SIZES)}, or settings.")
    return SIZES[value]


CounterfactualOrSize = Annotated[CounterfactualConfig, BeforeValidator(_named_size)]
"""Settings, or in YAML the name of a size."""
