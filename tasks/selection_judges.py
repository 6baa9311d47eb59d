"""Who finds fault with single rows of a selection: checks, near duplicates by text and signature.

Everything that is learned about a row is remembered in `RowFacts`, so that the selections without
one constraint, which tell what it cost, read hardly a row again.
"""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from rise_ops.codes import Code
from rise_ops.near_signatures import (
    KEPT_NUMBERS,
    NearSignatures,
    Shortener,
    threshold_of_code,
)
from rise_ops.near_texts import NearTexts
from rise_ops.walk import JUDGES, Fault, Judges
from storage.corpus import Row
from tasks.row_checks import RowCheck
from tasks.row_memory import RowMemory
from tasks.selection_problem import Problem
from tasks.selection_reader import RowReader
from tasks.text_digests import N_NUMBERS, text_digests

TEXT, SIGNATURE, CHECKS = JUDGES, JUDGES + 1, JUDGES + 2
"""Reasons: the checks count up from the last."""

BLOCK_TOKENS = 2**25
"""Tokens of rows whose texts are in memory at once: some 150 MB of text."""

SIGNATURE_ROWS = 2_048
"""Rows whose whole signatures are in memory at once."""


class RowFacts:
    """What is known about rows that were read, by their place in the order of values.

    Attributes:
        verdicts: What checks found, of rows with a fault: words by number of the check.
        cosines: Of all pairs of candidates for diversity, once they are known.
    """

    def __init__(self, problem: Problem, reader: RowReader, checks: Sequence[RowCheck]) -> None:
        """Know nothing yet."""
        self.problem, self.checks = problem, checks
        self._reader = reader
        n_rows = len(problem.positions)
        self.verdicts: dict[int, dict[int, str]] = {}
        self.cosines: NDArray[np.float32] | None = None
        self._is_checked = np.zeros(n_rows, bool)
        self._is_read = np.zeros(n_rows, bool)
        self._digests = RowMemory(n_rows, N_NUMBERS, np.uint32)
        self._vectors: RowMemory | None = None
        self._shortener: Shortener | None = None
        self._rows: dict[int, Row] = {}

    @property
    def n_read(self) -> int:
        """Rows whose text was read."""
        return int(self._is_read.sum())

    @property
    def code(self) -> Code:
        """How signatures are stored."""
        return self._reader.code

    def read(self, places: NDArray[np.int64], *, texts: bool, checks: bool) -> None:
        """Read texts: their digests are kept, and for checks the rows themselves until the next."""
        self._rows = {}
        missing = self._digests.unknown(places) if texts else places[:0]
        if checks:
            unchecked = places[~self._is_checked[places]]
            missing = np.union1d(missing, unchecked)
        for part in _parts(missing, self.problem.tokens, BLOCK_TOKENS):
            rows = self._reader.rows(self.problem.positions[part])
            self._is_read[part] = True
            if texts:
                new = np.isin(part, self._digests.unknown(part))
                self._digests.add(
                    part[new],
                    text_digests([row.text for row, n in zip(rows, new, strict=True) if n]),
                )
            if checks:
                self._rows.update(zip(part.tolist(), rows, strict=True))

    def check(self, places: NDArray[np.int64]) -> None:
        """Ask every check about rows that were read and not asked about before."""
        unchecked = [place for place in places.tolist() if not self._is_checked[place]]
        rows = [self._rows.pop(place) for place in unchecked]
        for number, check in enumerate(self.checks):
            faults = check.faults(rows) if rows else []
            for place, text in zip(unchecked, faults, strict=True):
                if text is not None:
                    self.verdicts.setdefault(place, {})[number] = text
        self._is_checked[unchecked] = True

    def digests(self, places: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Return digests of rows that were read."""
        return self._digests.of(places).astype(np.uint32, copy=False)

    def vectors(self, places: NDArray[np.int64]) -> NDArray[np.float16]:
        """Return shortened signatures, read where they are not known."""
        missing = places if self._vectors is None else self._vectors.unknown(places)
        for start in range(0, len(missing), SIGNATURE_ROWS):
            part = missing[start : start + SIGNATURE_ROWS]
            signatures = self.signatures(part)
            if self._vectors is None or self._shortener is None:
                n_numbers = signatures.shape[1]
                self._shortener = Shortener(n_numbers)
                n_kept = min(n_numbers, KEPT_NUMBERS)
                self._vectors = RowMemory(len(self._is_read), n_kept, np.float16)
            self._vectors.add(part, self._shortener.shorten(signatures))
        found = np.zeros((0, 1)) if self._vectors is None else self._vectors.of(places)
        return found.astype(np.float16, copy=False)

    def signatures(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read whole signatures."""
        return self._reader.signatures(self.problem.positions[places])


class RowJudges(Judges):
    """Checks, then likeness of texts, then likeness of signatures."""

    def __init__(
        self, facts: RowFacts, without: Collection[int] = (), *, asks_checks: bool = True
    ) -> None:
        """Judge with nothing taken.

        Args:
            facts: What is known about rows.
            without: Reasons that are left aside.
            asks_checks: Whether checks may be asked about rows that they have not seen; if not,
                such rows pass.
        """
        collapse = facts.problem.config.collapse
        self._facts = facts
        self._without = set(without)
        self._asks_checks = asks_checks and bool(facts.checks)
        self._texts: NearTexts | None = None
        self._signatures: NearSignatures | None = None
        self._cosine = collapse.signature if SIGNATURE not in self._without else None
        self._is_taken = np.zeros(len(facts.problem.positions), bool)
        if collapse.text is not None and TEXT not in self._without:
            self._texts = NearTexts(collapse.text, N_NUMBERS)

    def read(self, places: NDArray[np.int64]) -> None:
        """Read the rows' texts, if anything asks for them."""
        self._facts.read(places, texts=self._texts is not None, checks=self._asks_checks)
        if self._texts is not None:
            self._texts.start_block(places, self._facts.digests(places))

    def look(self, places: NDArray[np.int64]) -> None:
        """Ask the checks, and compare signatures."""
        if self._asks_checks:
            self._facts.check(places)
        if self._cosine is not None and len(places):
            vectors = self._facts.vectors(places)
            if self._signatures is None:
                least = threshold_of_code(self._cosine, self._facts.code)
                self._signatures = NearSignatures(least, vectors.shape[1])
            self._signatures.look(places, vectors)

    def fault(self, place: int) -> Fault | None:
        """Say what a check found, or which taken row this one is like."""
        for number, text in self._facts.verdicts.get(place, {}).items():
            if CHECKS + number not in self._without:
                return Fault(CHECKS + number, detail=text)
        like = None if self._texts is None else self._texts.like(place)
        if like is not None:
            return Fault(TEXT, like[0], f"similarity {like[1]:.3f}")
        near = None if self._signatures is None else self._signatures.like(place, self._is_taken)
        if near is not None:
            return Fault(SIGNATURE, near[0], f"cosine {near[1]:.3f}")
        return None

    def take(self, place: int) -> None:
        """Count a row among those that others may be like."""
        self._is_taken[place] = True
        if self._texts is not None:
            self._texts.take(place)
        if self._signatures is not None:
            self._signatures.take(place)


def _parts(
    places: NDArray[np.int64], tokens: NDArray[np.int64], most_tokens: int
) -> list[NDArray[np.int64]]:
    """Cut rows into parts of at most so many tokens, at least one row each."""
    if len(places) == 0:
        return []
    part_of = np.cumsum(tokens[places]) // most_tokens
    return np.split(places, np.flatnonzero(np.diff(part_of)) + 1)
