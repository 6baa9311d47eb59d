"""Which rows a report shows, the query that each answers strongest, and the tokens behind it."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rise_ops.codes import RowCodes, decode
from storage.corpus import Row
from storage.errors import StorageError
from tasks.codes import index_panel
from tasks.config import RuntimeConfig
from tasks.report_data import ReportData

if TYPE_CHECKING:
    from tasks.attribution import TokenContributions

MOST_EXAMPLES = 40
"""Examples of one kind, whatever is asked for: the page has to stay small."""

MOST_TOKENS = 2048
"""Rows longer than this are shown without highlights: reading them again takes too long."""


@dataclass(frozen=True)
class Answered:
    """The query that a row answers strongest.

    Attributes:
        query_id: Its id.
        prompt: Its masked beginning; may be empty.
        completion: What the row answers to.
        score: Of the row for this query.
    """

    query_id: str
    prompt: str
    completion: str
    score: float


@dataclass(frozen=True)
class Example:
    """A row that the report shows.

    Attributes:
        row: The row.
        position: Its place in the index.
        value: What it was selected by.
        rank: In the release, from 1; None when it is not in it.
        about: Percentile, z and false discovery of a released row, where known.
        reason: Why it was passed over; None when it was not.
        detail: What the constraint said of it.
        answered: The query that it answers strongest; None when its signature is empty.
        tokens: What the tokens of row and query add to their score; None without highlights.
    """

    row: Row
    position: int
    value: float
    rank: int | None = None
    about: Mapping[str, Any] | None = None
    reason: str | None = None
    detail: str | None = None
    answered: Answered | None = None
    tokens: "TokenContributions | None" = None


@dataclass(frozen=True)
class Examples:
    """The rows that the report shows.

    Attributes:
        top: The first of the release.
        last: The last of the release, from the cut upwards.
        next: Those that would have come next.
        rejected: Passed over, one reason after the other.
        no_highlights: Why there are no token highlights; None when there are, or none were wanted.
    """

    top: tuple[Example, ...]
    last: tuple[Example, ...]
    next: tuple[Example, ...]
    rejected: tuple[Example, ...]
    no_highlights: str | None = None

    def __iter__(self) -> Iterator[Example]:
        """Iterate over all of them."""
        yield from (*self.top, *self.last, *self.next, *self.rejected)


@dataclass(frozen=True)
class _Choice:
    row_id: str
    rank: int | None = None
    about: Mapping[str, Any] | None = None
    reason: str | None = None
    detail: str | None = None


def read_examples(
    data: ReportData, n_examples: int, *, highlights: bool, runtime: RuntimeConfig
) -> Examples:
    """Choose the rows to show and read them.

    Args:
        data: The release.
        n_examples: Of each kind; at most `MOST_EXAMPLES`.
        highlights: Run the model on every example. What it cannot do is said, and is no error.
        runtime: Device and batch size, for highlights.

    Raises:
        NotFoundError: A row is no longer in the corpus.
        CorruptionError: A file is damaged.
    """
    n = min(n_examples, MOST_EXAMPLES)
    top, last = _released(data, n)
    chosen = (top, last, _next(data, n), _rejected(data, n))
    found = _read(data, [choice for part in chosen for choice in part])
    no_highlights = None
    if highlights:
        found, no_highlights = _with_tokens(data, found, runtime)
    parts = [tuple(found[choice.row_id] for choice in part) for part in chosen]
    return Examples(parts[0], parts[1], parts[2], parts[3], no_highlights)


# ----------------------------------------------------------------------------------- choosing


def _released(data: ReportData, n: int) -> tuple[list[_Choice], list[_Choice]]:
    n_top = min(n, data.n_released)
    n_last = min(n, data.n_released - n_top)
    top = data.attributes.slice(0, n_top).to_pylist()
    last = data.attributes.slice(data.n_released - n_last).to_pylist()[::-1]
    first, second = (
        [
            _Choice(line["row_id"], rank=line["rank"], about=line)
            for line in lines
            if line["row_id"] not in data.withdrawn
        ]
        for lines in (top, last)
    )
    return first, second


def _next(data: ReportData, n: int) -> list[_Choice]:
    """Return the best rows that the selection did not reach, best first."""
    groups = data.groups
    places = np.flatnonzero(groups.rest)
    if data.config.prefer == "highest":
        order = np.argsort(-groups.values[places], kind="stable")
    else:
        order = np.argsort(groups.values[places], kind="stable")
    row_ids = data.values.column("row_id")
    return [_Choice(row_ids[int(place)].as_py()) for place in places[order[:n]]]


def _rejected(data: ReportData, n: int) -> list[_Choice]:
    """Return passed-over rows, the best of each reason first; never one that was taken down."""
    why = data.dropped.select(["row_id", "reason", "detail"])
    withdrawn = pa.array(sorted(data.withdrawn), pa.string())
    shown = why.filter(pc.invert(pc.is_in(why.column("row_id"), withdrawn)))
    by_reason = [
        shown.filter(pc.equal(shown.column("reason"), reason)).slice(0, n).to_pylist()
        for reason in pc.unique(shown.column("reason")).to_pylist()
    ]
    rounds = [part[turn] for turn in range(n) for part in by_reason if turn < len(part)]
    return [_Choice(**line) for line in rounds[:n]]


# ------------------------------------------------------------------------------------ reading


def _read(data: ReportData, chosen: Sequence[_Choice]) -> dict[str, Example]:
    row_ids = [choice.row_id for choice in chosen]
    rows = data.rows(row_ids)
    positions = data.positions(row_ids)
    answered = strongest_queries(data, positions)
    return {
        choice.row_id: Example(
            row=rows[choice.row_id],
            position=position,
            value=float(data.groups.values[position]),
            rank=choice.rank,
            about=choice.about,
            reason=choice.reason,
            detail=choice.detail,
            answered=answered.get(position),
        )
        for choice, position in zip(chosen, positions, strict=True)
    }


def strongest_queries(data: ReportData, positions: Sequence[int]) -> dict[int, Answered]:
    """Return the query with the highest score for each row of the index, by the row's place.

    Rows without predicted tokens answer nothing and are left out; so are all rows when the index
    is no longer there.
    """
    index = data.index
    if index is None:
        return {}
    queries = data.query_set.queries().select(["row_id", "text", "prompt_chars"]).to_pylist()
    vectors = index_panel(index, data.query_set.signatures()).vectors[:-1]
    found = {}
    for block, places in _by_block(positions, index.block_rows).items():
        codes, n_positions = index.read_block(block)
        scales = index.read_scales(block)
        local = np.array(places) - block * index.block_rows
        chosen = RowCodes(codes[local], None if scales is None else scales[local])
        scores = decode(chosen) @ vectors.T
        for place, at, row_scores in zip(places, local, scores, strict=True):
            if n_positions[at] > 0:
                best = int(row_scores.argmax())
                found[place] = _answered(queries[best], float(row_scores[best]))
    return found


def _by_block(positions: Sequence[int], block_rows: int) -> dict[int, list[int]]:
    blocks: dict[int, list[int]] = defaultdict(list)
    for position in sorted(set(positions)):
        blocks[position // block_rows].append(position)
    return blocks


def _answered(query: Mapping[str, Any], score: float) -> Answered:
    text, cut = query["text"], query["prompt_chars"]
    return Answered(query["row_id"], text[:cut], text[cut:], score)


# --------------------------------------------------------------------------------- highlights


def _with_tokens(
    data: ReportData, examples: Mapping[str, Example], runtime: RuntimeConfig
) -> tuple[dict[str, Example], str | None]:
    """Return the examples with their tokens, or as they are and why there are none."""
    from tasks.attribution import token_contributions

    found = dict(examples)
    if data.index is None:
        return found, "the index that the rows were scored with is no longer there."
    try:
        for row_id, example in examples.items():
            if example.answered is not None and example.row.n_tokens <= MOST_TOKENS:
                tokens = token_contributions(
                    data.index.ref,
                    row_id,
                    example.answered.prompt,
                    example.answered.completion,
                    runtime=runtime,
                )
                found[row_id] = replace(example, tokens=tokens)
    except (ValueError, StorageError, OSError) as error:
        # the page is drawn whether or not the model is on this machine; the reason stands on it
        return dict(examples), str(error)
    return found, None
