"""What the ``rise`` command writes: tables, results, and errors without tracebacks."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import typer

from flows.artifacts import readable


@contextmanager
def plain_errors(*, verbose: bool = False) -> Iterator[None]:
    """Turn an error that the user can act on into a message and exit status 1.

    With ``verbose`` the traceback is shown as well.
    """
    from storage.errors import StorageError

    try:
        yield
    except KeyboardInterrupt:
        say_error("stopped. Finished work is kept: run the same command to go on.")
        raise typer.Exit(130) from None
    except (ValueError, StorageError, OSError, MemoryError) as error:
        if verbose:
            raise
        say_error(str(error))
        raise typer.Exit(1) from error


@contextmanager
def waiting(seconds: float) -> Iterator[None]:
    """Wait so long for a run that writes the same, and say for whom, within the block."""
    from tasks.patience import Patience, Waiting, with_patience

    told: set[str] = set()

    def tell(wait: Waiting) -> None:
        if wait.holder.token not in told:
            told.add(wait.holder.token)
            say_error(f"waiting, up to {seconds:.0f} s: {wait}")

    with with_patience(Patience(seconds, tell, say_error)):
        yield


def say(text: str = "") -> None:
    """Write a line of results to standard output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def say_error(text: str) -> None:
    """Write an error to standard error."""
    sys.stderr.write(f"rise: {text}\n")


def show_facts(title: str, facts: Mapping[str, object]) -> None:
    """Write a title and aligned ``name  value`` lines."""
    say(title)
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        say(f"  {name:<{width}}  {readable(value)}")


def show_warnings(warnings: Sequence[str]) -> None:
    """Write what a quality gate found odd, but refused nothing for."""
    for warning in warnings:
        say(f"  warning: {warning}")


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a title and draw a table, as wide as the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    say(title)
    table = Table(box=box.SIMPLE_HEAD)
    for number, name in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[number], int | float) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*[Text(readable(value)) for value in row])
    Console(width=None if sys.stdout.isatty() else 120).print(table)
