"""EK-FAC through the package kronfluence, where it is installed; refused where it is not.

What is handed over is ours: which layers, the loss of a text, and the texts. Higher scores are
stronger proponents there as well: the influence of a row is its gradient against the query's,
through the inverse curvature.
"""

import importlib
import importlib.metadata
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tasks.backbone import TokenRow, resolve_device
from tasks.evaluate.ekfac_task import language_task, padded_texts
from tasks.evaluate.gradient_parameters import linear_layers
from tasks.evaluate.gradient_settings import EkFacConfig
from tasks.evaluate.method import Cost, MethodRefused, MethodScores, PreparedTask
from tasks.evaluate.reading import read_task
from tasks.memory import FLOAT32_BYTES
from tasks.progress import NO_PROGRESS, Progress
from tasks.trainer import load_whole

EKFAC_VERSION = 2
"""Raised whenever the same settings would give other numbers."""

PACKAGE = "kronfluence"
FACTORS, SCORES = "factors", "scores"
QUERY_BYTES = 2 << 30
"""Gradients of so many bytes are held of the queries of a batch, or of ``batch_rows`` of them."""


@dataclass(frozen=True)
class EkFac:
    """Influence functions with eigenvalue-corrected Kronecker factors."""

    config: EkFacConfig = field(default_factory=EkFacConfig)

    @property
    def name(self) -> str:
        """The strategy, and who computes it."""
        names = {"ekfac": "EK-FAC", "kfac": "K-FAC", "diagonal": "diagonal", "identity": "identity"}
        return f"{names[self.config.strategy]} ({PACKAGE})"

    @property
    def settings(self) -> dict[str, object]:
        """Every setting, and the package's version."""
        return {
            "version": EKFAC_VERSION,
            PACKAGE: _package_version(),
            **self.config.model_dump(mode="json"),
        }

    def scores(self, task: PreparedTask, *, progress: Progress = NO_PROGRESS) -> MethodScores:
        """Score every row for every query; a text without a predicted token scores 0.

        Raises:
            MethodRefused: The package is not installed, or the model has no such linear layers.
        """
        version = _package_version()
        if version is None:
            raise MethodRefused(
                f"the package {PACKAGE} is not installed. Install it (pip install {PACKAGE}) "
                "beside this one, or leave EK-FAC out."
            )
        read = read_task(task, self.config)
        progress.start(total=2, unit="steps")
        with tempfile.TemporaryDirectory(dir=_made(task.work)) as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of kronfluence's own calls
            started = time.monotonic()
            analyzer, layers, n_numbers = self._analyzer(task, Path(folder))
            loaded = time.monotonic()
            rows = [read.rows.rows[place] for place in read.rows.predicted]
            queries = [read.queries.rows[place] for place in read.queries.predicted]
            self._fit(analyzer, rows)
            progress.advance(1)
            fitted = time.monotonic()
            found = self._pairwise(analyzer, rows, queries, n_numbers=n_numbers)
            progress.advance(1)
            over = time.monotonic()
        scores = np.zeros((len(task.rows), len(task.queries)), dtype=np.float32)
        scores[np.ix_(read.rows.predicted, read.queries.predicted)] = found
        cost = Cost(
            index_seconds=fitted - loaded,
            query_seconds=over - fitted,
            n_tokens=read.rows.n_tokens,
            load_seconds=loaded - started,
        )
        note = f"{PACKAGE} {version}, {len(layers)} linear layers; rows are read again to be scored"
        return MethodScores(scores, cost, (note, *read.notes))

    def _analyzer(self, task: PreparedTask, folder: Path) -> tuple[Any, list[str], int]:
        """Return kronfluence's analyzer of the task's model, its layers, and their weights."""
        library = importlib.import_module(f"{PACKAGE}.analyzer")
        device = resolve_device(task.runtime.device)
        model = load_whole(task.model).to(device)
        layers = linear_layers(
            model, blocks=self.config.blocks, pattern=self.config.pattern, name=task.model.name
        )
        n_numbers = sum(model.get_submodule(own).weight.numel() for own in layers)
        asked = language_task(layers, mean=self.config.loss == "mean")
        torch.manual_seed(self.config.seed)
        analyzer = library.Analyzer(
            analysis_name="rise",
            model=library.prepare_model(model=model, task=asked),
            task=asked,
            cpu=device == "cpu",
            disable_tqdm=True,
            output_dir=str(folder),
        )
        loading = importlib.import_module(f"{PACKAGE}.utils.dataset").DataLoaderKwargs
        analyzer.set_dataloader_kwargs(loading(num_workers=0, collate_fn=padded_texts))
        return analyzer, layers, n_numbers

    def _fit(self, analyzer: Any, rows: Sequence[TokenRow]) -> None:
        arguments = importlib.import_module(f"{PACKAGE}.arguments")
        analyzer.fit_all_factors(
            factors_name=FACTORS,
            dataset=list(rows),
            per_device_batch_size=self.config.batch_rows,
            factor_args=arguments.FactorArguments(strategy=self.config.strategy),
        )

    def _pairwise(
        self,
        analyzer: Any,
        rows: Sequence[TokenRow],
        queries: Sequence[TokenRow],
        *,
        n_numbers: int,
    ) -> npt.NDArray[np.float32]:
        arguments = importlib.import_module(f"{PACKAGE}.arguments")
        # for every batch of queries the gradients of all rows are computed once more
        together = max(self.config.batch_rows, QUERY_BYTES // (FLOAT32_BYTES * n_numbers))
        analyzer.compute_pairwise_scores(
            scores_name=SCORES,
            factors_name=FACTORS,
            query_dataset=list(queries),
            train_dataset=list(rows),
            score_args=arguments.ScoreArguments(damping_factor=self.config.damping),
            per_device_query_batch_size=min(together, len(queries)),
            per_device_train_batch_size=self.config.batch_rows,
        )
        found: dict[str, Tensor] = analyzer.load_pairwise_scores(scores_name=SCORES)
        return sum(found.values(), start=torch.zeros(())).float().T.cpu().numpy()


def _package_version() -> str | None:
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return None


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
