"""Which rows quotas, sizes and token budgets still let through, and whether least amounts hold.

Rows are *places*: 0 is the row of best value. Most amounts are counters. Least amounts need
foresight: a row may be taken only if the rest can still be completed. `Room` keeps one such
completion, a set of undecided rows, and swaps rows out of it as better ones come; only when no swap
is at hand does it ask a linear program for another one. With quotas on two fields, rows are edges
between a source and a label, so the program's matrix is totally unimodular and its optimum whole.

What is infeasible stays so: whatever completes a larger selection completes a smaller one. A row
that did not fit is therefore never asked about again, nor are longer rows of its kind.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from jaxtyping import Bool, Int32, Int64

from rise_ops.kept_rows import CellQueues, Cells, KeptRows
from rise_ops.quota_program import Need, complete, most_rows, shortfall

NO_LIMIT = 2**62
"""Most rows of a quota without one."""

ROWS, TOKENS = -1, -2
"""In place of a quota: it is the rows, or the tokens, of the whole that do not suffice."""

_Quotas = Sequence[Int64[np.ndarray, " _"]]
"""A number for each quota, one array a field."""


class Infeasible(ValueError):  # noqa: N818 -- says what is so, not what happened
    """Least amounts cannot hold.

    Attributes:
        field: Number of the field of the quota that lacks rows; -1 where rows or tokens do.
        quota: Its number, or ROWS or TOKENS.
        lacking: Rows that it lacks, or tokens.
    """

    def __init__(self, field: int, quota: int, lacking: int) -> None:
        """Name the quota."""
        super().__init__(f"quota {quota} of field {field} lacks {lacking}")
        self.field, self.quota, self.lacking = field, quota, lacking


@dataclass(frozen=True, eq=False)
class QuotaField:
    """The quotas of one field.

    Attributes:
        codes: Each row's quota, -1 where none is on it; int32 [rows].
        least: Rows that a selection must have of each quota, int64 [quotas].
        most: Rows that it may have, int64 [quotas]; NO_LIMIT for any number.
    """

    codes: Int32[np.ndarray, " rows"]
    least: Int64[np.ndarray, " quotas"]
    most: Int64[np.ndarray, " quotas"]


@dataclass(frozen=True, eq=False)
class Bounds:
    """What a selection may hold; the arrays have one entry a row, best value first.

    Attributes:
        tokens: Tokens of each row, int64 [rows], not negative.
        fields: Quotas of sources, labels; two at most.
        max_rows: Rows at most, None for any number.
        max_tokens: Tokens at most, None for any number.
        exact: ``max_rows`` must be reached, and rows are kept back for that from the start.
        uncounted: Rows that least amounts do not count on, though they may be taken; bool [rows],
            None for none.
        spare_tokens: Tokens kept back besides, while rows are kept for least amounts, as far as the
            budget has them: some of those rows may have to be replaced by longer ones.
    """

    tokens: Int64[np.ndarray, " rows"]
    fields: tuple[QuotaField, ...] = ()
    max_rows: int | None = None
    max_tokens: int | None = None
    exact: bool = False
    uncounted: Bool[np.ndarray, " rows"] | None = None
    spare_tokens: int = 0


class Room:
    """What has been decided, and what may still be taken.

    Attributes:
        rows_left: Rows that may still be taken, NO_LIMIT for any number.
        tokens_left: Tokens, likewise.
        counts: Rows taken of each quota, one list a field.
        undecided: Rows neither taken nor dropped, bool [rows].
    """

    def __init__(self, bounds: Bounds) -> None:
        """Find a first completion.

        Raises:
            Infeasible: There is none.
        """
        self.bounds = bounds
        self.rows_left = NO_LIMIT if bounds.max_rows is None else bounds.max_rows
        self.tokens_left = NO_LIMIT if bounds.max_tokens is None else bounds.max_tokens
        self.counts = [[0] * len(field.least) for field in bounds.fields]
        self.undecided = np.ones(len(bounds.tokens), bool)
        # one number at a time, lists are several times faster than arrays
        self._tokens: list[int] = bounds.tokens.tolist()
        self._codes: list[list[int]] = [field.codes.tolist() for field in bounds.fields]
        self._least: list[list[int]] = [field.least.tolist() for field in bounds.fields]
        self._most: list[list[int]] = [field.most.tolist() for field in bounds.fields]
        self._n_lacking = sum(sum(least) for least in self._least)
        self._refused: dict[int, int] = {}
        self._cells = Cells.of([field.codes for field in bounds.fields], len(bounds.tokens))
        by_tokens = bounds.max_tokens is not None
        self._queues = CellQueues(
            self._cells, bounds.tokens if by_tokens else None, bounds.uncounted
        )
        self._spare = 0
        self._kept = self._keep(self._completion() if self._lacks() else ())
        self._spare = max(0, min(bounds.spare_tokens, self.tokens_left - self._kept.tokens))

    @property
    def is_full(self) -> bool:
        """Whether not one row more may be taken."""
        return self.rows_left <= 0 or self.tokens_left <= 0

    @property
    def keeps_rows(self) -> bool:
        """Whether rows are kept back for least amounts that do not hold yet."""
        return len(self._kept) > 0

    @property
    def all_kept(self) -> bool:
        """Whether all rows that may still be taken are kept back."""
        return self.rows_left <= len(self._kept)

    def fits_budget(self, place: int) -> bool:
        """Tell whether the budget has tokens for a row."""
        return self._tokens[place] <= self.tokens_left

    def full_quota(self, place: int) -> tuple[int, int] | None:
        """Return field and quota whose most rows are reached and that the row is on."""
        for number, codes in enumerate(self._codes):
            quota = codes[place]
            if quota >= 0 and self.counts[number][quota] >= self._most[number][quota]:
                return number, quota
        return None

    def full_fields(self, places: Int64[np.ndarray, " some"]) -> Int32[np.ndarray, " some"]:
        """Return of each row the first field in which its quota is full, -1 where none is."""
        found = np.full(len(places), -1, np.int32)
        for number in reversed(range(len(self.bounds.fields))):
            field = self.bounds.fields[number]
            # code -1, no quota, is the end of the array
            spent = np.append(np.array(self.counts[number]) >= field.most, np.False_)
            found[spent[field.codes[places]]] = number
        return found

    def rows_like_kept(self) -> Int64[np.ndarray, " some"]:
        """Return the undecided rows of all cells that rows are kept of, best first."""
        return np.flatnonzero(self.undecided & np.isin(self._cells.of_row, self._kept.cells()))

    def most_rows(self) -> int:
        """Return how many of the undecided rows most amounts let through, ``max_rows`` at most."""
        cells = np.flatnonzero(self._cells.remaining)
        if not self.bounds.fields or len(cells) == 0:
            return int(min(self._cells.remaining.sum(), self.rows_left))
        least, most = self._still(None)
        upper = self._cells.remaining[cells]
        need = Need(
            self._cells.codes[cells], upper, np.zeros(len(cells)), least, most, self.rows_left
        )
        return most_rows(need)

    def admits(self, place: int) -> bool:
        """Tell whether the least amounts can still hold when this row is taken.

        Most amounts, rows and tokens of the row itself are for the caller to have checked.
        """
        if not self._kept or place in self._kept or self._swap(place) or self._fits_beside(place):
            return True
        cell = int(self._cells.of_row[place])
        tokens = 0 if self.bounds.max_tokens is None else self._tokens[place]
        if tokens >= self._refused.get(cell, NO_LIMIT):
            return False
        try:
            self._kept = self._keep(self._completion(taking=place))
        except Infeasible:
            self._refused[cell] = tokens
            return False
        return True

    def take(self, place: int) -> None:
        """Take a row that `admits` let through just before."""
        self._decide(place)
        self.rows_left -= 1
        self.tokens_left -= self._tokens[place]
        for counts, codes, least in zip(self.counts, self._codes, self._least, strict=True):
            quota = codes[place]
            if quota >= 0:
                self._n_lacking -= counts[quota] < least[quota]
                counts[quota] += 1
        if self._kept and not self._lacks():
            self._kept = self._keep(())

    def drop(self, place: int) -> None:
        """Leave a row out for good.

        Raises:
            Infeasible: Without it the least amounts cannot hold.
        """
        if self._decide(place) and not self._replace(place):
            self._kept = self._keep(self._completion())

    def drop_full(self, places: Int64[np.ndarray, " some"]) -> None:
        """Leave out rows of full quotas: none of them is kept back."""
        self.undecided[places] = False
        self._cells.forget(places)

    # ---------------------------------------------------------------------- rows kept back

    def _lacks(self) -> bool:
        """Tell whether a least amount does not hold yet."""
        return self.rows_left > 0 if self.bounds.exact else self._n_lacking > 0

    def _keep(self, rows: Iterable[int]) -> KeptRows:
        n_quotas = [len(field.least) for field in self.bounds.fields]
        return KeptRows(self._cells, self.bounds.tokens, n_quotas, rows)

    def _decide(self, place: int) -> bool:
        """Mark a row as decided; return whether it was kept back."""
        self.undecided[place] = False
        self._cells.remaining[self._cells.of_row[place]] -= 1
        if place not in self._kept:
            return False
        self._kept.remove(place)
        return True

    def _swap(self, place: int) -> bool:
        """Let the row stand for the longest one kept of its cell, if that fits."""
        longest = self._kept.longest_like(place)
        if longest is None:
            return False
        tokens = self._tokens
        left = self.tokens_left - self._spare
        if tokens[place] > tokens[longest] and (
            self._kept.tokens - tokens[longest] + tokens[place] > left
        ):
            return False
        self._kept.remove(longest)
        self._kept.add(place)
        return True

    def _fits_beside(self, place: int) -> bool:
        """Tell whether the row can be taken and all rows kept back after it."""
        if self.rows_left <= len(self._kept):
            return False
        if self._kept.tokens + self._tokens[place] > self.tokens_left - self._spare:
            return False
        for number, codes in enumerate(self._codes):
            quota = codes[place]
            if quota >= 0:
                planned = self.counts[number][quota] + self._kept.planned[number][quota]
                if planned >= self._most[number][quota]:
                    return False
        return True

    def _replace(self, place: int) -> bool:
        """Keep another row of the cell instead of one that was dropped, if one fits."""
        cell = int(self._cells.of_row[place])
        for other in self._queues.undecided(cell, self.undecided):
            if other not in self._kept:
                if self._kept.tokens + self._tokens[other] > self.tokens_left:
                    return False
                self._kept.add(other)
                return True
        return False

    def _completion(self, taking: int | None = None) -> list[int]:
        """Return rows that complete the selection, after ``taking`` one more if given.

        Raises:
            Infeasible: There are none.
        """
        least, most = self._still(taking)
        rows_left = self.rows_left - (taking is not None)
        # a row that is merely replaced may use what was kept to spare
        tokens_left = self.tokens_left
        tokens_left -= 0 if taking is None else self._tokens[taking] + self._spare
        choices = self._choices(least, taking)
        if len(self.bounds.fields) == 1 and not self.bounds.exact:
            rows = _first_rows(choices, self._cells, least[0])
        else:
            need, options = self._program(choices, least, most, rows_left)
            counts = complete(need)
            if counts is None:
                # who lacks what is worth a program of its own only to say it
                lacking = shortfall(need) if taking is None else None
                raise Infeasible(*(lacking or (-1, ROWS, 1)))
            rows = [
                row
                for (_, group), count in zip(options, counts.tolist(), strict=True)
                for row in group[:count]
            ]
        tokens = int(self.bounds.tokens[rows].sum())
        if len(rows) > rows_left:
            raise Infeasible(-1, ROWS, len(rows) - rows_left)
        if tokens > tokens_left:
            raise Infeasible(-1, TOKENS, tokens - tokens_left)
        return rows

    def _still(self, taking: int | None) -> tuple[_Quotas, _Quotas]:
        """Return the rows that each quota still lacks, and those it is still open to."""
        least, most = [], []
        for field, counts in zip(self.bounds.fields, self.counts, strict=True):
            after = np.array(counts, np.int64)
            if taking is not None and field.codes[taking] >= 0:
                after[field.codes[taking]] += 1
            least.append(np.maximum(field.least - after, 0))
            most.append(field.most - after)
        return least, most

    def _choices(self, least: _Quotas, taking: int | None) -> dict[int, list[int]]:
        """Return the undecided rows of every cell that a completion may use, in order."""
        needed = np.zeros(len(self._cells.codes), np.int64)
        for number, lacking in enumerate(least):
            needed = np.maximum(needed, np.append(lacking, 0)[self._cells.codes[:, number]])
        if self.bounds.exact:
            needed[:] = self.rows_left
        choices = {}
        for cell in np.flatnonzero(needed).tolist():
            rows = self._queues.undecided(cell, self.undecided)
            choices[cell] = list(islice((row for row in rows if row != taking), needed[cell]))
        return choices

    def _program(
        self, choices: Mapping[int, list[int]], least: _Quotas, most: _Quotas, rows_left: int
    ) -> tuple[Need, list[tuple[int, list[int]]]]:
        """Return the linear program and its choices: single rows under a budget, else cells."""
        by_row = self.bounds.max_tokens is not None
        options = [
            (cell, group)
            for cell, rows in choices.items()
            for group in ([[row] for row in rows] if by_row else [rows])
            if group
        ]
        # without a budget: cells whose first row is better come first
        costs = self.bounds.tokens if by_row else np.arange(1, len(self.undecided) + 1)
        need = Need(
            codes=self._cells.codes[[cell for cell, _ in options]],
            upper=np.array([len(group) for _, group in options], np.int64),
            cost=np.array([costs[group[0]] for _, group in options], np.float64),
            least=least,
            most=most,
            rows=rows_left,
            exact=self.bounds.exact,
        )
        return need, options


def _first_rows(
    choices: Mapping[int, list[int]], cells: Cells, least: Int64[np.ndarray, " quotas"]
) -> list[int]:
    """Complete quotas of a single field, where each has one cell, by that cell's first rows."""
    found = {int(cells.codes[cell, 0]): rows for cell, rows in choices.items()}
    for quota in np.flatnonzero(least).tolist():
        lacking = int(least[quota]) - len(found.get(quota, ()))
        if lacking > 0:
            raise Infeasible(0, quota, lacking)
    return [row for quota, rows in found.items() if quota >= 0 for row in rows]
