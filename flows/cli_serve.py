"""The commands that keep flows running: `rise up` on one machine, `rise serve` beside a server."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli_settings import ConfigFile, Verbose, pipeline_settings
from flows.environment import quiet_defaults
from flows.terminal import plain_errors, say

if TYPE_CHECKING:
    from tasks.config import PipelineConfig

Cron = Annotated[
    str | None,
    typer.Option(help="Run on this schedule, UTC: '0 2 * * *' is every night at two."),
]
Runs = Annotated[int, typer.Option(min=1, help="Flow runs at a time.")]


def up(
    config: ConfigFile = None,
    cron: Cron = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the server.")] = 4200,
    host: Annotated[
        str, typer.Option(help="Address to listen at; only this machine by default.")
    ] = "127.0.0.1",
    state: Annotated[
        Path, typer.Option(help="Folder of the server's database and of the logs.")
    ] = Path("rise-prefect"),
    runs: Runs = 1,
) -> None:
    """Start a Prefect server with every flow deployed and a worker; Ctrl-C stops all of it.

    A settings file becomes the parameters of the deployments; relative paths in it mean the
    folder that this command is started in.
    """
    with plain_errors():
        quiet_defaults()
        from flows.children import ChildFailedError
        from flows.deployments import deployments
        from flows.pages import FOLDER, URL, serving_pages
        from flows.up import Place, everything_up, stopped_by_signals, watch
        from tasks.mirrors import pages_folder

        settings = _settings(config)
        folder = Path.cwd()
        document = deployments(folder, settings=settings, cron=cron)
        place = Place(state.absolute(), host, port)
        # of a store at a URL the pages of this machine are served, from its mirror
        store = folder / pages_folder(settings.store if settings else "rise-store")
        try:
            with stopped_by_signals(), serving_pages(store, host, port + 1) as pages:
                more = {FOLDER: str(store), URL: pages}
                with everything_up(place, folder, document, runs=runs, more=more, say=say) as all_:
                    _say_ready(place.ui, f"{place.url}/api", pages, place.state, cron)
                    watch(all_)
        except KeyboardInterrupt:
            say("stopped. Everything is kept: `rise up` goes on where this one ended.")
        except ChildFailedError as error:
            raise ValueError(str(error)) from error


def serve(
    config: ConfigFile = None,
    cron: Cron = None,
    runs: Runs = 1,
    *,
    verbose: Verbose = False,
) -> None:
    """Run every flow from this one process, for the Prefect server of PREFECT_API_URL.

    The fewest parts for one machine: no work pool, no worker. Ctrl-C stops it.
    """
    with plain_errors(verbose=verbose):
        quiet_defaults(verbose=True)
        os.environ.setdefault("PREFECT_RUNNER_POLL_FREQUENCY", "2")
        from prefect import serve as prefect_serve
        from prefect.settings import PREFECT_API_URL

        from flows.deployments import deployments, served

        if not PREFECT_API_URL.value():
            raise ValueError(
                "there is no Prefect server to serve. Start one (`prefect server start`) and set "
                "PREFECT_API_URL=http://127.0.0.1:4200/api, or let `rise up` do all of it."
            )
        document = deployments(Path.cwd(), settings=_settings(config), cron=cron)
        prefect_serve(*served(document), limit=runs, pause_on_shutdown=False)


def _settings(config: str | None) -> "PipelineConfig | None":
    if config is None:
        return None
    settings: PipelineConfig = pipeline_settings(config, {})
    return settings


def _say_ready(ui: str, api: str, pages: str, state: Path, cron: str | None) -> None:
    say(f"\nPrefect   {ui}")
    say(f"Flows     {ui.replace('/dashboard', '/deployments')}: choose one, Run, Custom run")
    say(f"Schedule  {cron or 'none; --cron sets one, the UI too'}")
    say(f"Reports   linked from the runs' artifacts, served at {pages}")
    say(f"Logs      {state}/*.log")
    say(f"Terminal  export PREFECT_API_URL={api}")
    say("Stop      Ctrl-C\n")
