"""``rise quality``: the expectation suites of the gates, written out, shown and checked."""

from typing import Annotated

import typer

from flows.terminal import plain_errors, say, say_error, show_table

quality_app = typer.Typer(
    no_args_is_help=True, help="What the quality gates demand, for you to read and change."
)

Folder = Annotated[
    str | None, typer.Option(help="Folder with edited suites; without: the shipped suites.")
]


@quality_app.command("init")
def init(
    folder: Annotated[str, typer.Option(help="Where to write them.")] = "quality",
) -> None:
    """Write the suites of all gates as YAML, for editing; files that are there stay."""
    with plain_errors():
        from tasks.suite_files import write_suites

        written, kept = write_suites(folder)
        for path in written:
            say(f"written  {path}")
        for path in kept:
            say(f"kept     {path} (it was there)")
        say(f"\nEdit them, then: rise quality check {folder}")
        say(f"Use them:        rise run ... --quality {folder}, or quality: {{folder: {folder}}}")


@quality_app.command("show")
def show(folder: Folder = None) -> None:
    """Show what every gate demands, with severities."""
    with plain_errors():
        from tasks.quality_config import QualityConfig
        from tasks.suite_files import described_suites

        for suite, lines in described_suites(QualityConfig(folder=folder or None)):
            show_table(
                f"Gate {suite.gate} ({suite.origin})",
                ("table", "severity", "what holds", "expectation", ""),
                lines,
            )


@quality_app.command("check")
def check(
    folder: Annotated[str, typer.Argument(help="Folder with edited suites.")],
) -> None:
    """Say whether edited suites can be used; every problem with its file and line."""
    with plain_errors():
        from tasks.quality_config import QualityConfig
        from tasks.suite_expectations import check_suites
        from tasks.suite_files import SuiteError

        try:
            suites = check_suites(QualityConfig(folder=folder))
        except SuiteError as error:
            for problem in error.problems:
                say(problem)
            say_error(f"{len(error.problems)} problems in {folder}.")
            raise typer.Exit(1) from error
        for suite in suites:
            count = sum(len(entries) for entries in suite.tables.values())
            changed = "as shipped" if suite.is_shipped else "changed"
            say(f"{suite.gate:8} {count:2} expectations, {changed} ({suite.origin})")
