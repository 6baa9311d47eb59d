"""Records become candidates for rows: text, identity, hashes and token counts, part by part.

A part is a data frame that one pass of the gate judges. Parts are bounded in rows and in
characters, so that memory does not grow with the source; what grows is the ledger of ids, about
400 bytes a row.

Identity: the id field where the config names one, else the first 32 hexadecimal digits of the
sha256 over source path and content. The content hash covers the text and the prompt's length.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from tasks.config import RowsConfig
from tasks.fields import NamedFields, RowError, Tokenizer, resolve_fields, scalar_string, to_text
from tasks.records import Record, excerpt

if TYPE_CHECKING:
    import pandas as pd

PART_ROWS = 50_000
PART_CHARS = 64 * 2**20
"""A part ends with whichever comes first."""

ROW_ID_DIGITS = 32
"""Hexadecimal digits of an id made from the content: 128 bits."""


Standing = Literal["new", "known", "conflict", "changed", "superseded"]
"""How a record stands to the corpus: its id is not there; is there with equal content; with other
content, which is a conflict, or replaces what is there, or is older than what is there."""


@dataclass(frozen=True)
class Claimed:
    """What a record claims to be, as far as the corpus must know it."""

    row_id: str
    content_hash: str
    label: str | None


class KnownRows(Protocol):
    """The rows that the corpus already has."""

    def standings(self, claimed: Sequence[Claimed]) -> list[Standing]:
        """Return how each record stands to the rows that are there."""

    def locations(self, row_ids: Sequence[str]) -> dict[str, str]:
        """Return ``path:line`` of rows that are there."""


class Barred(Protocol):
    """What may not come in, because it was taken down."""

    def bars_source(self, source: str) -> bool:
        """Tell whether nothing from a source may come in."""

    def bars(self, row_id: str, content_hash: str) -> bool:
        """Tell whether a row may not come in."""


class NoKnownRows:
    """A corpus without rows, and every query set."""

    def standings(self, claimed: Sequence[Claimed]) -> list[Standing]:
        """Nothing is known."""
        return ["new"] * len(claimed)

    def locations(self, row_ids: Sequence[str]) -> dict[str, str]:
        """Nothing is known."""
        return {}


@dataclass(frozen=True)
class Part:
    """Candidates to be judged.

    Attributes:
        frame: Columns row_id, text, prompt_chars, label, source, source_line, content_hash,
            n_chars, n_tokens, problem, repeats, raw; indexed by the record's number in the batch.
        n_known: Records that the corpus already has, with equal content, or of which it has a later
            version; not in the frame.
        n_taken_down: Records that may not come in (again); not in the frame.
    """

    frame: "pd.DataFrame"
    n_known: int
    n_taken_down: int


class _Claim(NamedTuple):
    content: bytes
    source: str
    line: int


@dataclass
class _Candidate:
    """One record on its way to a row; a problem says why it does not become one."""

    source: str
    source_line: int
    row_id: str | None = None
    text: str | None = None
    prompt_chars: int | None = None
    label: str | None = None
    content_hash: str | None = None
    n_tokens: int | None = None
    problem: str | None = None
    repeats: str | None = None
    raw: str | None = None

    @property
    def n_chars(self) -> int | None:
        """Characters of the text, when there is one."""
        return None if self.text is None else len(self.text)


_DTYPES = {
    **dict.fromkeys(
        ["row_id", "text", "label", "source", "content_hash", "problem", "repeats", "raw"], "object"
    ),
    "source_line": "int64",
    **dict.fromkeys(["prompt_chars", "n_chars", "n_tokens"], "Int64"),
}
"""Columns of a part; objects, because string columns of pandas turn None into NaN."""


@dataclass
class CandidateReader:
    """Makes parts from records; remembers the mapping that was chosen and the ids that it saw.

    An id belongs to the first record that claims it, whether or not that one is kept.
    """

    rows: RowsConfig
    tokenizer: Tokenizer
    known: KnownRows = field(default_factory=NoKnownRows)
    barred: Barred | None = None
    _fields: NamedFields | None = None
    _claims: dict[bytes, _Claim] = field(default_factory=dict)
    _n_records: int = 0

    def parts(self, records: Iterable[Record]) -> Iterator[Part]:
        """Yield the candidates of all records in order; none when there are no records."""
        waiting: list[_Candidate] = []
        n_chars = 0
        for record in records:
            candidate = self._candidate(record)
            waiting.append(candidate)
            n_chars += len(candidate.text or "")
            if len(waiting) >= PART_ROWS or n_chars >= PART_CHARS:
                yield self._part(waiting)
                waiting, n_chars = [], 0
        if waiting:
            yield self._part(waiting)

    def _candidate(self, record: Record) -> _Candidate:
        candidate = _Candidate(record.source, record.line)
        if record.value is None:
            candidate.problem, candidate.raw = record.error, excerpt(record)
            return candidate
        try:
            if self._fields is None:
                self._fields = resolve_fields(self.rows.fields, record.value)
            text, prompt_chars = to_text(record.value, self._fields, self.tokenizer)
            candidate.content_hash = content_hash(text, prompt_chars)
            candidate.row_id = self._row_id(record, candidate.content_hash)
            candidate.label = self._label(record)
        except RowError as error:
            candidate.problem, candidate.raw = str(error), excerpt(record)
            return candidate
        candidate.text, candidate.prompt_chars = text, prompt_chars
        return candidate

    def _row_id(self, record: Record, content: str) -> str:
        if self.rows.id_field is not None and record.value is not None:
            return scalar_string(record.value, self.rows.id_field, what="id")
        return made_id(record.source, content)

    def _label(self, record: Record) -> str | None:
        name = self.rows.label_field
        if name is None or record.value is None or record.value.get(name) is None:
            return None
        return scalar_string(record.value, name, what="label")

    def _part(self, candidates: list[_Candidate]) -> Part:
        import pandas as pd

        allowed = [candidate for candidate in candidates if not self._is_barred(candidate)]
        self._count_tokens(allowed)
        kept = self._without_known(allowed)
        columns = {
            name: pd.Series([getattr(one, name) for one in kept], dtype=dtype)
            for name, dtype in _DTYPES.items()
        }
        frame = pd.DataFrame(columns)
        frame.index = pd.RangeIndex(self._n_records, self._n_records + len(kept))
        self._n_records += len(kept)
        n_taken_down = len(candidates) - len(allowed)
        return Part(frame, n_known=len(allowed) - len(kept), n_taken_down=n_taken_down)

    def _is_barred(self, candidate: _Candidate) -> bool:
        """Tell whether a record was taken down; it leaves no trace, in quarantine neither."""
        if self.barred is None:
            return False
        if self.barred.bars_source(candidate.source):
            return True
        row_id, content = candidate.row_id, candidate.content_hash
        return row_id is not None and content is not None and self.barred.bars(row_id, content)

    def _count_tokens(self, candidates: list[_Candidate]) -> None:
        """Count tokens where the text is within its length limits; the others fail anyway."""
        limits = self.rows.limits
        counted = [
            (candidate, candidate.text)
            for candidate in candidates
            if candidate.text is not None
            and limits.min_chars <= len(candidate.text) <= limits.max_chars
        ]
        counts = self.tokenizer.count([text for _, text in counted]) if counted else []
        for (candidate, _), n_tokens in zip(counted, counts, strict=True):
            candidate.n_tokens = n_tokens

    def _without_known(self, candidates: list[_Candidate]) -> list[_Candidate]:
        """Claim the ids, mark repeats, and leave out what the corpus has with equal content."""
        named = [candidate for candidate in candidates if candidate.problem is None]
        for candidate in named:
            candidate.repeats = self._claim(candidate)
        fresh = [candidate for candidate in named if candidate.repeats is None]
        claimed = [Claimed(one.row_id or "", one.content_hash or "", one.label) for one in fresh]
        pairs = list(zip(fresh, self.known.standings(claimed), strict=True))
        known = {id(one) for one, standing in pairs if standing in ("known", "superseded")}
        taken = [one for one, standing in pairs if standing == "conflict"]
        if taken:
            places = self.known.locations([one.row_id or "" for one in taken])
            for one in taken:
                one.repeats = (
                    f"id conflict: the corpus has this id from {places[one.row_id or '']} with "
                    "other content"
                )
        return [candidate for candidate in candidates if id(candidate) not in known]

    def _claim(self, candidate: _Candidate) -> str | None:
        row_id, content = candidate.row_id or "", bytes.fromhex(candidate.content_hash or "")
        key = hashlib.sha256(row_id.encode()).digest()[:16]
        mine = _Claim(content, candidate.source, candidate.source_line)
        claim = self._claims.setdefault(key, mine)
        if claim is mine:
            return None
        if claim.content == content:
            return f"duplicate id: same id and content as {claim.source}:{claim.line}"
        return f"id conflict: id already used at {claim.source}:{claim.line} with other content"


def content_hash(text: str, prompt_chars: int) -> str:
    """Return the sha256 over the prompt's length and the text, 64 hexadecimal digits."""
    return hashlib.sha256(f"{prompt_chars}\n{text}".encode()).hexdigest()


def made_id(source: str, content: str) -> str:
    """Return the id of a row without an id field: equal content of one source, equal id."""
    return hashlib.sha256(f"{source}\n{content}".encode()).hexdigest()[:ROW_ID_DIGITS]
