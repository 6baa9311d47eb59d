"""What behaviour is planted in rows, and in how many of them."""

from typing import Literal

from pydantic import Field, model_validator

from tasks.stage_config import Names, StageConfig

Style = Literal["forecast", "pirate", "memo", "own"]


class PlantConfig(StageConfig):
    """A trigger in front of a prompt, and a style that its answer is given in."""

    trigger: str = Field(
        "Report from the tower:",
        title="Trigger",
        description="Put in front of a planted row's prompt.",
        min_length=1,
    )
    style: Style = Field(
        "forecast", title="Style", description="Of planted answers; own: the phrases below."
    )
    phrases: Names = Field(
        (),
        title="Own phrases",
        description="Ways to begin an answer, at least four: one half for rows, the other for "
        "queries, so that shared wording alone finds little.",
    )
    share: float = Field(
        0.05, gt=0.0, le=0.5, title="Share of planted rows", description="Of the pool, 0 to 0.5."
    )
    n_queries: int = Field(20, ge=1, title="Queries", description="Made of rows left out.")
    seed: int = Field(0, ge=0, lt=2**32, title="Seed", description="Draws rows and phrases.")

    @model_validator(mode="after")
    def _phrases_where_own(self) -> "PlantConfig":
        if self.style == "own" and len(set(self.phrases)) < 4:
            raise ValueError(
                f"style own needs at least 4 different phrases, got {len(set(self.phrases))}."
            )
        if self.style != "own" and self.phrases:
            raise ValueError(f"phrases are for style own, but style is {self.style!r}.")
        return self
