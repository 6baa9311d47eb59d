"""What a signature is: residual, sketch, windows, code; and the settings that have names.

A sketch has one of three kinds. ``separable`` is the paper's: random, drawn from a seed.
``principal`` looks along the directions that matter for this model and this text, which a sample of
the corpus tells when the index is made. ``tensor`` is random too, but sketches each channel as a
whole. Every field enters the identity of an index.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from tasks.stage_config import StageConfig

CALIBRATION_TOKENS = 20_000
"""Tokens of the sample, by default: docs/evidence.md was measured with so many, and 50,000 gave
nothing more."""

KIND_REQUIRED = ConfigDict(json_schema_extra={"required": ["kind"]})
"""Says to readers of the schema, such as Prefect, that settings without a kind are not of this one,
even where their fields would fit."""


Weighting = Annotated[
    Literal["unit", "gradient"],
    Field(
        title="Token weighting",
        description="unit: every token alike (the paper). gradient: by the size of its gradient.",
    ),
]

Damping = Annotated[
    float,
    Field(ge=0.0, title="Damping of the whitening", description="Share of the mean eigenvalue."),
]


class ResidualConfig(StageConfig):
    """Which tokens carry the prediction residual p - onehot(target); METHOD.md, section 2."""

    temperature: float = Field(
        0.1, gt=0.0, title="Temperature", description="1 is the true gradient."
    )
    top_k: int = Field(256, ge=1, title="Largest logits considered")
    mass: float = Field(0.92, gt=0.0, le=1.0, title="Probability kept")
    min_tokens: int = Field(4, ge=1, title="Least tokens kept")

    @model_validator(mode="after")
    def _minimum_within_top_k(self) -> "ResidualConfig":
        if self.min_tokens > self.top_k:
            raise ValueError(
                f"min_tokens is {self.min_tokens} but top_k is {self.top_k}; lower min_tokens."
            )
        return self


class ChannelsConfig(StageConfig):
    """What every kind of sketch has: weights of the channels, and how positions count in them."""

    residual_weight: float = Field(1.0, ge=0.0, title="Weight of residual x hidden (RH)")
    projected_weight: float = Field(0.3, ge=0.0, title="Weight of projected error x hidden (GH)")
    cross_weight: float = Field(
        0.0, ge=0.0, title="Weight of residual x projected error", description="0: channel absent."
    )
    embedding: Literal["output", "input"] = Field(
        "output",
        title="Embedding of the projected error",
        description="Read-out or input embedding.",
    )
    weighting: Weighting = "unit"
    seed: int = Field(
        0, ge=0, lt=2**64, title="Seed", description="Of tables and of the calibration sample."
    )

    @model_validator(mode="after")
    def _some_channel(self) -> "ChannelsConfig":
        if self.residual_weight == self.projected_weight == self.cross_weight == 0.0:
            raise ValueError("all three channel weights are 0; give at least one channel a weight.")
        return self

    @property
    @abstractmethod
    def channel_sizes(self) -> Mapping[str, int]:
        """Numbers of each channel, by the field of its weight; channels of weight 0 as well."""

    @property
    def n_numbers(self) -> int:
        """Length of a signature; channels of weight 0 are left out."""
        return sum(size for name, size in self.channel_sizes.items() if getattr(self, name) > 0.0)

    @property
    def is_calibrated(self) -> bool:
        """Whether a sample of the corpus is read before anything else."""
        return False


class SeparableSketch(ChannelsConfig):
    """The paper's: count sketches of the factors and outer products of them; Kr, Kh and Kg."""

    kind: Literal["separable"] = "separable"
    residual_dim: int = Field(128, ge=1, title="Residual numbers (Kr)")
    hidden_dim: int = Field(128, ge=1, title="Hidden-state numbers (Kh)")
    projected_dim: int = Field(64, ge=1, title="Projected-error numbers (Kg)")

    @property
    def channel_sizes(self) -> Mapping[str, int]:
        """See `ChannelsConfig.channel_sizes`."""
        return _pair_sizes(self.residual_dim, self.hidden_dim, self.projected_dim)


