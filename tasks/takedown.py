"""Taking rows down: which rows, what is masked from then on, and the proof that a release carries.

A takedown by id is about a content: the same content under another id goes with it, and neither
id nor content comes in again. A takedown by source is about where rows come from: everything from
there goes, and nothing from there comes in again. Texts stay in the batches' files until somebody
rewrites the corpus; scores, attributions and releases made from now on leave the rows out.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from storage.catalog import corpus_names
from storage.corpus import Corpus
from storage.errors import NotFoundError, StorageError
from storage.files import digest
from storage.refs import CorpusRef, ReleaseRef
from storage.release_pointer import is_latest
from storage.releases import Release, all_releases, open_release
from storage.rows import read_table
from storage.tombstones import TOMBSTONE_SCHEMA, Bars, Record, Tombstones, TombstoneWriter
from tasks.row_places import gone_ids
from tasks.takedown_rows import find_rows

MOST_HASHES = 1_000
"""Rows whose ids a release's proof lists one by one, hashed; above that only their digest."""

REASON = re.compile(r"[^\x00-\x1f\x7f]{1,500}")
"""One line of text."""


@dataclass(frozen=True)
class HeldRows:
    """A release that still has rows that were taken down, or cannot be read to find out.

    Attributes:
        ref: The release.
        n_rows: How many; None when the release is damaged.
        is_latest: ``latest`` of its name points to it.
    """

    ref: ReleaseRef
    n_rows: int | None
    is_latest: bool


@dataclass(frozen=True)
class TakedownReport:
    """What taking down did.

    Attributes:
        record: The new record; None when everything was taken down before.
        n_rows: Rows of the corpus taken down now.
        n_same_content: Those of them that were not named, but have the content of one that was.
        n_before: Rows that were named and had been taken down before.
        unknown: Ids that the corpus does not have; they are barred from coming in.
        releases: Published releases that still have rows that are taken down, by any takedown.
    """

    record: Record | None
    n_rows: int
    n_same_content: int
    n_before: int
    unknown: tuple[str, ...]
    releases: list[HeldRows]


