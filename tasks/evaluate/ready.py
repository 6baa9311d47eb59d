"""A task made ready: its texts read, and for "recall" the model fine-tuned on its pool."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from storage.files import short_id
from tasks.backbone import load_tokenizer, resolve_device, resolve_dtype
from tasks.config import ModelConfig
from tasks.evaluate.built_in import read_built_in
from tasks.evaluate.method import PreparedTask
from tasks.evaluate.own_rows import labelled_task, planted_task
from tasks.evaluate.registry import ChosenMethod
from tasks.evaluate.settings import (
    BuiltInTask,
    EvaluateConfig,
    LabelledTask,
    Paradigm,
    TaskChoice,
    TaskLimits,
    settings_of,
)
from tasks.evaluate.texts import TaskTexts, labelled_digest, limited, pair_digest
from tasks.models import from_anywhere, model_fingerprint, resolve_model
from tasks.progress import NO_PROGRESS, Progress
from tasks.training import train

TRAININGS = "trainings"
TASKS = "tasks"
POOLS = "pools"
KEPT_TASKS = 16
"""Tasks that a process keeps in memory, as texts."""


@dataclass(frozen=True, eq=False)
class ReadyTask:
    """A task that methods can run on.

    Attributes:
        texts: What it is made of, limits applied.
        whole: The same before any limit; LDS draws its few rows and queries from it.
        paradigm: predict or recall.
        model: What is attributed.
        checkpoints: Of the fine-tuning, oldest first.
        training: What the fine-tuning was: id, losses, tokens, seconds, settings; None for predict.
        lengths: Tokens of the rows.
        model_id: Identity of the model and its number format.
    """

    texts: TaskTexts
    whole: TaskTexts
    paradigm: Paradigm
    model: ModelConfig
    checkpoints: Sequence[Path]
    training: dict[str, Any] | None
    lengths: Sequence[int]
    model_id: str

    @property
    def identity(self) -> dict[str, Any]:
        """What its results depend on, beside the method."""
        return {
            "texts": self.texts.identity,
            "model": self.model_id,
            "checkpoints": self.training["id"] if self.training else None,
        }

    @property
    def name(self) -> str:
        """Task and paradigm, for people."""
        return f"{self.texts.name} ({self.paradigm})"

    def prepared(self, config: EvaluateConfig, texts: TaskTexts | None = None) -> PreparedTask:
        """Return the task as methods see it; `placed` gives each its folders.

        Args:
            config: The evaluation.
            texts: Of the task; None: `texts`, limits applied.
        """
        texts = self.texts if texts is None else texts
        return PreparedTask(
            name=self.name,
            rows=texts.rows,
            queries=texts.queries,
            positives=texts.positives,
            model=self.model,
            checkpoints=self.checkpoints,
            runtime=config.runtime,
            work=Path(config.work).absolute() / TASKS,
            seed=config.seed,
        )

    def placed(
        self, config: EvaluateConfig, method: ChosenMethod, task: PreparedTask
    ) -> PreparedTask:
        """Return this task, or a small one made of it, with folders of a method's own.

        ``work`` is of the task, ``pool_work`` of its rows and model.
        """
        known = {**self.identity, "texts": pair_digest(task.rows, task.queries)}
        name = f"{self.texts.name}-{self.paradigm}-{short_id(known)}"
        pool = short_id({"rows": labelled_digest(task.rows), "model": self.model_id})
        work = Path(config.work).absolute()
        folders = [work / TASKS / name / method.folder, work / POOLS / pool / method.folder]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        return replace(task, work=folders[0], pool_work=folders[1])


def read_task(config: EvaluateConfig, name: str) -> TaskTexts:
    """Read a task's texts and apply its limits; the process keeps what it read.

    Raises:
        ValueError: No such task, its files are missing or damaged, or nothing is right in it.
    """
    return _limited(_Asked(config, NO_PROGRESS), name)


def ready_task(
    config: EvaluateConfig, name: str, paradigm: Paradigm, *, progress: Progress = NO_PROGRESS
) -> ReadyTask:
    """Read a task, and fine-tune the model on its pool where the paradigm asks for it.

    The process keeps it. A fine-tuning that was done before is found.

    Raises:
        ValueError: See `read_task` and `tasks.training.train`.
    """
    return _ready(_Asked(config, progress), name, paradigm)


class _Asked:
    """Settings as a key of a cache: equal where their JSON is, whoever watches."""

    def __init__(self, config: EvaluateConfig, progress: Progress) -> None:
        self.config, self.progress = config, progress
        self._json = config.model_dump_json()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Asked) and self._json == other._json

    def __hash__(self) -> int:
        return hash(self._json)


@lru_cache(maxsize=KEPT_TASKS)
def _read(asked: _Asked, name: str) -> TaskTexts:
    config = asked.config
    task = next((one for one in config.tasks if one.name == name), None)
    if task is None:
        raise ValueError(f"no task {name!r}; there are {[one.name for one in config.tasks]}.")
    return _texts(config, task)


@lru_cache(maxsize=KEPT_TASKS)
def _limited(asked: _Asked, name: str) -> TaskTexts:
    config = asked.config
    return limited(_read(asked, name), config.limits_for(name), seed=config.seed)


@lru_cache(maxsize=KEPT_TASKS)
def _ready(asked: _Asked, name: str, paradigm: Paradigm) -> ReadyTask:
    config = asked.config
    texts = _limited(asked, name)
    model = from_anywhere(config.model)
    checkpoints: tuple[Path, ...] = ()
    training: dict[str, Any] | None = None
    if paradigm == "recall":
        model, checkpoints, training = _fine_tuned(config, texts, asked.progress)
    device = resolve_device(config.runtime.device)
    return ReadyTask(
        texts=texts,
        whole=limited(_read(asked, name), TaskLimits(), seed=config.seed),
        paradigm=paradigm,
        model=model,
        checkpoints=checkpoints,
        training=training,
        lengths=load_tokenizer(model).count([row.text for row in texts.rows]),
        model_id=short_id(
            {
                "model": model_fingerprint(resolve_model(model).path),
                "dtype": resolve_dtype(model.dtype, device=device),
            }
        ),
    )


def _texts(config: EvaluateConfig, task: TaskChoice) -> TaskTexts:
    if isinstance(task, BuiltInTask):
        return read_built_in(task.name, Path(config.data or "."))
    tokenizer = load_tokenizer(config.model)
    if isinstance(task, LabelledTask):
        return labelled_task(task, tokenizer, seed=config.seed)
    return planted_task(task, tokenizer)


def _fine_tuned(
    config: EvaluateConfig, texts: TaskTexts, progress: Progress
) -> tuple[ModelConfig, tuple[Path, ...], dict[str, Any]]:
    run = train(
        from_anywhere(config.model),
        texts.rows,
        config.training,
        Path(config.work).absolute() / TRAININGS,
        runtime=config.runtime,
        progress=progress,
    )
    # as settings say, but for the place: its own code stays allowed, its revision was the hub's
    model = config.model.model_copy(update={"name": str(run.final), "revision": None})
    about = {
        "id": run.run_id,
        "losses": list(run.losses),
        "n_tokens": run.n_tokens,
        "seconds": run.seconds,
        "settings": settings_of(config.training),
    }
    return model, run.checkpoints, about
