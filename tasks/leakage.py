"""Leakage: does a row to be released hold a text that the model will be tested on?

Rows are compared with the query set that chose them and with given evaluation sets, by their
words (`tasks.words`): a row leaks when it has n words in a row in common with one of their texts
(13, as usual for language models), or the same words from beginning to end. Texts shorter than n
words have no n-gram and are compared whole only. Every hit has been seen in the words themselves;
hashes only say where to look (`rise_ops.ngrams`).

N-grams that more than half of a set's texts share, and more than ten, are the set's form (a
system prompt, a template) and are not looked for; their number is among the facts.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rise_ops.ngrams import (
    NgramTable,
    common_run,
    ngram_table,
    shared_texts,
    without_common,
)
from storage.corpus import Row
from storage.hits import LEAKAGE_SCHEMA
from storage.queries import QuerySet
from storage.signatures import SignatureIndex
from tasks.config import AutoFields, FilesSource, RowLimits
from tasks.fields import RowError, Tokenizer, resolve_fields, to_text
from tasks.privacy import find_private
from tasks.records import Record
from tasks.release_config import LeakageConfig
from tasks.row_checks import hits_table
from tasks.sources import read_records, source_identity
from tasks.words import Vocabulary, folded, words_of

COMMON_TEXTS = 10
"""An n-gram in no more texts of a set than this is never taken for its form."""

ROWS_AT_ONCE = 2_000
"""Rows compared at once: their words, as numbers, stay in the cache."""

MOST_LISTED = 5
"""Texts listed for a row; how many there are is listed as well."""

EXCERPT_CHARS = 200
WITHHELD = "(not shown: the row has strings that look private)"
EXACT = 2.0
"""Share of a text that has the same words: above that of any other."""

SHOWN_PROBLEMS = 20
"""Unusable records that the message lists."""

QUERIES = "query set {name}"
"""Name of the query set among the sets; no evaluation set can have it, because of the space."""


@dataclass(frozen=True)
class ComparedText:
    """A text of the small side: its set, its id there, and itself."""

    set_name: str
    text_id: str
    text: str


class LeakageCheck:
    """Compares rows with the texts of query and evaluation sets; a `RecordingCheck`."""

    name = "leakage"

    def __init__(
        self,
        config: LeakageConfig,
        texts: Sequence[ComparedText],
        *,
        phone_regions: Sequence[str] = ("US",),
    ) -> None:
        """Build the table that rows are compared with.

        Args:
            config: Length of an n-gram, and what becomes of rows that overlap.
            texts: The small side.
            phone_regions: As the privacy guard takes them: of rows with private strings no word is
                kept.
        """
        self._config, self._phone_regions = config, phone_regions
        self._texts = list(texts)
        self._vocabulary = Vocabulary()
        self._vocabulary.learn([one.text for one in self._texts])
        numbers, ends = self._vocabulary.numbers([one.text for one in self._texts])
        self._sets = list(dict.fromkeys(one.set_name for one in self._texts))
        self._table, self._n_common = _table(numbers, ends, self._set_numbers(), config)
        self._same: defaultdict[bytes | str, list[int]] = defaultdict(list)
        for place, part in enumerate(_parts(numbers, ends)):
            self._same[_whole(part, self._texts[place].text)].append(place)
        self._found: dict[str, list[dict[str, Any]]] = {}

    @property
    def facts(self) -> dict[str, object]:
        """What was compared: each set's texts, those too short, and n-grams taken for its form."""
        numbers, too_short = self._set_numbers(), self._table.n_ngrams == 0
        return {
            name: {
                "texts": int((numbers == number).sum()),
                "compared_whole_only": int(too_short[numbers == number].sum()),
                "common_ngrams": int(self._n_common[number]),
            }
            for number, name in enumerate(self._sets)
        }

    def faults(self, rows: Sequence[Row]) -> list[str | None]:
        """Return what each row overlaps; None everywhere when overlaps are only reported."""
        faults: list[str | None] = []
        waiting = iter(rows)
        while block := list(islice(waiting, ROWS_AT_ONCE)):
            for row, found in zip(block, self._compare(block), strict=True):
                if found:
                    self._found[row.row_id] = found
                removed = found and self._config.action == "remove"
                faults.append(_fault(found, self._config.ngram) if removed else None)
        return faults

    def hits(self, among: Collection[str] | None = None) -> pa.Table:
        """Return LEAKAGE_SCHEMA, see `RecordingCheck`."""
        return hits_table(self._found, among, LEAKAGE_SCHEMA)

    def _set_numbers(self) -> NDArray[np.int32]:
        number = {name: place for place, name in enumerate(self._sets)}
        return np.array([number[one.set_name] for one in self._texts], np.int32)

    def _compare(self, rows: Sequence[Row]) -> Iterator[list[dict[str, Any]]]:
        """Yield the lines of the table for each row."""
        numbers, ends = self._vocabulary.numbers([row.text for row in rows])
        places, ngrams = self._table.find(numbers)
        bounds = np.searchsorted(places, np.concatenate([[0], ends])).tolist()
        starts = [0, *(ends[:-1] + 1).tolist()]
        for number, (row, part) in enumerate(zip(rows, _parts(numbers, ends), strict=True)):
            mine = slice(bounds[number], bounds[number + 1])
            same = self._same_words(part, row.text)
            if not same and mine.start == mine.stop:
                yield []
                continue
            shared = _Shared(self._table, places[mine] - starts[number], ngrams[mine])
            yield self._lines(row, same, shared)

    def _same_words(self, part: NDArray[np.int32], text: str) -> list[int]:
        if len(part) and part.min() < 0:  # a word that no text of the small side has
            return []
        return self._same.get(_whole(part, text), [])

    def _lines(self, row: Row, same: Sequence[int], shared: "_Shared") -> list[dict[str, Any]]:
        """Return the lines of one row: for each set the closest texts, equal ones first."""
        shares = {**shared.shares(), **dict.fromkeys(same, EXACT)}
        found = find_private(row.text, phone_regions=self._phone_regions)
        words = [] if found else words_of(row.text)
        lines = []
        for name, others in self._by_set(shares).items():
            closest = sorted(others, key=lambda other: (-shares[other], other))[:MOST_LISTED]
            for other in closest:
                exact = shares[other] == EXACT
                start, stop = (0, len(words)) if exact else shared.run(other)
                excerpt = " ".join(words[start:stop])[:EXCERPT_CHARS]
                lines.append(
                    {
                        "row_id": row.row_id,
                        "set": name,
                        "other_id": self._texts[other].text_id,
                        "kind": "exact" if exact else "ngram",
                        "share": min(shares[other], 1.0),
                        "excerpt": excerpt if words else WITHHELD,
                        "n_others": len(others),
                    }
                )
        return lines

    def _by_set(self, others: Collection[int]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for other in sorted(others):  # sets one after the other, as their texts are
            found.setdefault(self._texts[other].set_name, []).append(other)
        return found


@dataclass(frozen=True)
class _Shared:
    """The n-grams that one row shares with the small side, by their places in the row."""

    table: NgramTable
    places: NDArray[np.int64]
    ngrams: NDArray[np.int64]

    def shares(self) -> dict[int, float]:
        """Return, for each text with an n-gram in common, the part of its n-grams that are."""
        texts, n_common = shared_texts(self.table, self.ngrams)
        shares = n_common / self.table.n_ngrams[texts]
        return dict(zip(texts.tolist(), shares.tolist(), strict=True))

    def run(self, text: int) -> tuple[int, int]:
        """Return the first run of words that the row shares with a text."""
        return common_run(self.table, self.places, self.ngrams, text)


def leakage_check(
    config: LeakageConfig,
    query_set: QuerySet,
    index: SignatureIndex,
    *,
    phone_regions: Sequence[str] = ("US",),
) -> LeakageCheck | None:
    """Return the check of a release, None when it is off.

    Args:
        config: What is compared and what becomes of rows that overlap.
        query_set: The queries that the rows were scored by.
        index: Its tokenizer writes out the chats of evaluation sets, as it wrote out queries.
        phone_regions: See `LeakageCheck`.

    Raises:
        ValueError: A file of an evaluation set is missing or has a record that is not usable.
    """
    if config.action == "off":
        return None
    queries = query_set.queries().select(["row_id", "text"]).to_pylist()
    name = QUERIES.format(name=query_set.ref.name)
    texts = [ComparedText(name, line["row_id"], line["text"]) for line in queries]
    tokenizer = _IndexTokenizer(index)
    for set_name in sorted(config.evaluation_sets):
        texts += evaluation_texts(set_name, config.evaluation_sets[set_name], tokenizer)
    return LeakageCheck(config, texts, phone_regions=phone_regions)


def leakage_identity(config: LeakageConfig) -> dict[str, object]:
    """Return what the evaluation sets are, by content: part of a release's identity.

    Returns:
        Name of each set to paths, sizes and sha256 of its files; empty when the check is off.

    Raises:
        ValueError: A path matches nothing, or a file is empty.
    """
    if config.action == "off":
        return {}
    return {
        name: source_identity(FilesSource(paths=paths))
        for name, paths in sorted(config.evaluation_sets.items())
    }


def evaluation_texts(name: str, paths: Sequence[str], tokenizer: Tokenizer) -> list[ComparedText]:
    """Read an evaluation set; a text's id is its place, ``path:line``.

    Args:
        name: Name of the set.
        paths: Files or globs: JSON Lines, Parquet or CSV, with fields as queries have them.
        tokenizer: Writes out chats.

    Raises:
        ValueError: A file is missing or empty, or a record is not usable; lists the first 20.
    """
    texts, problems = [], []
    for record in read_records(FilesSource(paths=tuple(paths)), RowLimits()):
        try:
            texts.append(ComparedText(name, record.location, _text_of(record, tokenizer)))
        except RowError as error:
            problems.append(f"  {record.location}: {error}")
    if problems:
        shown = "\n".join(problems[:SHOWN_PROBLEMS])
        raise ValueError(
            f"{len(problems)} of {len(texts) + len(problems)} records of evaluation set {name!r} "
            f"cannot be read, and none may be left out:\n{shown}\nMend or remove these records."
        )
    return texts


def _text_of(record: Record, tokenizer: Tokenizer) -> str:
    if record.value is None:
        raise RowError(record.error or "not readable")
    fields = resolve_fields(AutoFields(), record.value)
    return to_text(record.value, fields, tokenizer)[0]


class _IndexTokenizer:
    """The tokenizer of an index's model, loaded when the first chat needs it."""

    fingerprint = ""

    def __init__(self, index: SignatureIndex) -> None:
        self._index = index
        self._loaded: Tokenizer | None = None

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text."""
        return self._tokenizer().count(texts)

    def render_chat(self, messages: Sequence[Mapping[str, Any]]) -> tuple[str, int]:
        """Return a conversation as text and the characters before its last assistant turn."""
        return self._tokenizer().render_chat(messages)

    def _tokenizer(self) -> Tokenizer:
        if self._loaded is None:
            from tasks.backbone import load_tokenizer
            from tasks.queries import index_model

            self._loaded = load_tokenizer(index_model(self._index))
        return self._loaded


def _table(
    numbers: NDArray[np.int32],
    ends: NDArray[np.int64],
    set_of: NDArray[np.int32],
    config: LeakageConfig,
) -> tuple[NgramTable, NDArray[np.int64]]:
    """Return the n-grams of the small side without the common ones, and how many those are."""
    sizes = np.bincount(set_of)
    most = np.maximum(COMMON_TEXTS, np.floor(config.common_share * sizes).astype(np.int64))
    return without_common(ngram_table(numbers, ends, n=config.ngram), set_of, most)


def _parts(numbers: NDArray[np.int32], ends: NDArray[np.int64]) -> Iterator[NDArray[np.int32]]:
    """Yield the words of each text."""
    start = 0
    for end in ends.tolist():
        yield numbers[start:end]
        start = end + 1


def _whole(words: NDArray[np.int32], text: str) -> bytes | str:
    """Return what texts of equal words have in common; without words, the bare characters."""
    return words.tobytes() or "".join(folded(text).split())


def _fault(found: Sequence[Mapping[str, Any]], n: int) -> str:
    """Return what a row overlaps, without a word of it."""
    closest = max(found, key=lambda line: (line["kind"] == "exact", line["share"]))
    what = (
        "the same words as"
        if closest["kind"] == "exact"
        else f"{closest['share']:.0%} of the {n}-grams of"
    )
    n_others = sum({line["set"]: line["n_others"] for line in found}.values())
    more = f", and {n_others - 1} more texts" if n_others > 1 else ""
    return f"{what} {closest['other_id']} in {closest['set']}{more}"
