"""The ``rise release`` commands: publish, list, roll back, accept, export, draw the report."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from flows.cli_settings import (
    AsJson,
    ConfigFile,
    Prefer,
    Quality,
    Release,
    Select,
    Share,
    Store,
    StoreOption,
    Tokens,
    Verbose,
    pipeline_settings,
    run_flow,
    selection,
)
from flows.environment import quiet_defaults
from flows.terminal import plain_errors, say, show_facts, show_json, show_table, show_warnings

NameArgument = Annotated[str, typer.Argument(help="Name of the release.")]

ReleaseId = Annotated[
    str | None, typer.Option("--id", help="Id of the release; without: the latest.")
]


class PublishByDefault(TyperGroup):
    """Reads ``rise release SCORES_ID`` as ``rise release publish SCORES_ID``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``publish`` before a first word that is no command."""
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            args = ["publish", *args]
        return super().parse_args(ctx, args)


release_app = typer.Typer(
    cls=PublishByDefault,
    no_args_is_help=True,
    help="Publish releases, list them, go back to an earlier one, export them, draw their report.",
)


@release_app.command()
def publish(
    scores_id: Annotated[str, typer.Argument(help="The scores to select by; see `rise ls`.")],
    config: ConfigFile = None,
    select: Select = None,
    tokens: Tokens = None,
    share: Share = None,
    prefer: Prefer = None,
    release: Release = None,
    store: Store = None,
    quality: Quality = None,
    *,
    verbose: Verbose = False,
) -> None:
    """Select rows by value and publish them as a validated release."""
    with plain_errors(verbose=verbose):
        overrides = {
            "quality.folder": quality,
            "releasing.select": selection(select, tokens, share),
            "releasing.prefer": prefer,
            "release": release,
            "store": store,
        }
        settings = pipeline_settings(config, overrides, needs=())
        quiet_defaults(verbose=verbose)
        from flows.release import release as flow

        report = run_flow(
            flow,
            scores_id=scores_id,
            store=settings.store,
            release=settings.release,
            config=settings.releasing,
            quality=settings.quality,
            runtime=settings.runtime,
            drift=settings.drift,
        )
        dropped = {f"dropped: {reason}": n for reason, n in sorted(report.n_dropped.items())}
        show_facts(
            f"release {report.ref.release_id} of {settings.release}",
            {
                "rows": report.n_rows,
                "tokens": report.n_tokens,
                **dropped,
                "path": report.path,
                "report": report.page,
            },
        )
        show_warnings(report.warnings)


@release_app.command("ls")
def list_all(
    name: Annotated[str | None, typer.Argument(help="Name of the release; all without.")] = None,
    store: StoreOption = "rise-store",
    *,
    moves: Annotated[
        bool, typer.Option("--moves", help="Show when `latest` was moved, and why.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List releases, which are the latest or held because of drift, or the moves of `latest`."""
    with plain_errors():
        from tasks.release_history import list_moves, list_releases

        found = list_moves(store, name) if moves else list_releases(store, name)
        if as_json:
            show_json(found)
            return
        columns: tuple[str, ...] = ("name", "id", "state", "made", "rows", "tokens", "dropped")
        if moves:
            columns = ("time", "name", "left", "to", "why")
        show_table(
            f"Releases in {store}",
            columns,
            [tuple(_cell(line, column) for column in columns) for line in found],
        )


@release_app.command()
def rollback(
    name: NameArgument,
    to: Annotated[
        str | None, typer.Option(help="Id of a release; without: the one that came before.")
    ] = None,
    store: StoreOption = "rise-store",
) -> None:
    """Point `latest` back to an earlier release, after checking its files."""
    with plain_errors():
        quiet_defaults()
        from tasks.release_history import go_back

        left, now = go_back(store, name, to=to)
        from flows.events import announce_by_command

        told = announce_by_command(now, left=left)
        _show_move(name, left.release_id, now.release_id, told)


@release_app.command()
def accept(
    name: NameArgument,
    release_id: Annotated[
        str | None, typer.Option("--id", help="Id of the release; without: the one that is held.")
    ] = None,
    store: StoreOption = "rise-store",
) -> None:
    """Point `latest` to a release that was held because it drifted beyond a limit."""
    with plain_errors():
        quiet_defaults()
        from tasks.release_history import accept_release

        left, now = accept_release(store, name, release_id)
        from flows.events import announce_by_command

        _show_move(name, left.release_id, now.release_id, announce_by_command(now))


@release_app.command()
def export(
    name: NameArgument,
    folder: Annotated[str, typer.Argument(help="Where to, a path or URL; must not exist.")],
    form: Annotated[
        str, typer.Option("--format", help="hf: for load_from_disk; viewer: for the TDA viewer.")
    ] = "hf",
    release_id: ReleaseId = None,
    store: StoreOption = "rise-store",
) -> None:
    """Copy a release into a Hugging Face dataset folder, or its queries into viewer lines."""
    with plain_errors():
        quiet_defaults()
        from tasks.release_export import export as export_release
        from tasks.release_history import find_release

        written = export_release(find_release(store, name, release_id), folder, form)
        say(f"{name}: {written}")


@release_app.command()
def report(
    name: NameArgument,
    release_id: ReleaseId = None,
    examples: Annotated[int, typer.Option(min=0, help="Rows shown in each part.")] = 5,
    store: StoreOption = "rise-store",
    *,
    highlights: Annotated[
        bool, typer.Option("--highlights", help="Run the model, to show which tokens counted.")
    ] = False,
) -> None:
    """Draw the HTML page of a release again."""
    with plain_errors():
        quiet_defaults()
        from tasks.release_config import ReportConfig
        from tasks.release_history import find_release
        from tasks.report import write_report

        page = write_report(
            find_release(store, name, release_id),
            ReportConfig(examples=examples, highlights=highlights),
        )
        say(page.path if page.no_highlights is None else f"{page.path} ({page.no_highlights})")


def _show_move(name: str, left: str, now: str, told: str) -> None:
    show_facts(f"latest of {name}", {"was": left, "is": now, "told": told})


def _cell(line: dict[str, Any], column: str) -> Any:
    if column == "state":
        return "* latest" if line["latest"] else "held" if line["held"] else ""
    value = line[column]
    if isinstance(value, dict):
        return ", ".join(f"{n:,} {reason}" for reason, n in sorted(value.items()))
    return "" if value is None else value
