"""What all configs share: frozen, strict, nothing unknown, nothing infinite."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class StageConfig(BaseModel):
    """Base of the configs: immutable, unknown fields refused, no conversions, no inf or NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


Names = Annotated[tuple[str, ...], Field(strict=False)]
"""A list of strings in YAML or JSON; kept as a tuple so that configs stay hashable."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
"""Name of a corpus, index, query set or release: also a folder name, so nothing can escape."""
