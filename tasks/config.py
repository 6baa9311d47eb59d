"""Every setting of every stage: frozen, strict, hashed whole.

What changes numbers lives in a stage's config and enters the artifact's identity with every
field, defaults included. What only changes speed lives in `RuntimeConfig` and is recorded, never
hashed. Strict means that ``top_k: true`` or ``"12"`` is refused instead of being converted.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from tasks.drift_config import DriftConfig
from tasks.quality_config import QualityConfig
from tasks.refresh_config import RefreshConfig
from tasks.release_config import ReleaseConfig
from tasks.signature_config import DEFAULT_PRESET, PRESETS, SignatureOrPreset
from tasks.stage_config import Name, Names, StageConfig

# ------------------------------------------------------------------------------------- sources


class FilesSource(StageConfig):
    """Local files: JSON Lines (.jsonl, .jsonl.gz, .jsonl.zst), Parquet or CSV."""

    model_config = ConfigDict(title="Files")

    kind: Literal["files"] = "files"
    paths: Names = Field(title="Paths", description="Files or glob patterns.", min_length=1)
    format: Literal["auto", "jsonl", "parquet", "csv"] = Field(
        "auto", title="Format", description="auto: by the file's ending."
    )


class DatasetSource(StageConfig):
    """A Hugging Face dataset: a folder on disk, or a hub id (which needs online: true)."""

    model_config = ConfigDict(title="Hugging Face dataset")

    kind: Literal["dataset"] = "dataset"
    path: str = Field(title="Folder or hub id", min_length=1)
    name: str | None = Field(None, title="Configuration name")
    split: str = Field("train", title="Split")
    revision: str | None = Field(None, title="Revision", description="Hub commit, tag or branch.")
    online: bool = Field(
        default=False, title="Allow network", description="Permit downloads from the hub."
    )


Source = Annotated[FilesSource | DatasetSource, Field(discriminator="kind")]


# ------------------------------------------------------------------------------ field mappings


class AutoFields(StageConfig):
    """Choose by the first record's fields: messages, instruction, prompt + completion, or text."""

    model_config = ConfigDict(title="Automatic")

    kind: Literal["auto"] = "auto"


class TextFields(StageConfig):
    """Plain text, optionally with a field that holds the prompt as a prefix of the text."""

    model_config = ConfigDict(title="Text")

    kind: Literal["text"] = "text"
    text: str = Field("text", title="Text field")
    prompt: str | None = Field(
        None,
        title="Prompt field",
        description="A prefix of the text that is the prompt; may be empty.",
    )


class PromptCompletionFields(StageConfig):
    """Two fields; the row's text is prompt + separator + completion, the prompt is masked."""

    model_config = ConfigDict(title="Prompt, completion")

    kind: Literal["prompt_completion"] = "prompt_completion"
    prompt: str = Field("prompt", title="Prompt field")
    completion: str = Field("completion", title="Completion field")
    separator: str = Field(
        "", title="Separator", description="Put between the two; part of the prompt."
    )


class InstructionFields(StageConfig):
    """Instruction rows (Alpaca style): instruction, optional input, output."""

    model_config = ConfigDict(title="Instruction")

    kind: Literal["instruction"] = "instruction"
    instruction: str = Field("instruction", title="Instruction field")
    input: str = Field("input", title="Input field", description="May be absent or empty.")
    output: str = Field("output", title="Output field")
    style: Literal["headings", "plain"] = Field(
        "headings", title="Style", description="headings: Alpaca's. plain: one line each."
    )


class ChatFields(StageConfig):
    """Chat messages in the tokenizer's template; the last assistant turn is the completion."""

    model_config = ConfigDict(title="Chat")

    kind: Literal["chat"] = "chat"
    messages: str = Field("messages", title="Messages field")


Fields = Annotated[
    AutoFields | TextFields | PromptCompletionFields | InstructionFields | ChatFields,
    Field(discriminator="kind"),
]


