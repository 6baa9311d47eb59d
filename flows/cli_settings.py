"""What the commands that run flows share: their options, and settings from a file and options."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

Verbose = Annotated[bool, typer.Option("--verbose", help="Show Prefect's log and tracebacks.")]
ConfigFile = Annotated[
    str | None,
    typer.Argument(help="Settings in YAML or JSON, as in examples/pipeline.yaml."),
]
Store = Annotated[str | None, typer.Option(help="Folder of the store, or its URL.")]
StoreOption = Annotated[str, typer.Option("--store", help="Folder of the store.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON, for programs.")]
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
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="For indexing: processes on this machine, each with the model."),
]
Cluster = Annotated[
    str | None, typer.Option(help="For indexing: a Dask scheduler, like tcp://host:8786.")
]
Online = Annotated[bool, typer.Option("--online", help="Allow downloads from a hub.")]
Quality = Annotated[
    str | None, typer.Option(help="Folder of quality suites; see `rise quality init`.")
]
Select = Annotated[int | None, typer.Option(help="Release this many rows of highest value.")]
Tokens = Annotated[
    int | None, typer.Option("--tokens", help="Release the best rows within so many tokens.")
]
Share = Annotated[float | None, typer.Option(help="Release this share of the rows, 0 to 1.")]
Prefer = Annotated[str | None, typer.Option(help="highest (the default), or lowest values.")]


def selection(select: int | None, tokens: int | None, share: float | None) -> dict[str, Any] | None:
    """Return the options that say how much is released as settings; None when none was given.

    Raises:
        ValueError: More than one was given.
    """
    given = [
        {"kind": kind, field: value}
        for kind, field, value in (
            ("top_k", "top_k", select),
            ("tokens", "max_tokens", tokens),
            ("share", "share", share),
        )
        if value is not None
    ]
    if len(given) > 1:
        raise ValueError(
            "--select, --tokens and --share each say how much is released; give one of them."
        )
    return given[0] if given else None


def run_flow(flow: Callable[..., Any], **arguments: Any) -> Any:
    """Call a flow without the heartbeat thread, which delays every flow's end by a second.

    Ctrl-C ends it at once: the embedded server, if there is one, still answers then.
    """
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from flows.embedded_server import start_embedded_server

    start_embedded_server()
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        return flow(**arguments)


def files(paths: list[str] | None) -> dict[str, Any] | None:
    """Return files as the settings of a source; None for none."""
    return {"kind": "files", "paths": paths} if paths else None


def pipeline_settings(
    path: str | None, overrides: dict[str, Any], *, needs: tuple[str, ...] = ("rows", "queries")
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
