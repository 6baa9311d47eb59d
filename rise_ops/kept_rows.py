"""The rows that a selection keeps back so that its least amounts can still be met.

Rows of the same quotas are one *cell*; within a cell they differ only in place and tokens.
"""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Int32, Int64


class Cells:
    """Rows grouped by their quotas, with how many of each are undecided.

    Attributes:
        of_row: Cell of each row, int64 [rows].
        codes: Quota of each cell in each field, -1 for none; int64 [cells, fields].
        remaining: Undecided rows of each cell, int64 [cells].
    """

    def __init__(
        self, of_row: Int64[np.ndarray, " rows"], codes: Int64[np.ndarray, "cells fields"]
    ) -> None:
        """Use `of`."""
        self.of_row, self.codes = of_row, codes
        self.remaining = np.bincount(of_row, minlength=len(codes))
        self._order = np.argsort(of_row, kind="stable")
        self._starts = np.concatenate([[0], np.cumsum(self.remaining)])

    @classmethod
    def of(cls, codes: Sequence[Int32[np.ndarray, " rows"]], n_rows: int) -> "Cells":
        """Group rows by their codes in every field; without fields all are one cell."""
        if not codes:
            return cls(np.zeros(n_rows, np.int64), np.zeros((1, 0), np.int64))
        stacked = np.stack(codes, axis=1).astype(np.int64)
        width = int(stacked.max(initial=0)) + 2
        mixed = (stacked + 1) @ (width ** np.arange(len(codes), dtype=np.int64))
        _, first, of_row = np.unique(mixed, return_index=True, return_inverse=True)
        return cls(of_row.astype(np.int64), stacked[first])

    def rows(self, cell: int) -> Int64[np.ndarray, " some"]:
        """Return the rows of a cell, best first."""
        return self._order[self._starts[cell] : self._starts[cell + 1]]

    def forget(self, rows: Int64[np.ndarray, " some"]) -> None:
        """Count many rows as decided."""
        self.remaining -= np.bincount(self.of_row[rows], minlength=len(self.remaining))


class CellQueues:
    """The undecided rows of each cell, in the order in which a completion takes them."""

    def __init__(
        self,
        cells: Cells,
        order_by: Int64[np.ndarray, " rows"] | None,
        without: Bool[np.ndarray, " rows"] | None = None,
    ) -> None:
        """Order rows of a cell by ``order_by`` and place, None: by place alone; leave some out."""
        self._cells, self._order_by, self._without = cells, order_by, without
        self._rows: dict[int, list[int]] = {}
        self._passed: dict[int, int] = {}

    def undecided(self, cell: int, undecided: Bool[np.ndarray, " rows"]) -> Iterator[int]:
        """Yield the undecided rows of a cell; decided ones at the front are passed for good."""
        if cell not in self._rows:
            of_cell = self._cells.rows(cell)
            if self._without is not None:
                of_cell = of_cell[~self._without[of_cell]]
            if self._order_by is not None:
                of_cell = of_cell[np.argsort(self._order_by[of_cell], kind="stable")]
            self._rows[cell] = of_cell.tolist()
        rows, first = self._rows[cell], self._passed.get(cell, 0)
        while first < len(rows) and not undecided[rows[first]]:
            first += 1
        self._passed[cell] = first
        return (rows[i] for i in range(first, len(rows)) if undecided[rows[i]])


class KeptRows:
    """Rows kept back, with their tokens and their number in every cell and quota.

    Attributes:
        tokens: Tokens of all rows kept.
        planned: Rows kept of each quota, one list a field.
    """

    def __init__(
        self,
        cells: Cells,
        row_tokens: Int64[np.ndarray, " rows"],
        n_quotas: Sequence[int],
        rows: Iterable[int] = (),
    ) -> None:
        """Keep ``rows``."""
        self._cells, self._row_tokens = cells, row_tokens
        self._rows: set[int] = set()
        self._by_cell: dict[int, list[tuple[int, int]]] = {}
        self.tokens = 0
        self.planned = [[0] * number for number in n_quotas]
        for row in rows:
            self.add(row)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, row: object) -> bool:
        return row in self._rows

    def add(self, row: int) -> None:
        """Keep a row."""
        self._rows.add(row)
        insort(self._by_cell.setdefault(self._cell(row), []), (int(self._row_tokens[row]), row))
        self._count(row, 1)

    def remove(self, row: int) -> None:
        """Keep a row no longer."""
        self._rows.remove(row)
        rows = self._by_cell[self._cell(row)]
        del rows[bisect_left(rows, (int(self._row_tokens[row]), row))]
        self._count(row, -1)

    def longest_like(self, row: int) -> int | None:
        """Return the longest kept row of the same cell, None where there is none."""
        rows = self._by_cell.get(self._cell(row))
        return rows[-1][1] if rows else None

    def cells(self) -> list[int]:
        """Return the cells that rows are kept of."""
        return [cell for cell, rows in self._by_cell.items() if rows]

    def _cell(self, row: int) -> int:
        return int(self._cells.of_row[row])

    def _count(self, row: int, step: int) -> None:
        self.tokens += step * int(self._row_tokens[row])
        codes = self._cells.codes[self._cell(row)]
        for code, planned in zip(codes, self.planned, strict=True):
            if code >= 0:
                planned[code] += step
