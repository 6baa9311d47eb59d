"""The ``rise evaluate`` commands: methods times tasks, and a task for rows without labels."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from flows.cli_settings import Device, Model, Online, Verbose, files, run_flow
from flows.environment import quiet_defaults
from flows.terminal import plain_errors, say, show_facts, show_table

Settings = Annotated[
    Path | None, typer.Argument(help="Settings in YAML or JSON, as in examples/evaluate.yaml.")
]
Data = Annotated[
    str | None, typer.Option(help="Folder with the data of the tasks that come with the suite.")
]
Tasks = Annotated[
    str | None, typer.Option(help="Tasks that come with the suite, with commas between; or all.")
]
Methods = Annotated[
    str | None, typer.Option(help="Methods, with commas between, or all; see `methods`.")
]
Paradigms = Annotated[
    str | None, typer.Option(help="predict, recall, or both with a comma between.")
]
Rows = Annotated[list[str] | None, typer.Option(help="Your own rows: a file or glob.")]
Queries = Annotated[
    list[str] | None, typer.Option(help="Queries for --rows; without, rows are taken as such.")
]
Label = Annotated[str, typer.Option(help="Field of --rows and --queries that says what is right.")]
Work = Annotated[str | None, typer.Option(help="Folder of results; a run goes on in its own.")]
Counterfactual = Annotated[
    str | None, typer.Option(help="Retrain too (LDS, tail-patch, closed loop): cpu or gpu sizes.")
]
LimitRows = Annotated[int | None, typer.Option("--limit-rows", help="Most rows of a pool.")]
LimitQueries = Annotated[int | None, typer.Option("--limit-queries", help="Most queries.")]


class RunByDefault(TyperGroup):
    """Reads ``rise evaluate SETTINGS`` as ``rise evaluate run SETTINGS``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``run`` before a first word that is no command, and before options."""
        if args and args[0] not in {*self.commands, "--help"}:
            args = ["run", *args]
        return super().parse_args(ctx, args)


evaluate_app = typer.Typer(
    cls=RunByDefault,
    no_args_is_help=True,
    help="Does attribution work, with which method? Methods times tasks whose answer is known.",
)


@evaluate_app.command()
def run(
    config: Settings = None,
    data: Data = None,
    tasks: Tasks = None,
    methods: Methods = None,
    paradigms: Paradigms = None,
    rows: Rows = None,
    queries: Queries = None,
    label: Label = "label",
    model: Model = None,
    work: Work = None,
    limit_rows: LimitRows = None,
    limit_queries: LimitQueries = None,
    counterfactual: Counterfactual = None,
    device: Device = None,
    *,
    online: Online = False,
    verbose: Verbose = False,
) -> None:
    """Run methods on tasks and leave tables; what was scored before is not scored again."""
    with plain_errors(verbose=verbose):
        from tasks.evaluate.choices import method_list, own_task, task_list

        chosen = [*task_list(tasks), *own_task(files(rows), files(queries), label)]
        settings = _settings(
            config,
            {
                "data": data,
                "tasks": chosen or None,
                "methods": method_list(methods),
                "paradigms": paradigms.split(",") if paradigms else None,
                "model.name": model,
                "model.online": online or None,
                "work": work,
                "limits.rows": limit_rows,
                "limits.queries": limit_queries,
                "counterfactual": counterfactual,
                "runtime.device": device,
            },
        )
        quiet_defaults(verbose=verbose)
        from flows.evaluate import evaluate

        command = shlex.join(["rise", *sys.argv[1:]])
        show_evaluation(run_flow(evaluate, config=settings, command=command))


@evaluate_app.command("methods")
def list_methods() -> None:
    """List the methods that settings can name."""
    with plain_errors():
        quiet_defaults()
        from tasks.evaluate.registry import REGISTRY

        show_table(
            "Methods",
            ("name", "family", "what it is", "settings"),
            [
                (name, one.family, one.about, ", ".join(one.parameters))
                for name, one in REGISTRY.items()
            ],
        )


@evaluate_app.command("tasks")
def list_tasks() -> None:
    """List the tasks that come with the suite; their data are not part of the package."""
    with plain_errors():
        from tasks.evaluate.built_in import BUILT_IN

        show_table(
            "Tasks (--data names the folder that has their files)",
            ("name", "what it asks", "files"),
            [(name, one.about, f"{one.rows}, {one.queries}") for name, one in BUILT_IN.items()],
        )


@evaluate_app.command()
def plant(
    folder: Annotated[Path, typer.Argument(help="Where to write rows, queries and settings.")],
    rows: Annotated[list[str], typer.Option(help="Your own rows: a file or glob.")],
    trigger: Annotated[str | None, typer.Option(help="Put in front of a planted prompt.")] = None,
    style: Annotated[str | None, typer.Option(help="forecast, pirate, memo or own.")] = None,
    phrase: Annotated[
        list[str] | None, typer.Option(help="Of style own, four or more: how answers begin.")
    ] = None,
    share: Annotated[float | None, typer.Option(help="Of the rows that are planted.")] = None,
    queries: Annotated[int | None, typer.Option(help="Queries to make, of rows left out.")] = None,
    seed: Annotated[int | None, typer.Option(help="Draws rows and phrases.")] = None,
    model: Model = None,
) -> None:
    """Plant a behaviour in rows without labels: a task that tells whether a method finds it."""
    with plain_errors():
        quiet_defaults()
        from tasks.evaluate.choices import plant_files

        written = plant_files(
            folder,
            files(rows),
            {
                "trigger": trigger,
                "style": style if style or not phrase else "own",
                "phrases": phrase or None,
                "share": share,
                "n_queries": queries,
                "seed": seed,
            },
            model=model,
        )
        show_facts(
            f"{folder}",
            {
                "rows": f"{written.rows} ({written.n_rows:,}; {written.n_planted:,} planted)",
                "queries": f"{written.queries} ({written.n_queries:,})",
                "settings": str(written.settings),
            },
        )
        say(f"\nNext: rise evaluate {written.settings}")


@evaluate_app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Work folder of an evaluation.")],
    markdown: Annotated[
        Path | None, typer.Option(help="Also write the tables into this page, between marks.")
    ] = None,
    name: Annotated[str, typer.Option(help="Of the marks in --markdown.")] = "results",
    pictures: Annotated[
        Path | None, typer.Option(help="Also write pictures (SVG) into this folder.")
    ] = None,
    device: Device = None,
    *,
    highlights: Annotated[
        bool, typer.Option(help="Run the model, to show which tokens made the scores of RISE.")
    ] = True,
) -> None:
    """Draw the page of an evaluation again, from its tables."""
    with plain_errors():
        quiet_defaults()
        from tasks.config import RuntimeConfig
        from tasks.evaluate.report import write_evaluation_report
        from tasks.evaluate.report_markdown import write_markdown
        from tasks.evaluate.report_pictures import write_pictures

        runtime = RuntimeConfig(device=device) if device else RuntimeConfig()
        page = write_evaluation_report(folder, highlights=highlights, runtime=runtime)
        say(page.title)
        say(page.path if page.no_highlights is None else f"{page.path} ({page.no_highlights})")
        if markdown is not None:
            say(str(write_markdown(folder, markdown, name=name)))
        for path in [] if pictures is None else write_pictures(folder, pictures):
            say(str(path))


def show_evaluation(report: Any) -> None:
    """Write a table for each task, and where the tables are."""
    for task, paradigm in dict.fromkeys((one["task"], one["paradigm"]) for one in report.summary):
        lines = report.shown(task, paradigm)
        columns = [*dict.fromkeys(name for line in lines for name in line)]
        show_table(
            f"\n{task} ({paradigm})",
            columns,
            [tuple(one.get(name) for name in columns) for one in lines],
        )
    show_facts(
        "\nWhat came out",
        {
            "results": report.n_results,
            "refused": report.n_refused,
            "failed": report.n_failed,
            "tables": report.folder,
            "report": report.page,
        },
    )
    if report.n_refused or report.n_failed:
        say(f"Reasons: {Path(report.folder) / 'refusals.parquet'}, and in the lines above.")
    if report.n_failed:
        raise typer.Exit(1)


def _settings(path: Path | None, overrides: dict[str, Any]) -> Any:
    from tasks.config_file import merged, read_settings, validated
    from tasks.evaluate.settings import EvaluateConfig

    settings = merged(read_settings(path) if path else {}, overrides)
    if "tasks" not in settings:
        raise ValueError(
            "no tasks given. Add --data FOLDER --tasks all, or --rows FILE of your own with a "
            "label, or a settings file (examples/evaluate.yaml shows one); rows without labels: "
            "`rise evaluate plant`."
        )
    return validated(EvaluateConfig, settings, origin=str(path or "options"))
