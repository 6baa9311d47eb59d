"""The ``rise`` command: whole runs as Prefect flows, quick questions as plain functions.

The commands here run flows on the Prefect server of PREFECT_API_URL, or on Prefect's embedded
one; those of `flows.cli_look` only read and start no orchestrator. Heavy libraries are imported
inside the commands, so that ``rise --help`` answers at once.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli_look import add_look_commands
from flows.environment import quiet_defaults
from flows.terminal import plain_errors, say, show_facts

app = typer.Typer(
    name="rise",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=(
        "Find the training rows behind what a language model says, "
        "and the rows that are worth training on."
    ),
)

Verbose = Annotated[bool, typer.Option("--verbose", help="Show Prefect's log and tracebacks.")]
ConfigFile = Annotated[
    Path | None,
    typer.Argument(help="Settings in YAML or JSON, as in examples/pipeline.yaml."),
]
Store = Annotated[str | None, typer.Option(help="Folder of the store.")]
Rows = Annotated[
    list[str] | None,
    typer.Option(help="Training rows: a file or glob (.jsonl, .gz, .zst, .parquet, .csv)."),
]
Queries = Annotated[list[str] | None, typer.Option(help="Queries: a file or glob.")]
Model = Annotated[
    str | None, typer.Option(help="Model: a registry name, folder, .gguf file or hub id.")
]
Preset = Annotated[
    str | None, typer.Option(help="Signature preset: compact (the default), compact-2k, paper, ...")
]
Corpus = Annotated[str | None, typer.Option(help="Name of the corpus.")]
Index = Annotated[str | None, typer.Option(help="Name of the index.")]
QuerySet = Annotated[str | None, typer.Option(help="Name of the query set.")]
Release = Annotated[str | None, typer.Option(help="Name of the release.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
TopKOption = Annotated[
    int | None, typer.Option("--top-k", help="Strongest rows kept for each query.")
]
Scheduler = Annotated[
    str | None, typer.Option(help="For scoring: threads, local, or tcp://host:8786.")
]
Online = Annotated[bool, typer.Option("--online", help="Allow downloads from a hub.")]
Select = Annotated[int | None, typer.Option(help="Release this many rows of highest value.")]


@app.command()
def run(
    config: ConfigFile = None,
    rows: Rows = None,
    queries: Queries = None,
    model: Model = None,
    preset: Preset = None,
    top_k: TopKOption = None,
    select: Select = None,
    store: Store = None,
    device: Device = None,
    scheduler: Scheduler = None,
    *,
    online: Online = False,
    verbose: Verbose = False,
) -> None:
    """Run the whole path: ingest, index, query set, scores, release.

    Give a settings file, or --rows and --queries; options override the file.
    """
    overrides = {
        "rows.source": _files(rows),
        "queries.source": _files(queries),
        "indexing.model.name": model,
        "indexing.model.online": online or None,
        "indexing.signature": preset,
        "scoring.top_k": top_k,
        "releasing.select": None if select is None else {"kind": "top_k", "top_k": select},
        "store": store,
        "runtime.device": device,
        "runtime.scheduler": scheduler,
    }
    with plain_errors(verbose=verbose):
        settings = _pipeline_settings(config, overrides)
        quiet_defaults(verbose=verbose)
        from flows.pipeline import pipeline

        report = _run_flow(pipeline, config=settings)
        show_pipeline(report, settings.store)


@app.command()
def ingest(
    config: ConfigFile = None,
    rows: Rows = None,
    model: Model = None,
    corpus: Corpus = None,
    store: Store = None,
    *,
    online: Online = False,
    verbose: Verbose = False,
) -> None:
    """Read training rows into a corpus; rows that fail the gate go to quarantine."""
    overrides = {
        "rows.source": _files(rows),
        "indexing.model.name": model,
        "indexing.model.online": online or None,
        "corpus": corpus,
        "store": store,
    }
    with plain_errors(verbose=verbose):
        settings = _pipeline_settings(config, overrides, needs=("rows",))
        quiet_defaults(verbose=verbose)
        from flows.ingest import ingest as flow

        report = _run_flow(
            flow,
            rows=settings.rows,
            store=settings.store,
            corpus=settings.corpus,
            model=settings.indexing.model,
        )
        show_facts(
            f"corpus {settings.corpus}: {report.summary}",
            {
                "rows": report.n_rows,
                "rejected": report.n_rejected,
                "known from earlier batches": report.n_known,
                "Data Docs": report.data_docs,
                "rejected rows": report.rejected_path,
            },
        )


@app.command()
def index(
    config: ConfigFile = None,
    model: Model = None,
    preset: Preset = None,
    corpus: Corpus = None,
    index: Index = None,
    store: Store = None,
    device: Device = None,
    *,
    online: Online = False,
    verbose: Verbose = False,
) -> None:
    """Sketch the rows of a corpus into an index; rows that are there are kept."""
    overrides = {
        "indexing.model.name": model,
        "indexing.model.online": online or None,
        "indexing.signature": preset,
        "corpus": corpus,
        "index": index,
        "store": store,
        "runtime.device": device,
    }
    with plain_errors(verbose=verbose):
        settings = _pipeline_settings(config, overrides, needs=())
        quiet_defaults(verbose=verbose)
        from flows.index import calibration_facts
        from flows.index import index as flow

        report = _run_flow(
            flow,
            store=settings.store,
            corpus=settings.corpus,
            index=settings.index,
            config=settings.indexing,
            runtime=settings.runtime,
        )
        show_facts(
            f"index {settings.index}",
            {
                "index id": report.index_id,
                "rows": report.n_rows,
                "rows sketched now": report.n_sketched,
                "tokens per second": report.tokens_per_second,
                **calibration_facts(report),
                "path": report.path,
            },
        )


@app.command()
def queries(
    config: ConfigFile = None,
    queries: Queries = None,
    query_set: QuerySet = None,
    index: Index = None,
    store: Store = None,
    device: Device = None,
    *,
    verbose: Verbose = False,
) -> None:
    """Sketch a named query set in the space of an index."""
    overrides = {
        "queries.source": _files(queries),
        "query_set": query_set,
        "index": index,
        "store": store,
        "runtime.device": device,
    }
    with plain_errors(verbose=verbose):
        settings = _pipeline_settings(config, overrides, needs=("queries",))
        quiet_defaults(verbose=verbose)
        from flows.queries import queries as flow

        report = _run_flow(
            flow,
            rows=settings.queries,
            store=settings.store,
            query_set=settings.query_set,
            index=settings.index,
            runtime=settings.runtime,
        )
        show_facts(
            f"query set {settings.query_set}",
            {"version": report.ref.version, "queries": report.n_queries, "path": report.path},
        )


@app.command()
def score(
    config: ConfigFile = None,
    query_set: QuerySet = None,
    index: Index = None,
    store: Store = None,
    top_k: TopKOption = None,
    scheduler: Scheduler = None,
    *,
    full_matrix: Annotated[bool, typer.Option("--full-matrix", help="Keep every score.")] = False,
    verbose: Verbose = False,
) -> None:
    """Score every row of an index against a query set."""
    overrides = {
        "query_set": query_set,
        "index": index,
        "store": store,
        "scoring.top_k": top_k,
        "scoring.full_matrix": full_matrix or None,
        "runtime.scheduler": scheduler,
    }
    with plain_errors(verbose=verbose):
        settings = _pipeline_settings(config, overrides, needs=())
        quiet_defaults(verbose=verbose)
        from flows.score import score as flow

        report = _run_flow(
            flow,
            store=settings.store,
            index=settings.index,
            query_set=settings.query_set,
            config=settings.scoring,
            runtime=settings.runtime,
        )
        show_facts(
            f"scores {report.ref.scores_id}",
            {"rows": report.n_rows, "queries": report.n_queries, "path": report.path},
        )


@app.command()
def release(
    scores_id: Annotated[str, typer.Argument(help="The scores to select by; see `rise ls`.")],
    config: ConfigFile = None,
    select: Select = None,
    release: Release = None,
    store: Store = None,
    *,
    verbose: Verbose = False,
) -> None:
    """Select rows by value and publish them as a validated release."""
    overrides = {
        "releasing.select": None if select is None else {"kind": "top_k", "top_k": select},
        "release": release,
        "store": store,
    }
    with plain_errors(verbose=verbose):
        settings = _pipeline_settings(config, overrides, needs=())
        quiet_defaults(verbose=verbose)
        from flows.release import release as flow

        report = _run_flow(
            flow,
            scores_id=scores_id,
            store=settings.store,
            release=settings.release,
            config=settings.releasing,
        )
        show_facts(
            f"release {report.ref.release_id} of {settings.release}",
            {"rows": report.n_rows, "tokens": report.n_tokens, "path": report.path},
        )


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where the demo's store is made.")] = Path(
        "rise-demo"
    ),
    docstrings: Annotated[int, typer.Option(min=20, help="Rows beside the planted ones.")] = 640,
    *,
    verbose: Verbose = False,
) -> None:
    """Run everything on a real model and real text, and show what comes out."""
    with plain_errors(verbose=verbose):
        quiet_defaults(verbose=verbose)
        from flows.demo import run_demo

        run_demo(folder, n_docstrings=docstrings, run_flow=_run_flow)


add_look_commands(app)


def main() -> None:
    """Entry point of the ``rise`` command."""
    app()


def show_pipeline(report: Any, store: str) -> None:
    """Write what a pipeline run made, and what to type next."""
    from flows.index import calibration_facts

    show_facts(
        f"\nrelease {report.release.ref.release_id}",
        {
            "rows ingested": report.ingest.n_rows,
            "rows rejected": report.ingest.n_rejected,
            "rows indexed": report.index.n_rows,
            **calibration_facts(report.index),
            "queries": report.queries.n_queries,
            "rows released": report.release.n_rows,
            "release": report.release.path,
            "quality report": report.release.data_docs,
        },
    )
    say(f"\nNext: rise ls --store {store}   ·   rise attribute --store {store} --help")


def _run_flow(flow: Callable[..., Any], **arguments: Any) -> Any:
    """Call a flow without the heartbeat thread, which delays every flow's end by a second."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        return flow(**arguments)


def _files(paths: list[str] | None) -> dict[str, Any] | None:
    return {"kind": "files", "paths": paths} if paths else None


def _pipeline_settings(
    path: Path | None, overrides: dict[str, Any], *, needs: tuple[str, ...] = ("rows", "queries")
) -> Any:
    """Return the settings of file and options; parts that the command does not need may lack."""
    from tasks.config import PipelineConfig
    from tasks.config_file import merged, read_settings, validated

    settings = merged(read_settings(path) if path else {}, overrides)
    missing = [name for name in needs if name not in settings]
    if missing:
        raise ValueError(
            f"no {' and no '.join(missing)} given. Add {' and '.join('--' + m for m in missing)} "
            "FILE, or a settings file (examples/pipeline.yaml shows one)."
        )
    unused: dict[str, Any] = {"source": {"kind": "files", "paths": ["-"]}}
    for name in {"rows", "queries"} - set(needs):
        settings.setdefault(name, unused)
    return validated(PipelineConfig, settings, origin=str(path or "options"))
