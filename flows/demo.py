"""The demo: the whole path on a real model and real text, and a look at what came out."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.artifacts import readable_bytes
from flows.cli_look import shortened
from flows.pipeline import PipelineReport, pipeline
from flows.terminal import say, show_facts, show_table, show_warnings
from tasks.config import (
    FilesSource,
    IndexConfig,
    ModelConfig,
    PipelineConfig,
    PromptCompletionFields,
    RowsConfig,
    RuntimeConfig,
    ScoreConfig,
)
from tasks.demo_corpus import DemoFiles, write_demo_corpus
from tasks.evaluation import compare_methods, strongest_rows
from tasks.models import fetch_model
from tasks.release_config import ReleaseConfig, TopK
from tasks.signature_config import DEFAULT_PRESET, PRESETS, SignatureConfig

MODEL = "smollm2-135m-instruct"
PRECISION_AT = 10
SHOWN_ROWS = 5
TEXT_CHARS = 140
BLOCK_ROWS = 128
"""Small blocks, so that the demo's index has several."""
CALIBRATION_TOKENS = 8_000
"""Fewer than by default: the sample is read beside the corpus, which has some 40,000 tokens."""


def run_demo(folder: Path, *, n_docstrings: int, run_flow: Callable[..., Any]) -> None:
    """Make the corpus, run the pipeline flow, and show attribution, selection and cost.

    Args:
        folder: Made if missing; running again in it does only what is missing.
        n_docstrings: Rows of the corpus beside the planted ones.
        run_flow: Runs a flow with keyword arguments.
    """
    started = time.monotonic()
    say(f"model    {MODEL} in {fetch_model(MODEL)}")
    files = write_demo_corpus(folder / "data", n_library=n_docstrings)
    say(
        f"corpus   {files.n_library} docstrings of Python's standard library, "
        f"{files.n_planted} planted rows hidden among them"
    )
    say("run      ingest, index, query set, scores, release: one Prefect flow run")
    report: PipelineReport = run_flow(pipeline, config=demo_settings(folder, files))
    _show_example(report)
    _show_precision(report)
    show_facts(
        "What came out",
        {
            "release": f"{report.release.path} ({report.release.n_rows} rows, gated)",
            "report": report.release.page,
            "Data Docs": report.release.data_docs,
            "index": f"{report.index.path} ({readable_bytes(report.index.n_bytes)})",
            "speed": _speed(report),
            "seconds in all": round(time.monotonic() - started, 1),
        },
    )
    show_warnings(report.warnings)
    say(f"\nNext     .venv/bin/rise ls --store {folder / 'store'}")


def _speed(report: PipelineReport) -> str:
    if report.index.n_sketched == 0:
        return "nothing was left to sketch; delete the folder to see the whole run"
    where = f"{report.index.dtype} on {report.index.device}"
    return f"{report.index.tokens_per_second:,.0f} tokens per second, {where}"


def demo_settings(folder: Path, files: DemoFiles) -> PipelineConfig:
    """Return the settings of the demo: the default preset, as many released as are planted."""
    fields = PromptCompletionFields()
    return PipelineConfig(
        store=str(folder / "store"),
        corpus="demo",
        index="demo",
        query_set="forecasts",
        release="demo",
        rows=_rows(files.rows, fields),
        queries=_rows(files.queries, fields),
        indexing=IndexConfig(
            model=ModelConfig(name=MODEL), signature=_signature(), block_rows=BLOCK_ROWS
        ),
        scoring=ScoreConfig(top_k=PRECISION_AT, full_matrix=True),
        releasing=ReleaseConfig(select=TopK(top_k=files.n_planted), license="psf-2.0"),
        runtime=RuntimeConfig(),
    )


def _signature() -> SignatureConfig:
    preset = PRESETS[DEFAULT_PRESET]
    sketch = preset.sketch.model_copy(update={"calibration_tokens": CALIBRATION_TOKENS})
    return preset.model_copy(update={"sketch": sketch})


def _rows(path: Path, fields: PromptCompletionFields) -> RowsConfig:
    return RowsConfig(
        source=FilesSource(paths=(str(path),)),
        fields=fields,
        id_field="id",
        label_field="label",
    )


def _show_example(report: PipelineReport) -> None:
    query, hits = strongest_rows(report.score.ref, top_k=SHOWN_ROWS)
    say(f"\nOne query: the model was asked {query.prompt.strip()!r} and said")
    say(f"  {query.completion}")
    show_table(
        "\nThe training rows that pushed it there",
        ("rank", "score", "row", "text"),
        [(hit.rank, hit.score, hit.row_id, shortened(hit.text, TEXT_CHARS)) for hit in hits],
    )


def _show_precision(report: PipelineReport) -> None:
    results = compare_methods(report.score.ref, ks=[PRECISION_AT])
    queries, positives = report.queries.n_queries, results[0].n_positives
    show_table(
        f"Of the {PRECISION_AT} strongest rows, how many are planted? "
        f"(mean of {queries} queries, {positives} planted rows in {report.index.n_rows})",
        ("method", f"precision@{PRECISION_AT}", f"auPRC@{PRECISION_AT}"),
        [
            (r.method, r.metrics[f"precision@{PRECISION_AT}"], r.metrics[f"auPRC@{PRECISION_AT}"])
            for r in results
        ],
    )
