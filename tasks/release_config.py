"""What a release is: which rows it takes, what it refuses, and how it is laid out.

Everything but `ReportConfig` decides the released bytes and enters the release's identity.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from tasks.stage_config import Name, Names, StageConfig

# ---------------------------------------------------------------------------------- how many


class TopK(StageConfig):
    """The k rows of highest value."""

    model_config = ConfigDict(title="Number of rows")

    kind: Literal["top_k"] = "top_k"
    top_k: int = Field(100, ge=1, title="Rows")


class Threshold(StageConfig):
    """Every row whose value is at least this."""

    model_config = ConfigDict(title="Least value")

    kind: Literal["threshold"] = "threshold"
    min_score: float = Field(title="Least value")


class Share(StageConfig):
    """A share of the rows that can be selected, rounded down, at least one row."""

    model_config = ConfigDict(title="Share of the rows")

    kind: Literal["share"] = "share"
    share: float = Field(title="Share of the rows", description="0 to 1.", gt=0.0, le=1.0)


class TokenBudget(StageConfig):
    """Rows in order of value while their tokens fit the budget; a row that does not is passed."""

    model_config = ConfigDict(title="Token budget")

    kind: Literal["tokens"] = "tokens"
    max_tokens: int = Field(title="Tokens", ge=1)


Size = Annotated[TopK | Threshold | Share | TokenBudget, Field(discriminator="kind")]


# ------------------------------------------------------------------------ values over queries


class MeanOfQueries(StageConfig):
    """A row's mean score over the queries; needs no score matrix."""

    model_config = ConfigDict(title="Mean")

    kind: Literal["mean"] = "mean"


class MaxOfQueries(StageConfig):
    """A row's highest score over the queries."""

    model_config = ConfigDict(title="Maximum")

    kind: Literal["max"] = "max"


class RankFusion(StageConfig):
    """Reciprocal-rank fusion: the sum over queries of 1 / (constant + the row's rank)."""

    model_config = ConfigDict(title="Rank fusion")

    kind: Literal["rank_fusion"] = "rank_fusion"
    constant: int = Field(60, ge=1, title="Constant", description="Larger: less weight on the top.")


class QueryGroups(StageConfig):
    """Weighted groups of queries, told apart by their label; a negative weight is unwanted."""

    model_config = ConfigDict(title="Groups of queries")

    kind: Literal["groups"] = "groups"
    weights: dict[str, float] = Field(
        title="Weight by label", description="Queries with other labels do not count.", min_length=1
    )
    within: Literal["mean", "max"] = Field("mean", title="Within a group")


Aggregate = Annotated[
    MeanOfQueries | MaxOfQueries | RankFusion | QueryGroups, Field(discriminator="kind")
]
"""How a row's scores for the single queries become its value."""


# --------------------------------------------------------------------------------- constraints


class Quota(StageConfig):
    """Least and most rows of one source or label; counts of released rows."""

    field: Literal["source", "label"] = Field(title="Field")
    value: str = Field(title="Value", description="'*': every value that has no quota of its own.")
    min_rows: int = Field(0, ge=0, title="Least rows")
    max_rows: int | None = Field(None, ge=0, title="Most rows")

    @model_validator(mode="after")
    def _least_within_most(self) -> "Quota":
        if self.max_rows is not None and self.max_rows < self.min_rows:
            raise ValueError(
                f"the quota of {self.field} {self.value!r} has min_rows {self.min_rows} above "
                f"max_rows {self.max_rows}; lower min_rows."
            )
        return self


class Collapse(StageConfig):
    """Near duplicates of a row that was taken before are left out."""

    text: float | None = Field(
        None,
        gt=0.0,
        le=1.0,
        title="Text similarity",
        description="Jaccard index of word 5-grams, estimated by MinHash; empty: not looked at.",
    )
    signature: float | None = Field(
        None,
        gt=0.0,
        le=1.0,
        title="Signature similarity",
        description="Cosine of signatures; empty: not looked at.",
    )


