"""The ``rise`` command: whole runs as Prefect flows, quick questions as plain functions.

The commands here run flows on the Prefect server of PREFECT_API_URL, or on Prefect's embedded
one; those of `flows.cli_look` and `flows.cli_watch` only read and start no orchestrator. Heavy
libraries are imported inside the commands, so that ``rise --help`` answers at once.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli_evaluate import evaluate_app
from flows.cli_look import add_look_commands
from flows.cli_mirror import mirror_app
from flows.cli_quality import quality_app
from flows.cli_refresh import refresh
from flows.cli_release import release_app
from flows.cli_serve import serve, up
from flows.cli_settings import (
    Cluster,
    ConfigFile,
    Corpus,
    Device,
    Index,
    Model,
    Online,
    Prefer,
    Preset,
    Quality,
    Queries,
    QuerySet,
    Rows,
    Scheduler,
    Select,
    Share,
    Store,
    Tokens,
    TopKOption,
    Verbose,
    Workers,
    files,
    pipeline_settings,
    run_flow,
    selection,
)
from flows.cli_takedown import takedown
from flows.cli_watch import add_watch_commands
from flows.environment import quiet_defaults
from flows.terminal import plain_errors, say, show_facts, show_warnings

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


@app.command()
def run(
    config: ConfigFile = None,
    rows: Rows = None,
    queries: Queries = None,
    model: Model = None,
    preset: Preset = None,
    top_k: TopKOption = None,
    select: Select = None,
    tokens: Tokens = None,
    share: Share = None,
    prefer: Prefer = None,
    store: Store = None,
    device: Device = None,
    scheduler: Scheduler = None,
    workers: Workers = None,
    cluster: Cluster = None,
    quality: Quality = None,
    *,
    online: Online = False,
    verbose: Verbose = False,
) -> None:
    """Run the whole path: ingest, index, query set, scores, release.

    Give a settings file, or --rows and --queries; options override the file.
    """
    overrides = {
        "quality.folder": quality,
        "rows.source": files(rows),
        "queries.source": files(queries),
        "indexing.model.name": model,
        "indexing.model.online": online or None,
        "indexing.signature": preset,
        "scoring.top_k": top_k,
        "releasing.prefer": prefer,
        "store": store,
        "runtime.device": device,
        "runtime.scheduler": scheduler,
        "runtime.index_workers": workers,
        "runtime.index_cluster": cluster,
    }
    with plain_errors(verbose=verbose):
        overrides["releasing.select"] = selection(select, tokens, share)
        settings = pipeline_settings(config, overrides)
        quiet_defaults(verbose=verbose)
        from flows.pipeline import pipeline

        report = run_flow(pipeline, config=settings)
        show_pipeline(report, settings.store)


@app.command()
def ingest(
    config: ConfigFile = None,
    rows: Rows = None,
    model: Model = None,
    corpus: Corpus = None,
    store: Store = None,
    quality: Quality = None,
    *,
    online: Online = False,
    verbose: Verbose = False,
) -> None:
    """Read training rows into a corpus; rows that fail the gate go to quarantine."""
    overrides = {
        "quality.folder": quality,
        "rows.source": files(rows),
        "indexing.model.name": model,
        "indexing.model.online": online or None,
        "corpus": corpus,
        "store": store,
    }
    with plain_errors(verbose=verbose):
        settings = pipeline_settings(config, overrides, needs=("rows",))
        quiet_defaults(verbose=verbose)
        from flows.ingest import ingest as flow

        report = run_flow(
            flow,
            rows=settings.rows,
            store=settings.store,
            corpus=settings.corpus,
            model=settings.indexing.model,
            quality=settings.quality,
            runtime=settings.runtime,
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
        show_warnings(report.warnings)


@app.command()
def index(
    config: ConfigFile = None,
    model: Model = None,
    preset: Preset = None,
    corpus: Corpus = None,
    index: Index = None,
    store: Store = None,
    device: Device = None,
    workers: Workers = None,
    cluster: Cluster = None,
    quality: Quality = None,
    *,
    online: Online = False,
    verbose: Verbose = False,
) -> None:
    """Sketch the rows of a corpus into an index; rows that are there are kept."""
    overrides = {
        "quality.folder": quality,
        "indexing.model.name": model,
        "indexing.model.online": online or None,
        "indexing.signature": preset,
        "corpus": corpus,
        "index": index,
        "store": store,
        "runtime.device": device,
        "runtime.index_workers": workers,
        "runtime.index_cluster": cluster,
    }
    with plain_errors(verbose=verbose):
        settings = pipeline_settings(config, overrides, needs=())
        quiet_defaults(verbose=verbose)
        from flows.index import calibration_facts
        from flows.index import index as flow

        report = run_flow(
            flow,
            store=settings.store,
            corpus=settings.corpus,
            index=settings.index,
            config=settings.indexing,
            runtime=settings.runtime,
            quality=settings.quality,
        )
        show_facts(
            f"index {settings.index}",
            {
                "index id": report.index_id,
                "rows": report.n_rows,
                "rows sketched now": report.n_sketched,
                "tokens per second": report.tokens_per_second,
                "processes": report.n_processes,
                **calibration_facts(report),
                "path": report.path,
            },
        )
        show_warnings(report.warnings)


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
        "queries.source": files(queries),
        "query_set": query_set,
        "index": index,
        "store": store,
        "runtime.device": device,
    }
    with plain_errors(verbose=verbose):
        settings = pipeline_settings(config, overrides, needs=("queries",))
        quiet_defaults(verbose=verbose)
        from flows.queries import queries as flow

        report = run_flow(
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
    quality: Quality = None,
    *,
    full_matrix: Annotated[bool, typer.Option("--full-matrix", help="Keep every score.")] = False,
    verbose: Verbose = False,
) -> None:
    """Score every row of an index against a query set."""
    overrides = {
        "quality.folder": quality,
        "query_set": query_set,
        "index": index,
        "store": store,
        "scoring.top_k": top_k,
        "scoring.full_matrix": full_matrix or None,
        "runtime.scheduler": scheduler,
    }
    with plain_errors(verbose=verbose):
        settings = pipeline_settings(config, overrides, needs=())
        quiet_defaults(verbose=verbose)
        from flows.score import score as flow

        report = run_flow(
            flow,
            store=settings.store,
            index=settings.index,
            query_set=settings.query_set,
            config=settings.scoring,
            runtime=settings.runtime,
            quality=settings.quality,
        )
        show_facts(
            f"scores {report.ref.scores_id}",
            {"rows": report.n_rows, "queries": report.n_queries, "path": report.path},
        )
        show_warnings(report.warnings)


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

        run_demo(folder, n_docstrings=docstrings, run_flow=run_flow)


app.command()(up)
app.command()(serve)
app.add_typer(release_app, name="release")
add_look_commands(app)
add_watch_commands(app)
app.command("takedown")(takedown)
app.command("refresh")(refresh)
app.add_typer(quality_app, name="quality")
app.add_typer(mirror_app, name="mirror")
app.add_typer(evaluate_app, name="evaluate")


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
            **{f"rows released as {name}": one.n_rows for name, one in report.also.items()},
            "release": report.release.path,
            "report": report.release.page,
            "quality report": report.release.data_docs,
        },
    )
    show_warnings(report.warnings)
    say(f"\nNext: rise ls --store {store}   ·   rise attribute --store {store} --help")
