"""Settings of an evaluation: which methods, on which tasks, with which model, measured how.

A task in YAML is a name (a task that comes with the suite, read from the `data` folder) or a
mapping (labelled rows of the user's, or rows that a behaviour is planted in). A method is a name,
or a mapping with settings of its own. Only what changes a number enters what a kept result is known
by: `work`, `runtime` and the choice of further tasks or methods do not.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue, model_validator

from tasks.config import ModelConfig, RowsConfig, RuntimeConfig
from tasks.evaluate.counterfactual_config import CounterfactualOrSize
from tasks.evaluate.plant_config import PlantConfig
from tasks.stage_config import Name, Names, StageConfig
from tasks.training_config import TrainingConfig

BuiltInName = Literal[
    "howdy-plain",
    "howdy-moved",
    "howdy-completion",
    "finmed",
    "quality-headlines",
    "brainrot-raw",
    "brainrot-matched",
]
Paradigm = Literal["predict", "recall"]

DEFAULT_METHODS = (
    "rise-compact",
    "rise-paper",
    "mean-hidden-state",
    "bm25",
    "tf-idf",
    "length",
    "random",
)
"""What costs little beside the forward passes of RISE."""


class BuiltInTask(StageConfig):
    """A task that the suite knows; its texts are read from the data folder."""

    kind: Literal["built_in"] = "built_in"
    name: BuiltInName = Field(title="Task")


class LabelledTask(StageConfig):
    """Your own rows: those that carry a query's label are right for it."""

    kind: Literal["labelled"] = "labelled"
    name: Name = Field(title="Name")
    rows: RowsConfig = Field(
        title="Rows",
        description="With label_field: a label, or any column that says where a row came from.",
    )
    queries: RowsConfig | None = Field(
        None,
        title="Queries",
        description="With label_field. Empty: rows are taken out of the pool.",
    )
    taken_queries: int = Field(
        20,
        ge=1,
        title="Rows taken as queries",
        description="Of each label, by seed; used where there are no queries.",
    )
    query_labels: Names = Field(
        (),
        title="Labels asked about",
        description="Empty: every label but the most frequent, or all where they are as frequent.",
    )


class PlantedTask(StageConfig):
    """Your own rows, without labels: a behaviour is planted in some of them, then looked for."""

    kind: Literal["planted"] = "planted"
    name: Name = Field("planted", title="Name")
    rows: RowsConfig = Field(title="Rows")
    plant: PlantConfig = Field(PlantConfig(), title="Behaviour")


def _named_task(value: object) -> object:
    return {"kind": "built_in", "name": value} if isinstance(value, str) else value


TaskChoice = Annotated[
    Annotated[BuiltInTask | LabelledTask | PlantedTask, Field(discriminator="kind")],
    BeforeValidator(_named_task),
]


class MethodChoice(StageConfig):
    """A method and how it is set."""

    method: Name = Field(title="Method", description="A name from `rise evaluate methods`.")
    name: str = Field("", title="Shown as", description="Empty: the method's own name.")
    settings: dict[str, JsonValue] = Field({}, title="Settings", description="Of this method.")


def named_method(value: object) -> object:
    """Read a method's bare name as a choice of it."""
    return {"method": value} if isinstance(value, str) else value


MethodOrName = Annotated[MethodChoice, BeforeValidator(named_method)]


class TaskLimits(StageConfig):
    """How much of a task is used; what is left out is stated in the tables."""

    rows: int | None = Field(None, ge=2, title="Most rows", description="Drawn by seed.")
    queries: int | None = Field(None, ge=1, title="Most queries", description="Drawn by seed.")


class MeasureConfig(StageConfig):
    """What is measured on the scores."""

    cuts: Annotated[tuple[int, ...], Field(strict=False)] = Field(
        (10, 50), title="Cuts", description="Rows at the top (and bottom) that metrics look at."
    )
    permutations: int = Field(20, ge=0, title="Shuffles of the positives", description="0: none.")
    resamples: int = Field(2_000, ge=1, title="Bootstrap resamples")
    example_queries: int = Field(3, ge=0, title="Queries shown as examples")
    example_rows: int = Field(5, ge=1, title="Rows shown for each")

    @model_validator(mode="after")
    def _cuts_are_rows(self) -> "MeasureConfig":
        if not self.cuts or min(self.cuts) < 1 or len(set(self.cuts)) < len(self.cuts):
            raise ValueError(f"cuts must be different numbers from 1 on, got {self.cuts}.")
        return self


