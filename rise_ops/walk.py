"""Taking rows in order of value under every constraint at once, reading no more than is needed.

A row is taken unless a quota of it is full, the budget has no tokens for it, a judge finds fault
with it, or its place is kept for a least amount. A row that is dropped makes room for a later one.
Judges see rows in two steps: `Judges.read` gets a block of rows ready, ahead of the walk;
`Judges.look` gets rows that the walk decides on for certain.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from rise_ops.diversity import Ranker
from rise_ops.quotas import Room

UNDECIDED, TAKEN, QUOTA, BUDGET, JUDGES = 0, 1, 2, 3, 4
"""What became of a row; judges count their reasons up from the last."""

KEPT_FOR_OTHERS = -1
"""In place of a row or a field: the place is kept for rows that a least amount asks for."""

PATIENCE = 1_000
"""After so many rows in a row that do not fit the budget the walk ends: what is left of the budget
would otherwise be filled with the shortest rows from the very end of the order."""

CHUNK_ROWS = 2_048
"""Rows decided on between two looks at what is left."""

READ_AHEAD = 1.25
"""Rows read over those still wanted, for those that will be dropped."""


@dataclass(frozen=True)
class Fault:
    """Why a judge drops a row.

    Attributes:
        reason: JUDGES or more.
        other: Place of the row that it is like, if that is why.
        detail: In words.
    """

    reason: int
    other: int = KEPT_FOR_OTHERS
    detail: str | None = None


class Judges:
    """Who finds fault with rows that quotas and budget let through; this one with nothing."""

    def read(self, places: Int64[np.ndarray, " some"]) -> None:
        """Get rows ready that may be looked at next."""

    def look(self, places: Int64[np.ndarray, " some"]) -> None:
        """Look at rows that are decided on now."""

    def fault(self, place: int) -> Fault | None:
        """Say what is wrong with a row that was looked at, given the rows taken so far."""
        return None

    def take(self, place: int) -> None:
        """Learn that a row is taken."""


@dataclass(eq=False)
class Outcome:
    """What became of every row.

    Attributes:
        reasons: UNDECIDED, TAKEN, QUOTA, BUDGET or a judge's; uint8 [rows].
        others: Of a dropped row the row that it is like, or the field of the quota that is full;
            KEPT_FOR_OTHERS where neither; int32 [rows].
        details: What judges said, by row.
        taken: Rows in the order of taking.
    """

    reasons: UInt8[np.ndarray, " rows"]
    others: Int32[np.ndarray, " rows"]
    details: dict[int, str] = field(default_factory=dict)
    taken: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, n_rows: int) -> "Outcome":
        """Return one where nothing is decided."""
        return cls(np.zeros(n_rows, np.uint8), np.full(n_rows, KEPT_FOR_OTHERS, np.int32))


class Walk:
    """Decides on rows one after the other.

    Attributes:
        outcome: What became of them so far.
    """

    def __init__(self, room: Room, judges: Judges, *, block_tokens: int) -> None:
        """Start.

        Args:
            room: Bounds and what is left of them.
            judges: Who finds fault with rows.
            block_tokens: Tokens of rows read at once: bounds the memory.
        """
        self.room, self.judges, self.block_tokens = room, judges, block_tokens
        self.outcome = Outcome.of(len(room.undecided))
        self._denied: set[int] = set()
        self._passed: list[int] = []

    def run(self) -> Outcome:
        """Take rows in order of value; then what least amounts still lack, in that order.

        Raises:
            Infeasible: A least amount cannot hold any more.
        """
        return self._run(lambda: self._go(np.flatnonzero(self.room.undecided)))

    def run_ranked(self, ranker: Ranker, n_candidates: int) -> Outcome:
        """Take the best candidates in the order that the ranker gives; then as `run` does.

        Args:
            ranker: Of the first ``n_candidates`` rows.
            n_candidates: All of them are read.

        Raises:
            Infeasible: A least amount cannot hold any more.
        """
        return self._run(lambda: self._go_ranked(ranker, n_candidates))

    def _run(self, go: Callable[[], None]) -> Outcome:
        """Take rows, those that least amounts lack, and those denied for these, while any is."""
        n_taken = -1
        while not self.room.is_full and len(self.outcome.taken) > n_taken:
            n_taken = len(self.outcome.taken)
            go()
            # nothing was taken after them, so they lie below the cut like all that follow
            self.outcome.reasons[self._passed] = UNDECIDED
            while self.room.keeps_rows:
                self._go(self.room.rows_like_kept(), to_the_end=True)
            denied = np.array(sorted(self._denied), np.int64)
            self._denied.clear()
            self._go(denied[self.room.undecided[denied]])
        self._forget_below_the_cut()
        return self.outcome

    def _forget_below_the_cut(self) -> None:
        """Undo what was dropped behind the last row taken for lack of room: it cost nothing."""
        bounds = self.room.bounds
        if bounds.max_tokens is None and not (bounds.max_rows and self.room.is_full):
            return
        rest = np.arange(max(self.outcome.taken, default=-1) + 1, len(self.outcome.reasons))
        reasons, others = self.outcome.reasons[rest], self.outcome.others[rest]
        no_room = (reasons == BUDGET) | ((reasons == QUOTA) & (others != KEPT_FOR_OTHERS))
        self.outcome.reasons[rest[no_room]] = UNDECIDED

    def _decide(self, place: int) -> bool:
        """Take or drop a row that was looked at; return whether it was taken."""
        full = self.room.full_quota(place)
        if full is not None:
            return self._drop(place, QUOTA, full[0])
        if not self.room.fits_budget(place):
            self._passed.append(place)
            return self._drop(place, BUDGET)
        fault = self.judges.fault(place)
        if fault is not None:
            if fault.detail is not None:
                self.outcome.details[place] = fault.detail
            return self._drop(place, fault.reason, fault.other)
        if not self.room.admits(place):
            # not dropped for good: least amounts may come to need less than is kept for them
            self._denied.add(place)
            self.outcome.reasons[place] = QUOTA
            return False
        self._passed.clear()
        self.room.take(place)
        self.judges.take(place)
        self.outcome.reasons[place] = TAKEN
        self.outcome.taken.append(place)
        return True

    # ---------------------------------------------------------------------------- in order

    def _go(self, places: Int64[np.ndarray, " some"], *, to_the_end: bool = False) -> None:
        at = 0
        while at < len(places) and not self._ends(to_the_end=to_the_end):
            stop = at + self._block_length(places[at:])
            block = places[at:stop]
            self.judges.read(block[self.room.full_fields(block) < 0])
            while at < stop and not self._ends(to_the_end=to_the_end):
                next_rows = places[at : min(stop, at + CHUNK_ROWS)]
                chunk = next_rows[: self._chunk_length(next_rows)]
                self._decide_all(chunk)
                at += len(chunk)

    def _go_ranked(self, ranker: Ranker, n_candidates: int) -> None:
        candidates = np.flatnonzero(self.room.undecided[:n_candidates])
        self.judges.read(candidates)
        self.judges.look(candidates)
        while not self._ends(to_the_end=False) and (place := ranker.best()) is not None:
            if self.room.undecided[place]:
                self._decide(place)
            taken = self.outcome.reasons[place] == TAKEN  # now, or for a least amount before
            (ranker.take if taken else ranker.drop)(place)

    def _decide_all(self, chunk: Int64[np.ndarray, " some"]) -> None:
        full = self.room.full_fields(chunk)
        shut = chunk[full >= 0]
        self.room.drop_full(shut)
        self.outcome.reasons[shut], self.outcome.others[shut] = QUOTA, full[full >= 0]
        # one that does not fit comes alone, and need not be looked at
        open_rows = chunk[full < 0]
        fitting = open_rows[self.room.bounds.tokens[open_rows] <= self.room.tokens_left]
        self.judges.look(fitting)
        for place in open_rows.tolist():
            self._decide(place)

    def _ends(self, *, to_the_end: bool) -> bool:
        if self.room.is_full:
            return True
        if to_the_end:
            return not self.room.keeps_rows
        # the denied rows would fill what is left: those from here on would not be taken anyway
        if self.room.bounds.max_tokens is not None:
            denied_tokens = int(self.room.bounds.tokens[list(self._denied)].sum())
            used_up = self.room.keeps_rows and denied_tokens >= self.room.tokens_left
            return used_up or len(self._passed) >= PATIENCE
        kept_back = self.room.all_kept and not self.room.bounds.exact
        return kept_back and len(self._denied) >= self.room.rows_left

    def _block_length(self, rest: Int64[np.ndarray, " some"]) -> int:
        """Return how many rows to read: about those wanted, within the memory, at least one."""
        length = len(rest)
        tokens = np.cumsum(self.room.bounds.tokens[rest])
        if self.room.bounds.max_rows is not None:
            length = min(length, int(READ_AHEAD * self.room.rows_left) + PATIENCE)
        if self.room.bounds.max_tokens is not None:
            wanted = int(np.searchsorted(tokens, READ_AHEAD * self.room.tokens_left, "right"))
            length = min(length, wanted + PATIENCE)
        return max(1, min(length, int(np.searchsorted(tokens, self.block_tokens, "right"))))

    def _chunk_length(self, rest: Int64[np.ndarray, " some"]) -> int:
        """Return how many rows are decided on for certain: no earlier one can be the last."""
        bounds = self.room.bounds
        is_open = self.room.full_fields(rest) < 0
        length = len(rest)
        if bounds.max_rows is not None:
            length = int(np.searchsorted(np.cumsum(is_open), self.room.rows_left, "right"))
        if bounds.max_tokens is not None:
            tokens = np.cumsum(np.where(is_open, bounds.tokens[rest], 0))
            length = min(length, int(np.searchsorted(tokens, self.room.tokens_left, "right")))
        return max(1, min(length, len(rest)))

    def _drop(self, place: int, reason: int, other: int = KEPT_FOR_OTHERS) -> bool:
        self.outcome.reasons[place], self.outcome.others[place] = reason, other
        self.room.drop(place)
        return False