class PrincipalProjection(ChannelsConfig):
    """The leading directions of each factor, by a calibration sample, and outer products."""

    model_config = KIND_REQUIRED

    kind: Literal["principal"] = "principal"
    residual_weight: float = Field(0.0, ge=0.0, title="Weight of residual x hidden (RH)")
    projected_weight: float = Field(1.0, ge=0.0, title="Weight of projected error x hidden (GH)")
    weighting: Weighting = "gradient"
    hidden_dim: int = Field(64, ge=1, title="Hidden-state directions")
    projected_dim: int = Field(
        64, ge=0, title="Projected-error directions", description="0: no channel uses it."
    )
    residual_dim: int = Field(
        0, ge=0, title="Residual directions", description="0: no channel uses it."
    )
    residual_buckets: int = Field(
        2048,
        ge=1,
        title="Buckets of the residual",
        description="It is count-sketched to this many numbers; directions are of those.",
    )
    whiten: Literal["none", "hidden", "projected", "both"] = Field(
        "hidden",
        title="Whitened factors",
        description="projected: the error's side, the residual too. With sign codes: hidden.",
    )
    damping: Damping = 1.0
    calibration_tokens: int = Field(
        CALIBRATION_TOKENS,
        ge=2,
        title="Tokens of the calibration sample",
        description="Whole rows, chosen by seed, until there are so many.",
    )

    @model_validator(mode="after")
    def _directions_where_weights_are(self) -> "PrincipalProjection":
        users = {
            "residual_dim": ("residual_weight", "cross_weight"),
            "projected_dim": ("projected_weight", "cross_weight"),
        }
        for field, weights in users.items():
            used = [weight for weight in weights if getattr(self, weight) > 0.0]
            n_directions = getattr(self, field)
            if used and n_directions == 0:
                raise ValueError(f"{field} is 0 but {used[0]} is above 0; set one or the other.")
            if n_directions and not used:
                raise ValueError(
                    f"{field} is {n_directions} but {' and '.join(weights)} are 0, so nothing "
                    "would use these directions; set one or the other."
                )
        if self.residual_dim > self.residual_buckets:
            raise ValueError(
                f"residual_dim is {self.residual_dim} but there are {self.residual_buckets} "
                "residual_buckets; raise these."
            )
        return self

    @property
    def channel_sizes(self) -> Mapping[str, int]:
        """See `ChannelsConfig.channel_sizes`."""
        return _pair_sizes(self.residual_dim, self.hidden_dim, self.projected_dim)

    @property
    def is_calibrated(self) -> bool:
        """Always."""
        return True


class TensorSketch(ChannelsConfig):
    """A sketch of each channel's whole outer product; random, needs no calibration."""

    model_config = KIND_REQUIRED

    kind: Literal["tensor"] = "tensor"
    residual_weight: float = Field(1.0, ge=0.0, title="Weight of residual x hidden (RH)")
    projected_weight: float = Field(1.0, ge=0.0, title="Weight of projected error x hidden (GH)")
    weighting: Weighting = "gradient"
    residual_hidden_dim: int = Field(2048, ge=1, title="Numbers of residual x hidden (RH)")
    projected_hidden_dim: int = Field(2048, ge=1, title="Numbers of projected error x hidden (GH)")
    residual_projected_dim: int = Field(
        2048, ge=1, title="Numbers of residual x projected error", description="If it has a weight."
    )
    whiten: Literal["none", "hidden"] = Field(
        "none",
        title="Whitened factors",
        description="hidden: in all directions, by a calibration sample.",
    )
    damping: Damping = 1.0
    calibration_tokens: int = Field(
        CALIBRATION_TOKENS,
        ge=2,
        title="Tokens of the calibration sample",
        description="Read only to whiten. Whole rows, chosen by seed, until there are so many.",
    )

    @property
    def channel_sizes(self) -> Mapping[str, int]:
        """See `ChannelsConfig.channel_sizes`."""
        return {
            "residual_weight": self.residual_hidden_dim,
            "projected_weight": self.projected_hidden_dim,
            "cross_weight": self.residual_projected_dim,
        }

    @property
    def is_calibrated(self) -> bool:
        """Only to whiten."""
        return self.whiten != "none"


def _pair_sizes(residual: int, hidden: int, projected: int) -> dict[str, int]:
    return {
        "residual_weight": residual * hidden,
        "projected_weight": projected * hidden,
        "cross_weight": residual * projected,
    }


def _separable_if_unsaid(value: Any) -> Any:
    # settings that name no kind are of the first one: the paper's sizes alone are enough
    if isinstance(value, Mapping) and "kind" not in value:
        return {**value, "kind": "separable"}
    return value


Sketch = Annotated[
    Annotated[SeparableSketch | PrincipalProjection | TensorSketch, Field(discriminator="kind")],
    BeforeValidator(_separable_if_unsaid),
]
"""How the factors of a position become numbers; without a ``kind`` it is separable."""


