"""The ``rise refresh`` command: what is new in an inbox, all the way to a release."""

from typing import Annotated, Any

import typer

from flows.cli_settings import (
    Cluster,
    ConfigFile,
    Device,
    Queries,
    Rows,
    Store,
    Verbose,
    Workers,
    files,
    pipeline_settings,
    run_flow,
)
from flows.environment import quiet_defaults
from flows.terminal import plain_errors, say, show_facts, show_warnings

Settle = Annotated[
    float | None, typer.Option(help="Seconds that a file must be unchanged to be taken.")
]


def refresh(
    config: ConfigFile = None,
    rows: Rows = None,
    queries: Queries = None,
    store: Store = None,
    device: Device = None,
    settle: Settle = None,
    workers: Workers = None,
    cluster: Cluster = None,
    *,
    verbose: Verbose = False,
) -> None:
    """Take what is new in an inbox (rows.source), index it, score, select and release.

    Without news it says so at once and starts nothing.
    """
    overrides = {
        "rows.source": files(rows),
        "queries.source": files(queries),
        "store": store,
        "runtime.device": device,
        "runtime.index_workers": workers,
        "runtime.index_cluster": cluster,
        "refresh.settle_seconds": settle,
    }
    with plain_errors(verbose=verbose):
        settings = pipeline_settings(config, overrides)
        from tasks.refresh import look

        outlook = look(settings)
        if outlook.nothing:
            say(outlook.summary)
            for name, why in outlook.news.waiting.items():
                say(f"  warning: {name}: {why}; it is left to the next run")
            for one in outlook.refused:
                say(f"  warning: {one.name} is refused (as before): {one.reason}")
            return
        quiet_defaults(verbose=verbose)
        from flows.refresh import refresh as flow

        show_refresh(run_flow(flow, config=settings), settings.store)


def show_refresh(report: Any, store: str) -> None:
    """Write what a refresh did, file by file."""
    facts: dict[str, object] = {}
    for one in () if report.intake is None else report.intake.taken:
        facts[one.name] = (
            f"{one.why}: {one.n_rows:,} rows in, {one.n_changed:,} changed, "
            f"{one.n_withdrawn:,} withdrawn, {one.n_rejected:,} rejected"
        )
    if report.made is not None:
        facts |= {
            "rows indexed": report.made.index.n_rows,
            "rows sketched now": report.made.index.n_sketched,
            "rows released": report.made.release.n_rows,
            "release": report.made.release.path,
            "report": report.made.release.page,
        }
        if report.made.replaced:
            facts["the index before, still readable"] = report.made.replaced
    show_facts(report.summary, facts)
    show_warnings(report.warnings)
    say(f"\nNext: rise ls --store {store}")