class RowLimits(StageConfig):
    """What a row must satisfy to be kept, and how many may fail before the batch is refused."""

    min_chars: int = Field(1, ge=1, title="Least characters")
    max_chars: int = Field(1_000_000, ge=1, title="Most characters")
    min_tokens: int = Field(
        2, ge=2, title="Least tokens", description="One token predicts nothing."
    )
    max_tokens: int = Field(262_144, ge=2, title="Most tokens")
    max_line_bytes: int = Field(
        33_554_432,
        ge=1024,
        title="Most bytes a line",
        description="Longer lines are skipped unread.",
    )
    max_rejected_share: float = Field(
        0.05, ge=0.0, le=1.0, title="Most rejected rows", description="Share of the batch, 0 to 1."
    )


class RowsConfig(StageConfig):
    """Where rows come from and how their fields are read; for training rows and for queries."""

    source: Source = Field(title="Source")
    fields: Fields = Field(AutoFields(), title="Fields")
    id_field: str | None = Field(
        None, title="Id field", description="Empty: the id is a hash of source and content."
    )
    label_field: str | None = Field(
        None, title="Label field", description="Kept with the row; used by evaluation only."
    )
    limits: RowLimits = Field(RowLimits(), title="Limits")


# --------------------------------------------------------------------------------------- model


class ModelConfig(StageConfig):
    """A causal language model: registry name, folder, .gguf file or Hugging Face id."""

    name: str = Field(
        "smollm2-135m-instruct",
        title="Model",
        description="A name from `rise models ls`, a folder, a .gguf file or a Hugging Face id.",
        min_length=1,
    )
    revision: str | None = Field(None, title="Revision", description="For Hugging Face ids.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        title="Number format",
        description="auto: bfloat16 where the device has it, else float32.",
    )
    online: bool = Field(
        default=False, title="Allow network", description="Permit downloads from the hub."
    )
    trust_remote_code: bool = Field(
        default=False,
        title="Run the model's own code",
        description="Only for models that you trust.",
    )


# -------------------------------------------------------------------------------------- index


class DriftLimits(StageConfig):
    """When appended rows are too unlike the calibration sample.

    Measured as the share of their energy that the kept directions capture, relative to the
    sample's. Outside of every identity: the limits decide whether a build goes on, never a number.
    """

    warn_below: float = Field(0.9, ge=0.0, le=1.0, title="Warn below")
    refuse_below: float = Field(0.7, ge=0.0, le=1.0, title="Refuse below")

    @model_validator(mode="after")
    def _refuse_after_warning(self) -> "DriftLimits":
        if self.refuse_below > self.warn_below:
            raise ValueError(
                f"refuse_below is {self.refuse_below} but warn_below {self.warn_below}; raise "
                "warn_below, so that a warning comes first."
            )
        return self


class IndexConfig(StageConfig):
    """One index: which model reads which positions, into which signatures."""

    model: ModelConfig = Field(ModelConfig(), title="Model")
    signature: SignatureOrPreset = Field(
        PRESETS[DEFAULT_PRESET],
        title="Signature",
        description="In YAML also the name of a preset. Fields left out are the paper's.",
    )
    positions: Literal["all", "completion"] = Field(
        "all", title="Positions of training rows", description="completion: prompts are masked."
    )
    block_rows: int = Field(
        1024,
        ge=1,
        title="Rows a block",
        description="One block is one Zarr shard and one unit of resume.",
    )
    drift: DriftLimits = Field(
        DriftLimits(),
        title="Drift of appended rows",
        description="For calibrated sketches. Changes no number, so it is no part of the identity.",
    )


# ------------------------------------------------------------------------------------- scores


class ScoreConfig(StageConfig):
    """What is kept of the scores."""

    top_k: int = Field(
        10, ge=1, title="Rows a query", description="Strongest proponents kept a query."
    )
    full_matrix: bool = Field(default=False, title="Keep the full score matrix")
    shortlist: int | None = Field(
        None,
        ge=1,
        title="Rows on a query's shortlist",
        description=(
            "Codes choose so many rows a query, and the float rows kept beside them decide which "
            "are the strongest. Empty: codes decide. Values of rows come from codes either way."
        ),
    )

    @model_validator(mode="after")
    def _shortlist_holds_the_best(self) -> "ScoreConfig":
        if self.shortlist is None:
            return self
        if self.shortlist < self.top_k:
            raise ValueError(
                f"shortlist is {self.shortlist} but top_k {self.top_k}; raise shortlist."
            )
        if self.full_matrix:
            raise ValueError(
                "full_matrix keeps the score of every row, a shortlist looks again at a few; "
                "leave one of them out."
            )
        return self


