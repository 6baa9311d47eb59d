"""What the ``rise`` command writes: tables, results, and errors without tracebacks."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

import typer

from flows.artifacts import readable

PLAIN_WIDTH = 120
"""Columns of what is written into a file or a pipe."""
ROOMY_WIDTH = 100
"""Columns from which a table has margins."""
WHOLE_CHARS = 20
"""In columns of single words, such as ids and times, those up to this length are not broken."""


@contextmanager
def plain_errors(*, verbose: bool = False) -> Iterator[None]:
    """Turn an error that the user can act on into a message and exit status 1.

    With ``verbose`` the traceback is shown as well.
    """
    from storage.errors import StorageError
    from tasks.worker_errors import WorkersLostError

    try:
        yield
    except KeyboardInterrupt:
        say_error("stopped. Finished work is kept: run the same command to go on.")
        raise typer.Exit(130) from None
    except (ValueError, StorageError, OSError, MemoryError, WorkersLostError) as error:
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
    width = terminal_width()
    tight: dict[str, Any] = {"show_edge": False, "padding": (0, 1, 0, 0)}
    table = Table(box=box.SIMPLE_HEAD, **(tight if width < ROOMY_WIDTH else {}))
    for number, name in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[number], int | float) for row in rows)
        cells = [readable(row[number]) for row in rows]
        longest = max((len(cell) for cell in cells if " " not in cell), default=0)
        prose = any(" " in cell for cell in cells)
        table.add_column(
            name,
            justify="right" if numeric else "left",
            overflow="fold",
            min_width=None if prose else min(longest, WHOLE_CHARS),
        )
    for row in rows:
        table.add_row(*[Text(readable(value)) for value in row])
    Console(width=width).print(table)


def show_json(value: object) -> None:
    """Write a value as JSON; paths become text, other objects the dictionary of their fields."""
    say(json.dumps(value, indent=1, ensure_ascii=False, default=_plain))


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else vars(value)


def show_wrapped(text: str) -> None:
    """Write one item of a list, broken at words where the terminal ends; nothing else is cut."""
    from textwrap import wrap

    lines = wrap(text, terminal_width() - 4, break_long_words=False, break_on_hyphens=False)
    say(
        "\n".join(f"{'  - ' if number == 0 else '    '}{line}" for number, line in enumerate(lines))
    )


def terminal_width() -> int:
    """Return the columns of the terminal; 120 where the output is no terminal."""
    return get_terminal_size().columns if sys.stdout.isatty() else PLAIN_WIDTH