class EvaluateConfig(StageConfig):
    """Methods times tasks: what is run, on what, and what is kept."""

    work: str = Field(
        "rise-evaluate",
        title="Work folder",
        description="Results are kept here: an interrupted run goes on.",
        min_length=1,
    )
    data: str | None = Field(
        None, title="Data folder", description="With the folders howdy, finmed, ..."
    )
    model: ModelConfig = Field(ModelConfig(), title="Model")
    tasks: Annotated[tuple[TaskChoice, ...], Field(strict=False)] = Field(
        title="Tasks", min_length=1
    )
    paradigms: Annotated[tuple[Paradigm, ...], Field(strict=False)] = Field(
        ("predict",),
        title="Paradigms",
        description="predict: the model as it is. recall: fine-tuned on the pool first.",
        min_length=1,
    )
    methods: Annotated[tuple[MethodOrName, ...], Field(strict=False)] = Field(
        tuple(MethodChoice(method=name) for name in DEFAULT_METHODS), title="Methods", min_length=1
    )
    training: TrainingConfig = Field(
        TrainingConfig(), title="Training", description="On the pool, for the paradigm recall."
    )
    limits: TaskLimits = Field(TaskLimits(), title="Limits")
    limits_of: dict[str, TaskLimits] = Field(
        {}, title="Limits of single tasks", description="Name of a task to its limits."
    )
    measures: MeasureConfig = Field(MeasureConfig(), title="Measures")
    counterfactual: CounterfactualOrSize | None = Field(
        None,
        title="Counterfactual measures",
        description="What training does: LDS, tail-patch, closed loop; in YAML also cpu or gpu. "
        "Of the paradigm predict. Empty: none, as they train many times.",
    )
    counterfactual_tasks: Names = Field(
        (), title="Tasks with counterfactual measures", description="Empty: all."
    )
    seed: int = Field(0, ge=0, lt=2**32, title="Seed")
    runtime: RuntimeConfig = Field(RuntimeConfig(), title="Runtime")

    @model_validator(mode="after")
    def _counterfactual_of_predict(self) -> "EvaluateConfig":
        if self.counterfactual is not None and "predict" not in self.paradigms:
            raise ValueError(
                "counterfactual measures are of the paradigm predict, but paradigms are "
                f"{list(self.paradigms)}; add predict, or leave counterfactual out."
            )
        return self

    @model_validator(mode="after")
    def _tasks_differ(self) -> "EvaluateConfig":
        names = [task.name for task in self.tasks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"tasks must have different names; {', '.join(twice)} comes twice.")
        for field, named in (
            ("limits_of", set(self.limits_of)),
            ("counterfactual_tasks", set(self.counterfactual_tasks)),
        ):
            unknown = sorted(named - set(names))
            if unknown:
                raise ValueError(f"{field} names {', '.join(unknown)}, but tasks are {names}.")
        needs_data = [task.name for task in self.tasks if isinstance(task, BuiltInTask)]
        if needs_data and self.data is None:
            raise ValueError(
                f"{', '.join(needs_data)} are read from a data folder; set data (--data), or give "
                "tasks of your own."
            )
        return self

    def measures_training(self, task: str, paradigm: Paradigm) -> bool:
        """Tell whether the counterfactual measures are taken on a task.

        They train from the model that is attributed. For "recall" that one has seen the rows, and
        to train on some of them once more says nothing of what they did.
        """
        chosen = self.counterfactual_tasks
        asked = self.counterfactual is not None and (not chosen or task in chosen)
        return asked and paradigm == "predict"

    def limits_for(self, task: str) -> TaskLimits:
        """Return the limits of a task."""
        return self.limits_of.get(task, self.limits)


def settings_of(value: StageConfig) -> Mapping[str, Any]:
    """Return settings as JSON values, defaults included."""
    return value.model_dump(mode="json")
