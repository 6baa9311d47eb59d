"""How far a release may move away from the one before: what is measured, and limits for it.

The limits decide whether ``latest`` moves, never what is in a release, so they are part of no id.
"""

from pydantic import Field, model_validator

from tasks.stage_config import StageConfig

MEASURES = {
    "replaced": "rows that the release before has not, as share of the new one",
    "lost": "rows of the release before that are gone, as share of it",
    "size": "change of the number of rows, as share of the number before",
    "score_shift": "mean change of z of kept rows (up or down)",
    "score_order": "1 - rank correlation of the scores of kept rows",
    "score_spread": "Kolmogorov-Smirnov distance of z, all rows",
    "sources": "share of rows that changed source",
    "labels": "share of rows that changed label",
    "languages": "share of rows that changed language",
    "lengths": "Kolmogorov-Smirnov distance of tokens a row",
}
"""Name of a measure (and of its limits in the settings) to what it is; 0 is no drift."""


class Limit(StageConfig):
    """When a measure is too large: for a warning, and for `latest` to move."""

    warn: float | None = Field(None, ge=0.0, title="Warn above", description="Empty: never.")
    fail: float | None = Field(
        None, ge=0.0, title="Fail above", description="`latest` stays, the run fails. Empty: never."
    )

    @model_validator(mode="after")
    def _fail_after_warning(self) -> "Limit":
        if self.warn is not None and self.fail is not None and self.fail < self.warn:
            raise ValueError(
                f"fail is {self.fail} but warn {self.warn}; raise fail, so that a warning comes "
                "first."
            )
        return self


NO_LIMIT = Limit()


class DriftConfig(StageConfig):
    """Limits for how far a release may be from the one that `latest` names; none by default."""

    replaced: Limit = Field(
        NO_LIMIT,
        title="Rows replaced",
        description="Share of the new release, 0 to 1, that the one before has not.",
    )
    lost: Limit = Field(
        NO_LIMIT, title="Rows lost", description="Share of the release before that is gone, 0 to 1."
    )
    size: Limit = Field(
        NO_LIMIT,
        title="Size",
        description="Change of the number of rows, as share of the number before; 1: twice.",
    )
    score_shift: Limit = Field(
        NO_LIMIT,
        title="Score shift",
        description="Mean change of z of rows that are in both, up or down.",
    )
    score_order: Limit = Field(
        NO_LIMIT,
        title="Score order",
        description="1 - rank correlation of rows that are in both: 0 same order, 1 none, 2 "
        "reversed.",
    )
    score_spread: Limit = Field(
        NO_LIMIT, title="Score spread", description="Kolmogorov-Smirnov distance of z, 0 to 1."
    )
    sources: Limit = Field(
        NO_LIMIT,
        title="Source mix",
        description="Share of rows that changed source, 0 to 1; numbers in names do not count.",
    )
    labels: Limit = Field(
        NO_LIMIT, title="Label mix", description="Share of rows that changed label, 0 to 1."
    )
    languages: Limit = Field(
        NO_LIMIT, title="Language mix", description="Share of rows that changed language, 0 to 1."
    )
    lengths: Limit = Field(
        NO_LIMIT,
        title="Lengths",
        description="Kolmogorov-Smirnov distance of tokens a row, 0 to 1.",
    )

    def limit(self, measure: str) -> Limit:
        """Return the limits of a measure."""
        found: Limit = getattr(self, measure)
        return found

    @property
    def is_set(self) -> bool:
        """Whether any limit is set."""
        return any(self.limit(name) != NO_LIMIT for name in MEASURES)


NO_LIMITS = DriftConfig()