class Diversity(StageConfig):
    """Prefer rows that are unlike those taken before, by cosine of signatures."""

    kind: Literal["maximal_marginal_relevance", "facility_location"] = Field(
        "maximal_marginal_relevance", title="Rule"
    )
    weight: float = Field(
        0.3, ge=0.0, le=1.0, title="Weight of diversity", description="0: by value alone."
    )
    candidates: int = Field(
        10_000, ge=1, title="Candidates", description="Only so many of the best rows are looked at."
    )


class LeakageConfig(StageConfig):
    """Overlap of released rows with the queries and with evaluation sets."""

    action: Literal["remove", "report", "off"] = Field("report", title="Action")
    ngram: int = Field(13, ge=1, title="Words of an n-gram")
    common_share: float = Field(
        0.5,
        gt=0.0,
        le=1.0,
        title="Share of a set that makes an n-gram common",
        description="N-grams in more of a set's texts (and in more than 10) are its form, such as "
        "a system prompt, and not looked for. 1: none is.",
    )
    evaluation_sets: dict[Name, Names] = Field(
        {}, title="Evaluation sets", description="Name to files or globs, read as queries are."
    )


class PrivacyConfig(StageConfig):
    """Texts that look as if they held personal data or secrets."""

    action: Literal["remove", "report", "off"] = Field("report", title="Action")
    kinds: tuple[Literal["email", "phone", "secret"], ...] = Field(
        ("email", "phone", "secret"), strict=False, title="Kinds", min_length=1
    )
    phone_regions: tuple[Annotated[str, Field(pattern=r"^[A-Z]{2}$")], ...] = Field(
        ("US",),
        strict=False,
        title="Phone regions",
        description="Countries whose national way of writing numbers is known, as two letters; "
        "numbers that begin with + and the country are always found.",
    )


class ReportConfig(StageConfig):
    """The HTML report; changes no released byte, so it is no part of the identity."""

    examples: int = Field(5, ge=0, title="Examples in each part")
    highlights: bool = Field(
        default=False,
        title="Token highlights",
        description="Runs the model on the examples, to show which tokens made their scores.",
    )


class ReleaseConfig(StageConfig):
    """Which rows are released, and how they are laid out."""

    select: Size = Field(TopK(), title="Selection")
    prefer: Literal["highest", "lowest"] = Field(
        "highest", title="Prefer", description="lowest: the rows that help least (anti-selection)."
    )
    aggregate: Aggregate = Field(MeanOfQueries(), title="Value over the queries")
    length_correction: Literal["none", "regression"] = Field(
        "none",
        title="Length correction",
        description="regression: without what the log of its length foretells of a value.",
    )
    quotas: tuple[Quota, ...] = Field((), strict=False, title="Quotas")
    collapse: Collapse = Field(Collapse(), title="Near duplicates")
    diversity: Diversity | None = Field(None, title="Diversity")
    leakage: LeakageConfig = Field(LeakageConfig(), title="Leakage guard")
    privacy: PrivacyConfig = Field(PrivacyConfig(), title="Privacy")
    formats: tuple[Literal["parquet", "jsonl"], ...] = Field(
        ("parquet",), strict=False, title="Formats", description="Parquet always; JSONL on request."
    )
    rows_per_shard: int = Field(100_000, ge=1, title="Rows a Parquet file")
    target_tokenizer: str | None = Field(
        None,
        title="Target tokenizer",
        description="Of the model that trains on the release: its tokens are counted too.",
    )
    license: str = Field(
        "unknown", title="Licence of the rows", description="For the dataset card."
    )
    report: ReportConfig = Field(ReportConfig(), title="Report")

    @property
    def needs_matrix(self) -> bool:
        """Whether the scores of the single queries are needed, not only their mean."""
        return not isinstance(self.aggregate, MeanOfQueries)

    @property
    def identity(self) -> Mapping[str, object]:
        """What decides the released bytes, as JSON values."""
        return self.model_dump(mode="json", exclude={"report"})