class RuntimeConfig(StageConfig):
    """Speed and patience; recorded with a run, never part of an identity."""

    device: str = Field("auto", title="Device", description="auto, cpu, cuda, cuda:1 or mps.")
    batch_tokens: int = Field(4096, ge=1, title="Tokens a batch")
    head_bytes: int = Field(
        268_435_456,
        ge=1_048_576,
        title="Bytes for logits",
        description="Bounds the read-out's memory.",
    )
    scheduler: str = Field(
        "threads",
        title="Dask scheduler",
        description="threads, local, or an address like tcp://host:8786.",
    )
    workers: int | None = Field(
        None, ge=1, title="Scoring workers", description="Empty: one a core."
    )
    index_workers: int = Field(
        1,
        ge=1,
        title="Indexing processes",
        description=(
            "Processes on this machine that sketch blocks, each with the model on a device of its "
            "own: one a GPU. 1: the run itself does it."
        ),
    )
    index_cluster: str | None = Field(
        None,
        pattern=r"^[a-z]+://\S+:\d+$",
        title="Dask cluster for indexing",
        description=(
            "Address of a scheduler, like tcp://host:8786, whose workers sketch blocks instead. "
            "They must see the store and the model at the same paths."
        ),
    )
    wait_seconds: float = Field(
        600.0,
        ge=0.0,
        title="Wait for another run",
        description="Seconds that a run waits for another one that writes the same corpus, index, "
        "scores or release; then it is refused. 0: at once.",
    )
    timeout_seconds: float | None = Field(
        None,
        gt=0.0,
        title="Time limit",
        description="Seconds that a run may take, waiting included; then it is stopped, and what "
        "it has finished is kept. Empty: none.",
    )

    @model_validator(mode="after")
    def _one_kind_of_workers(self) -> "RuntimeConfig":
        if self.index_cluster is not None and self.index_workers > 1:
            raise ValueError(
                f"index_workers is {self.index_workers} and index_cluster {self.index_cluster}, "
                "but blocks are sketched by processes of this machine or by those of a cluster; "
                "leave one of them out."
            )
        return self


class PipelineConfig(StageConfig):
    """The whole path: ingest, index, query set, scores, release."""

    store: str = Field("rise-store", title="Store folder", min_length=1)
    corpus: Name = Field("main", title="Corpus name")
    index: Name = Field("main", title="Index name")
    query_set: Name = Field("main", title="Query set name")
    release: Name = Field("main", title="Release name")
    rows: RowsConfig = Field(title="Training rows")
    queries: RowsConfig = Field(title="Queries")
    indexing: IndexConfig = Field(IndexConfig(), title="Indexing")
    scoring: ScoreConfig = Field(ScoreConfig(), title="Scoring")
    releasing: ReleaseConfig = Field(ReleaseConfig(), title="Releasing")
    also: dict[Name, ReleaseConfig] = Field(
        {}, title="Further releases", description="Of the same scores: name to settings."
    )
    quality: QualityConfig = Field(QualityConfig(), title="Quality gates")
    drift: DriftConfig = Field(
        DriftConfig(),
        title="Drift of releases",
        description="Beyond a limit `latest` stays where it is, and the run fails.",
    )
    refresh: RefreshConfig = Field(
        RefreshConfig(), title="Refreshing", description="Of `rise refresh` and its flow alone."
    )
    runtime: RuntimeConfig = Field(RuntimeConfig(), title="Runtime")

    @model_validator(mode="after")
    def _names_differ(self) -> "PipelineConfig":
        if self.release in self.also:
            raise ValueError(
                f"also has a release {self.release!r}, which is the name of the first release "
                "too; name one of them otherwise."
            )
        return self

    @property
    def releases(self) -> dict[str, ReleaseConfig]:
        """Every release of the run by name, the first one first."""
        return {self.release: self.releasing, **self.also}
