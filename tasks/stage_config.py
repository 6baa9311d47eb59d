"""What all configs share: frozen, strict, nothing unknown, nothing infinite."""

from pydantic import BaseModel, ConfigDict


class StageConfig(BaseModel):
    """Base of the configs: immutable, unknown fields refused, no conversions, no inf or NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
