"""What a selection asks of single rows before it takes them: leakage, privacy."""

from collections.abc import Sequence
from typing import Protocol

from storage.corpus import Row


class RowCheck(Protocol):
    """Finds fault with rows.

    Attributes:
        name: One word; the reason that a dropped row is given.
    """

    name: str

    def faults(self, rows: Sequence[Row]) -> list[str | None]:
        """Return for each row what is wrong with it, None where nothing is.

        Called once a row, and only for rows that the selection looks at. Without diversity and
        with quotas on one field at most, each of them is then taken or dropped; else some may be
        neither: what is shown of a check's hits is to be limited to rows of those two tables.
        """
