"""What a guard of a release looks like: rows in, a fault or nothing for each row out.

Selection asks the checks about rows in the order of their values, block by block and only as far
as it needs; a row with a fault is dropped, with the check's name as the reason, and the next one
takes its place. A check that only reports finds no faults and keeps what it saw.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import pyarrow as pa

from storage.corpus import Row


class RowCheck(Protocol):
    """A guard that may refuse rows."""

    @property
    def name(self) -> str:
        """The reason under which refused rows are listed, such as ``leakage``."""

    def faults(self, rows: Sequence[Row]) -> list[str | None]:
        """Return what is wrong with each row, None where nothing is.

        The text names no content of the row: it is published. Asking about a row again gives the
        same answer and records nothing twice.
        """


class RecordingCheck(RowCheck, Protocol):
    """A guard that also keeps a table of what it found."""

    @property
    def facts(self) -> dict[str, object]:
        """What was compared, in numbers and names, as JSON values."""

    def hits(self, among: Collection[str] | None = None) -> pa.Table:
        """Return what was found, in the order of asking.

        Args:
            among: Only rows of these ids, such as those that were released or dropped; None: all
                rows that were asked about.
        """


def hits_table(
    found: Mapping[str, Sequence[Mapping[str, Any]]],
    among: Collection[str] | None,
    schema: pa.Schema,
) -> pa.Table:
    """Return what a check found as a table; see `RecordingCheck.hits`.

    Args:
        found: Lines of the schema by the row's id, in the order of asking.
        among: Only rows of these ids; None: all.
        schema: Of the table.
    """
    wanted = None if among is None else set(among)
    lines = [
        line
        for row_id, lines_of_row in found.items()
        if wanted is None or row_id in wanted
        for line in lines_of_row
    ]
    return pa.Table.from_pylist(lines, schema=schema)