class WindowConfig(StageConfig):
    """How rows longer than the window are cut."""

    tokens: int = Field(256, ge=2, title="Tokens a window")
    overlap: int = Field(50, ge=0, title="Tokens shared by neighbours")

    @model_validator(mode="after")
    def _overlap_below_window(self) -> "WindowConfig":
        if self.overlap >= self.tokens:
            raise ValueError(
                f"overlap is {self.overlap} but a window has {self.tokens} tokens; lower overlap."
            )
        return self


class SignatureConfig(StageConfig):
    """What a signature is: residual, sketch and windows. Rows and queries share it."""

    residual: ResidualConfig = Field(ResidualConfig(), title="Residual")
    sketch: Sketch = Field(SeparableSketch(), title="Sketch")
    window: WindowConfig = Field(WindowConfig(), title="Windows")
    head: Literal["float32", "two_pass"] = Field(
        "float32",
        title="Read-out head",
        description=(
            "two_pass: a low-precision product finds candidates, float32 scores them; the same "
            "residuals up to rounding, three to four times as fast."
        ),
    )
    code: Literal["float16", "int8", "sign"] = Field(
        "float16",
        title="Code",
        description="How rows are stored; int8 takes a half, sign a sixteenth. Queries stay float.",
    )
    keep_floats: bool = Field(
        default=False,
        title="Keep float rows beside codes",
        description=(
            "Also store rows as float16, so that a search can look again at a shortlist that codes "
            "chose (scoring.shortlist). They are read a few at a time."
        ),
    )

    @model_validator(mode="after")
    def _floats_once(self) -> "SignatureConfig":
        if self.keep_floats and self.code == "float16":
            raise ValueError(
                "code float16 keeps the float rows already; leave keep_floats out, or choose code "
                "sign or int8."
            )
        return self

    @model_validator(mode="after")
    def _signs_fill_bytes(self) -> "SignatureConfig":
        # numbers of a separable sketch are rotated first, which fills them up
        n_numbers = self.sketch.n_numbers
        if self.code == "sign" and self.sketch.kind != "separable" and n_numbers % 8:
            raise ValueError(
                f"signs fill whole bytes, but a signature has {n_numbers} numbers; choose sizes "
                "whose product is a multiple of 8."
            )
        return self


COMPACT_TOP_K = 64
"""Tokens considered at temperature 1: wider supports cost time and find no more."""

COMPACT_MASS = 0.8
"""Probability that the kept tokens must reach at temperature 1: the tail beyond is left out."""

COMPACT_DAMPING = 3.0
"""Damping of the whitening, in mean eigenvalues; signs take 3 to 30 alike, int8 1 to 5."""


def _paper(residual: int, hidden: int, projected: int) -> SignatureConfig:
    sketch = SeparableSketch(
        residual_dim=residual,
        hidden_dim=hidden,
        projected_dim=projected,
        residual_weight=0.7,
        projected_weight=1.0,
    )
    return SignatureConfig(sketch=sketch)


def _compact(
    projected: int,
    hidden: int,
    *,
    whiten: Literal["hidden", "both"] = "hidden",
    code: Literal["sign", "int8"] = "sign",
) -> SignatureConfig:
    return SignatureConfig(
        residual=ResidualConfig(temperature=1.0, top_k=COMPACT_TOP_K, mass=COMPACT_MASS),
        sketch=PrincipalProjection(
            projected_dim=projected, hidden_dim=hidden, whiten=whiten, damping=COMPACT_DAMPING
        ),
        head="two_pass",
        code=code,
    )


PRESETS: dict[str, SignatureConfig] = {
    "paper": SignatureConfig(),
    "paper-4096": _paper(48, 64, 16),
    "paper-352": _paper(16, 8, 28),
    "compact": _compact(64, 64),
    "compact-256": _compact(64, 32),
    "compact-2k": _compact(128, 128),
    "compact-8k": _compact(128, 64, whiten="both", code="int8"),
    "compact-16k": _compact(256, 64, whiten="both", code="int8"),
}
"""Named signature settings. ``paper``: the published default, and its two smaller sketches, of
49,152, 8,192 and 704 bytes a row. ``compact``: principal directions of the projected error and the
hidden state (k_g x k_h), at the true gradient's temperature, in 512, 256, 2,048, 8,192 and 16,384
bytes a row; coded rows take 4 bytes more, their scale."""

DEFAULT_PRESET = "compact"
"""What an index is made with where nothing is said; docs/evidence.md says why."""


def _preset_or_settings(value: object) -> object:
    if not isinstance(value, str):
        return value
    if value not in PRESETS:
        raise ValueError(f"there is no preset {value!r}; presets are {', '.join(PRESETS)}")
    return PRESETS[value]


SignatureOrPreset = Annotated[SignatureConfig, BeforeValidator(_preset_or_settings)]
"""Settings, or the name of a preset."""