def take_down(
    ref: CorpusRef,
    *,
    reason: str,
    row_ids: Sequence[str] = (),
    sources: Sequence[str] = (),
    missing_ok: bool = False,
    now: datetime | None = None,
) -> TakedownReport:
    """Take rows down for good.

    Args:
        ref: The corpus.
        reason: For people, one line; it is published with every later release.
        row_ids: Rows by id.
        sources: Rows by source: names or patterns, where ``*`` matches ``/`` as well.
        missing_ok: Bar ids and sources that the corpus does not have (yet), rather than refuse.
        now: When it was decided; now.

    Raises:
        ValueError: Nothing was named, or the reason is not one line of 1 to 500 characters.
        NotFoundError: The corpus does not have an id, or nothing from a source; nothing was done.
        BusyError: Another process is writing the corpus.
    """
    _check_request(reason, row_ids, sources)
    moment = (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    Corpus(ref)  # before the writer, which would make a corpus that is not there
    with TombstoneWriter(ref) as writer:
        tombstones = Tombstones(ref)
        found = find_rows(Corpus(ref), row_ids, sources, missing_ok=missing_ok)
        done = _taken_down_ids(tombstones, with_content=bool(row_ids))
        before = pc.is_in(found.rows.column("row_id"), done)
        fresh = found.rows.filter(pc.invert(before))
        named = fresh.column("row_id").filter(pc.is_valid(fresh.column("batch_id")))
        bars = Bars(row_ids=True, content=bool(row_ids), sources=tuple(sorted(set(sources))))
        record = None
        if len(fresh) or not _bars_already(tombstones, bars):
            record = writer.commit(fresh, kind="takedown", reason=reason, time=moment, bars=bars)
    same = pc.is_in(named, found.same_content)
    return TakedownReport(
        record=record,
        n_rows=len(named),
        n_same_content=pc.sum(same, min_count=0).as_py(),
        n_before=pc.sum(before, min_count=0).as_py(),
        unknown=found.unknown,
        releases=releases_holding(ref),
    )


@dataclass(frozen=True)
class LivingRows:
    """Which rows of some batches have no tombstone, from one reading of the records.

    Attributes:
        mask: bool [n_rows], true for those; None when no row has a tombstone.
        digest: What the dead rows are; None when there are none. Part of the identity of scores.
    """

    mask: NDArray[np.bool_] | None
    digest: str | None


def living_rows(corpus: CorpusRef, batches: Sequence[str]) -> LivingRows:
    """Return which rows of batches laid end to end have no tombstone.

    The digest depends on the dead rows and their places alone: neither on who asked when and why,
    nor on rows of other batches.
    """
    tombstones = Tombstones(corpus)
    dead = dead_digest(tombstones, batches)
    if dead is None:
        return LivingRows(None, None)
    starts, n_rows = _starts(corpus, batches)
    mask = np.ones(n_rows, np.bool_)
    mask[tombstones.positions(starts)] = False
    return LivingRows(mask, dead)


def dead_digest(tombstones: Tombstones, batches: Sequence[str]) -> str | None:
    """Return what `LivingRows.digest` is for these batches, without looking where rows are."""
    found = tombstones.placed_in(batches)
    return _digest(found) if len(found) else None


def read_ids(path: Path) -> list[str]:
    """Return the row ids of a text file, one a line; blank lines are skipped.

    Raises:
        ValueError: The file is not UTF-8 text, or has no id.
        FileNotFoundError: There is no such file.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text with a row id a line ({error}).") from error
    row_ids = [line.strip() for line in lines if line.strip()]
    if not row_ids:
        raise ValueError(f"{path}: expected a row id on each line, found none.")
    return row_ids


def masked_rows(corpus: CorpusRef, batches: Sequence[str]) -> NDArray[np.int64]:
    """Return the positions of tombstoned rows in batches laid end to end, ascending.

    Args:
        corpus: The corpus; one without tombstones gives an empty array.
        batches: Batch ids in the order of the index or scores.
    """
    mask = living_rows(corpus, batches).mask
    return np.empty(0, np.int64) if mask is None else np.flatnonzero(~mask)


def takedown_proof(corpus: CorpusRef, batches: Sequence[str]) -> dict[str, Any] | None:
    """Return what a release says of the tombstoned rows of its batches; None when there are none.

    Returns:
        ``digest`` (part of the release's identity), ``n_rows``, ``records`` (id, kind, reason,
        time, n_rows of each) and, where they are few, ``row_ids_sha256``: the sha256 of every id,
        so that whoever knows an id can check that it is among them. Ids that can be guessed, such
        as numbers in order, can be found out from it.
        The id of a changed row, of which a later version lives, is not among them.
    """
    tombstones = Tombstones(corpus)
    found = tombstones.placed_in(batches)
    if not len(found):
        return None
    row_ids = _gone(corpus, batches, tombstones, found)
    counts = np.bincount(found.column("record").to_numpy(), minlength=len(tombstones.records))
    records = [
        {
            "id": record.record_id,
            "kind": record.kind,
            "reason": record.reason,
            "time": record.time,
            "n_rows": n_rows,
        }
        for record, n_rows in zip(tombstones.records, counts.tolist(), strict=True)
        if n_rows
    ]
    proof = {"digest": _digest(found), "n_rows": len(row_ids), "records": records}
    if len(row_ids) > MOST_HASHES:
        return proof
    hashes = sorted(sha256(row_id.encode()).hexdigest() for row_id in row_ids)
    return {**proof, "row_ids_sha256": hashes}


def require_not_taken_down(corpus: CorpusRef, row_id: str) -> None:
    """Refuse a row whose newest version has a tombstone.

    Raises:
        NotFoundError: It has one; says since when and why.
    """
    tombstones = Tombstones(corpus)
    if not tombstones.find(row_id):
        return
    try:
        place = Corpus(corpus).locate(row_id)
    except NotFoundError:  # barred before it ever came
        dead = tombstones.find(row_id)
    else:
        dead = tombstones.at(place.batch_id, place.position_in_batch)
    for record in dead:
        raise NotFoundError(
            f"row {row_id!r} of corpus {corpus.corpus!r} has a tombstone ({record.kind}, "
            f"{record.time}): {record.reason}. `rise lineage` says what is left of it."
        )


def releases_holding(corpus: CorpusRef) -> list[HeldRows]:
    """Return published releases with rows that somebody asked to be taken down, and how many.

    A damaged release is among them, since nobody can tell.
    """
    dead = _asked_for(corpus)
    if not len(dead):
        return []
    counts = [(ref, _count_or_none(ref, corpus, dead)) for ref in all_releases(corpus.root)]
    return [HeldRows(ref, n_rows, is_latest(ref)) for ref, n_rows in counts if n_rows != 0]


def all_releases_holding(root: str) -> list[HeldRows]:
    """Return what `releases_holding` does, of every corpus of a store."""
    return [one for name in corpus_names(root) for one in releases_holding(CorpusRef(root, name))]


def _count_or_none(ref: ReleaseRef, corpus: CorpusRef, dead: pa.StringArray) -> int | None:
    """Return how many rows of a release are dead; None when it is damaged."""
    try:
        release = open_release(ref)
        if release.manifest.get("lineage", {}).get("corpus", corpus.corpus) != corpus.corpus:
            return 0
        return _count_held(release, dead)
    except StorageError:
        return None


def require_none_taken_down(ref: ReleaseRef, *, remedy: str) -> None:
    """Refuse a published release that has rows that somebody asked to be taken down.

    Args:
        ref: The release.
        remedy: What was not done, and what to do: the end of the message.

    Raises:
        ValueError: It has some; says how many.
    """
    n_rows = count_taken_down(ref)
    if n_rows:
        raise ValueError(
            f"release {ref.release_id} of {ref.name!r} has {n_rows} rows that were taken down "
            f"since (`rise takedown --list`), so {remedy}"
        )


def count_taken_down(ref: ReleaseRef) -> int:
    """Return how many rows of a published release somebody asked to be taken down."""
    release = open_release(ref)
    corpus = release.manifest.get("lineage", {}).get("corpus")
    names = corpus_names(ref.root) if corpus is None else [corpus]
    dead = [_asked_for(CorpusRef(ref.root, name)) for name in names]
    return sum(_count_held(release, ids) for ids in dead if len(ids))


def _asked_for(corpus: CorpusRef) -> pa.StringArray:
    """Return lineage ids of takedowns' rows; not those that a source changed or no longer has."""
    tombstones = Tombstones(corpus)
    dead = tombstones.rows_of([record.kind == "takedown" for record in tombstones.records])
    places = {f"{line['batch_id']}:{line['position_in_batch']}" for line in _placed(dead)}
    return pa.array(sorted(places), pa.string())


def _count_held(release: Release, dead: pa.StringArray) -> int:
    """Return how many rows of a release are dead, by their lineage ids."""
    return sum(
        pc.sum(pc.is_in(read_table(path, columns=["lineage_id"]).column(0), dead)).as_py() or 0
        for path in release.data_files
    )


def list_takedowns(root: str) -> list[dict[str, Any]]:
    """Return every record of every corpus of a store, in order, as JSON values."""
    return [
        {
            "corpus": corpus,
            "id": record.record_id,
            "kind": record.kind,
            "reason": record.reason,
            "time": record.time,
            "n_rows": record.n_rows,
            "sources": list(record.bars.sources),
        }
        for corpus in corpus_names(root)
        for record in Tombstones(CorpusRef(root, corpus)).records
    ]


def _starts(corpus: CorpusRef, batches: Sequence[str]) -> tuple[dict[str, int], int]:
    """Return where each batch begins when they are laid end to end, and how many rows they have."""
    opened, starts, start = Corpus(corpus), {}, 0
    for batch_id in batches:
        starts[batch_id] = start
        start += int(opened.manifest(batch_id)["n_rows"])
    return starts, start


def _gone(
    corpus: CorpusRef, batches: Sequence[str], tombstones: Tombstones, found: pa.Table
) -> list[str]:
    """Return the ids among tombstoned places that have no living place in these batches."""
    row_ids: list[str] = pc.unique(found.column("row_id")).to_pylist()
    if all(record.kind == "takedown" for record in tombstones.records):
        return row_ids
    starts, _ = _starts(corpus, batches)
    ids = Corpus(corpus).row_ids(batches).column("row_id")
    still: list[str] = gone_ids(ids, tombstones.positions(starts)).to_pylist()
    return still


def _taken_down_ids(tombstones: Tombstones, *, with_content: bool) -> pa.Array:
    """Return the ids that no new record is needed for."""
    enough = [
        record.kind == "takedown" and record.bars.content >= with_content
        for record in tombstones.records
    ]
    return tombstones.rows_of(enough).column("row_id").combine_chunks()


def _bars_already(tombstones: Tombstones, bars: Bars) -> bool:
    known = {glob for record in tombstones.records for glob in record.bars.sources}
    return known.issuperset(bars.sources)


def _check_request(reason: str, row_ids: Sequence[str], sources: Sequence[str]) -> None:
    if not row_ids and not sources:
        raise ValueError(
            "nothing to take down: give row ids (--id, --ids-file) or sources (--source)."
        )
    if row_ids and sources:
        raise ValueError(
            "a takedown is by ids or by sources, got both; they bar different things from coming "
            "in again. Take them down one after the other."
        )
    if not REASON.fullmatch(reason) or not reason.strip():
        raise ValueError(
            f"expected a reason of one line, 1 to 500 characters, got {reason[:80]!r}. Say why; "
            "it is published with every later release."
        )


def _placed(rows: pa.Table) -> list[dict[str, Any]]:
    placed: list[dict[str, Any]] = rows.filter(pc.is_valid(rows.column("batch_id"))).to_pylist()
    return placed


def _digest(found: pa.Table) -> str:
    lines = {tuple(line[name] for name in TOMBSTONE_SCHEMA.names) for line in found.to_pylist()}
    return digest(sorted(lines))
