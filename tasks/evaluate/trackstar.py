"""TrackStar through the program bergson, where it is found; refused where it is not.

It runs as a program, so that it may live in an environment of its own, whatever versions of
libraries it wants. Handed over are files: the model's folder, rows and queries, which it reads
without a chat template (see `trackstar_files`). It leaves a table of scores whose layout it
describes itself (``info.json``).
"""

import functools
import json
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tasks.backbone import load_tokenizer, resolve_device
from tasks.evaluate.gradient_settings import TrackStarConfig
from tasks.evaluate.method import Cost, MethodRefused, MethodScores, PreparedTask
from tasks.evaluate.reading import read_texts
from tasks.evaluate.trackstar_files import plain_model, special_tokens, write_texts
from tasks.models import resolve_model
from tasks.progress import NO_PROGRESS, Progress

TRACKSTAR_VERSION = 2
"""Raised whenever the same settings would give other numbers."""

PACKAGE = "bergson"
LOG_FILE = "bergson.log"
TAIL_LINES = 5


@dataclass(frozen=True)
class TrackStar:
    """Projected gradients through the inverse of their autocorrelation, at unit length."""

    config: TrackStarConfig = field(default_factory=TrackStarConfig)

    @property
    def name(self) -> str:
        """The method, and who computes it."""
        return f"TrackStar ({PACKAGE})"

    @property
    def settings(self) -> dict[str, object]:
        """Every setting but where the program lies, and its version."""
        found = shutil.which(self.config.program)
        return {
            "version": TRACKSTAR_VERSION,
            PACKAGE: None if found is None else program_version(found),
            **self.config.model_dump(mode="json", exclude={"program"}),
        }

    def scores(self, task: PreparedTask, *, progress: Progress = NO_PROGRESS) -> MethodScores:
        """Score every row for every query; a text without a predicted token scores 0.

        Raises:
            MethodRefused: The program is not found.
            RuntimeError: It ended with an error, or left no scores; its output is kept.
        """
        program = shutil.which(self.config.program)
        if program is None:
            raise MethodRefused(
                f"the program {self.config.program} is not found. Install it (pip install "
                f"{PACKAGE}, in an environment of its own if its libraries do not fit) and give "
                "its path, or leave TrackStar out."
            )
        masked = self.config.positions == "completion"
        most = self.config.batch_tokens
        rows = read_texts(task.model, task.rows, most=most, masked=masked)
        queries = read_texts(task.model, task.queries, most=most, masked=True)
        progress.start(total=1, unit="runs")
        task.work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=task.work) as folder:
            started = time.monotonic()
            home = Path(folder)
            around = special_tokens(load_tokenizer(task.model))
            scored = [task.rows[n] for n in rows.predicted]
            asked = [task.queries[n] for n in queries.predicted]
            write_texts(home / "rows.jsonl", scored, around, masked=masked)
            write_texts(home / "queries.jsonl", asked, around, masked=True)
            plain_model(resolve_model(task.model).path, home / "model")
            self._run(program, task, home, batch_tokens=rows.most)
            found = read_scores(home / "out" / "scores")
            seconds = time.monotonic() - started
        expected = (len(rows.predicted), len(queries.predicted))
        if found.shape != expected:
            raise RuntimeError(
                f"{PACKAGE} scored {found.shape[0]} rows for {found.shape[1]} queries, but "
                f"{expected[0]} and {expected[1]} were asked for."
            )
        scores = np.zeros((len(task.rows), len(task.queries)), dtype=np.float32)
        scores[np.ix_(rows.predicted, queries.predicted)] = found
        progress.advance(1)
        cost = Cost(
            index_seconds=seconds,
            query_seconds=0.0,
            n_tokens=rows.n_tokens,
        )
        note = f"{PACKAGE} {program_version(program)}; seconds are of loading, rows and queries"
        notes = (*rows.notes("rows"), *queries.notes("queries"))
        return MethodScores(scores, cost, (note, *notes))

    def _run(self, program: str, task: PreparedTask, home: Path, *, batch_tokens: int) -> None:
        log = task.work / LOG_FILE
        with log.open("wb") as stream:
            done = subprocess.run(
                [program, *self._arguments(home, batch_tokens)],
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=_environment(task, home),
                check=False,
            )
        if done.returncode != 0 or not (home / "out" / "scores" / "info.json").is_file():
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise RuntimeError(
                f"{PACKAGE} ended with code {done.returncode} and no scores. Its last lines: "
                f"{' / '.join(lines[-TAIL_LINES:])}. All of them are in {log}."
            )

    def _arguments(self, home: Path, batch_tokens: int) -> list[str]:
        arguments = ["trackstar", str(home / "out"), "--model", str(home / "model")]
        for which, file in (("data", "rows.jsonl"), ("query", "queries.jsonl")):
            arguments += [f"--{which}.dataset", str(home / file)]
            arguments += [f"--{which}.prompt_column", "prompt"]
            arguments += [f"--{which}.completion_column", "completion", f"--{which}.truncation"]
        return [
            *arguments,
            *("--query.aggregation", "none"),
            *("--precision", "fp32"),
            *("--projection_dim", str(self.config.projection_dim)),
            *("--token_batch_size", str(batch_tokens)),
            "--unit_normalize",
        ]


def read_scores(folder: Path) -> npt.NDArray[np.float32]:
    """Return the scores that bergson left, float32 [rows, queries].

    Raises:
        RuntimeError: Some were not written.
    """
    about = json.loads((folder / "info.json").read_text(encoding="utf-8"))
    table = np.fromfile(folder / "scores.bin", dtype=np.dtype(about["dtype"]))
    numbers = range(about["num_scores"])
    if not all(table[f"written_{number}"].all() for number in numbers):
        raise RuntimeError(f"{PACKAGE} left scores unwritten in {folder}. Run it again.")
    return np.stack([table[f"score_{number}"] for number in numbers], axis=1).astype(np.float32)


@functools.lru_cache(maxsize=4)
def program_version(program: str) -> str:
    """Return the version of the package that a program belongs to, or "of unknown version"."""
    python = Path(program).resolve().with_name("python")
    if not python.is_file():
        return "of unknown version"
    question = f"from importlib.metadata import version; print(version({PACKAGE!r}))"
    done = subprocess.run(
        [str(python), "-c", question], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else "of unknown version"


def _environment(task: PreparedTask, home: Path) -> dict[str, str]:
    """Return the environment of the program: no network, no copies of texts outside ``home``."""
    device = resolve_device(task.runtime.device)
    own = {"HF_DATASETS_CACHE": str(home / "datasets")}
    if not task.model.online:
        own |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    if device == "cpu":
        own["CUDA_VISIBLE_DEVICES"] = ""
    elif device.startswith("cuda:"):
        own["CUDA_VISIBLE_DEVICES"] = device.removeprefix("cuda:")
    return {**os.environ, **own}
