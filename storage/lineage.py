"""A row's way through the store: back to its source line, forward to the releases that hold it.

Nothing is recorded for this alone: every artifact's manifest names what it was made from.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from storage.catalog import (
    batch_folders,
    corpus_names,
    open_store,
    published_folders,
    refused_batches,
)
from storage.corpus import REJECTED_FILE, Corpus, RowLocation
from storage.errors import NotFoundError
from storage.index_names import index_names
from storage.layout import INDEX_FILE, INDEX_FORMAT, ROWS_FILE, ROWS_FORMAT, batches_folder
from storage.manifests import read_manifest
from storage.refs import CorpusRef, ReleaseRef, ScoresRef
from storage.releases import Release, all_releases, open_release
from storage.roots import fetched, store_folder
from storage.rows import read_table
from storage.scores import Scores
from storage.tombstones import Tombstones


@dataclass(frozen=True)
class LineageStep:
    """One station of a row.

    Args:
        kind: ``source``, ``rejected``, ``row``, ``batch``, ``tombstone``, ``index``, ``scores``,
            ``release`` or ``dropped`` (something kept it out of a release).
        id: ``path:line`` of a source, else the id of the artifact or row.
        detail: Where in the artifact the row is, and what the artifact says of it.
    """

    kind: str
    id: str
    detail: dict[str, Any]


def walk_back(root: str, row_id: str, *, release: ReleaseRef | None = None) -> list[LineageStep]:
    """Return a row's stations from its source line to the releases that hold it.

    A row that changed has a source line for each version; the newest comes first.

    Args:
        root: The store.
        row_id: The row.
        release: Only the way into this release; None shows all ways.

    Raises:
        NotFoundError: No corpus has the row, or the release does not hold it.
    """
    open_store(root)
    if release is not None and open_release(release).find(row_id) is None:
        raise NotFoundError(
            f"release {release.name} {release.release_id} does not hold row {row_id!r}. "
            "Ask without a release to see where the row is."
        )
    found = [
        step
        for corpus, place in _places(root, row_id)
        for step in _stations(root, corpus, place, release)
    ]
    if not found:
        raise NotFoundError(f"no corpus in {root} has row {row_id!r}. Check the id.")
    return found


def walk_forward(root: str, *, source: str, line: int) -> list[LineageStep]:
    """Return what became of one line of a source: rejected, or a row and all its stations.

    A source that was rewritten has had several rows there; the newest comes first.

    Args:
        root: The store.
        source: The source as the rows name it.
        line: Line of the file or number of the record, from 1.

    Raises:
        NotFoundError: Nothing in the store came from there.
    """
    open_store(root)
    steps: list[LineageStep] = []
    for corpus in _corpora(root):
        for place in reversed(corpus.find_source(source, line)):
            steps += _stations(root, corpus, place, None)
    for name in corpus_names(root):
        steps += _rejections(root, name, f"{source}:{line}")
    if not steps:
        raise NotFoundError(
            f"nothing in {root} came from {source}:{line}. Give the source as `rise ls` and the "
            "rows name it, and the line counted from 1."
        )
    return steps


def _stations(
    root: str, corpus: Corpus, place: RowLocation, only: ReleaseRef | None
) -> Iterator[LineageStep]:
    """Yield the stations of one version of a row."""
    row = place.row
    releases = [
        release
        for release in (open_release(ref) for ref in all_releases(root) if only in (None, ref))
        if _is_of(release.manifest.get("lineage", {}), corpus)
    ]
    if only is not None and not any(_holds(release, place) for release in releases):
        return
    yield LineageStep("source", f"{row.source}:{row.source_line}", {"line": row.source_line})
    about = {"n_tokens": row.n_tokens, "content_hash": row.content_hash, "label": row.label}
    yield LineageStep("row", row.row_id, about)
    yield _batch_step(corpus, place)
    yield from _tombstone_steps(corpus, place)
    needed = None if only is None else {release.manifest["scores_id"] for release in releases}
    scores = [
        one
        for one in _scores_of(root, corpus, place)
        if needed is None or one.ref.scores_id in needed
    ]
    for index, header in _indexes_of(root, corpus, place.batch_id):
        mine = [one for one in scores if one.manifest["index_id"] == header["index_id"]]
        if needed is None or mine:
            yield _index_step(index, header, place)
        for one in mine:
            scores.remove(one)
            yield from _scores_steps(one, releases, corpus, place)
    for one in scores:  # their index was deleted since
        yield from _scores_steps(one, releases, corpus, place)
    for release in releases:  # and of these, the scores
        yield from _release_steps(release, place)


def _scores_steps(
    scores: Scores, releases: list[Release], corpus: Corpus, place: RowLocation
) -> Iterator[LineageStep]:
    """Yield scores and the releases made of them, which are then taken from ``releases``."""
    yield _scores_step(scores, corpus, place)
    for release in list(releases):
        if release.manifest["scores_id"] == scores.ref.scores_id:
            releases.remove(release)
            yield from _release_steps(release, place)


def _batch_step(corpus: Corpus, place: RowLocation) -> LineageStep:
    manifest = corpus.manifest(place.batch_id)
    detail = {
        "corpus": corpus.ref.corpus,
        "position_in_batch": place.position_in_batch,
        "position": place.position,
        "sequence": manifest["sequence"],
        "n_rows": manifest["n_rows"],
    }
    return LineageStep("batch", place.batch_id, detail)


def _tombstone_steps(corpus: Corpus, place: RowLocation) -> Iterator[LineageStep]:
    for record in Tombstones(corpus.ref).at(place.batch_id, place.position_in_batch):
        detail = {"kind": record.kind, "reason": record.reason, "time": record.time}
        yield LineageStep("tombstone", record.record_id, detail)


def _index_step(index: str, header: dict[str, Any], place: RowLocation) -> LineageStep:
    block, position_in_block = divmod(place.position, header["block_rows"])
    detail = {"index": index, "block": block, "position_in_block": position_in_block}
    return LineageStep("index", header["index_id"], detail)


def _scores_step(scores: Scores, corpus: Corpus, place: RowLocation) -> LineageStep:
    manifest = scores.manifest
    batches = manifest["batches"]
    before = batches[: batches.index(place.batch_id)]
    position = sum(int(corpus.manifest(batch)["n_rows"]) for batch in before)
    detail = {
        "index": manifest["index"],
        "query_set": manifest["query_set"],
        "query_set_version": manifest["query_set_version"],
        "value": scores.value_at(position + place.position_in_batch),
    }
    return LineageStep("scores", scores.ref.scores_id, detail)


def _release_steps(release: Release, place: RowLocation) -> Iterator[LineageStep]:
    name, release_id = release.ref.name, release.ref.release_id
    row = _holds(release, place)
    if row is not None:
        detail = {key: row[key] for key in ("rank", "score", "lineage_id")}
        yield LineageStep("release", release_id, {"name": name, **detail})
    dropped = release.find_dropped(place.row.row_id)
    if dropped is not None and dropped["lineage_id"] == _lineage_id(place):
        detail = {key: dropped[key] for key in ("reason", "detail", "place", "score")}
        yield LineageStep("dropped", release_id, {"name": name, **detail})


def _holds(release: Release, place: RowLocation) -> dict[str, Any] | None:
    """Return the released row, if it is this version of it."""
    row = release.find(place.row.row_id)
    return row if row is not None and row["lineage_id"] == _lineage_id(place) else None


def _lineage_id(place: RowLocation) -> str:
    return f"{place.batch_id}:{place.position_in_batch}"


def _is_of(about: Mapping[str, Any], corpus: Corpus) -> bool:
    return bool(about.get("corpus", corpus.ref.corpus) == corpus.ref.corpus)


def _rejections(root: str, name: str, location: str) -> Iterator[LineageStep]:
    """Yield why a record is in no batch: rejected alone, or with the batch that was refused."""
    ref = CorpusRef(root, name)
    batches = batch_folders(batches_folder(ref))
    quarantines = [("batch_id", batch_id, folder) for _, batch_id, folder in batches]
    quarantines += [("refused_batch", folder.name, folder) for folder in refused_batches(ref)]
    for key, batch_id, folder in quarantines:
        table = read_table(fetched(folder) / REJECTED_FILE)
        for reason in table.filter(pc.equal(table.column("location"), location))["reason"]:
            yield LineageStep("rejected", location, {"reason": reason.as_py(), key: batch_id})


def _places(root: str, row_id: str) -> Iterator[tuple[Corpus, RowLocation]]:
    for corpus in _corpora(root):
        for place in corpus.places(row_id):
            yield corpus, place


def _corpora(root: str) -> list[Corpus]:
    refs = [CorpusRef(root, name) for name in corpus_names(root)]
    return [Corpus(ref) for ref in refs if Corpus.batches(ref)]


def _indexes_of(root: str, corpus: Corpus, batch_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and header of each index whose committed state covers a batch."""
    for name, folder in index_names(root, published_folders(store_folder(root) / "indexes")):
        state = folder / ROWS_FILE
        header = read_manifest(folder / INDEX_FILE, INDEX_FORMAT)
        if header["identity"].get("corpus") != corpus.ref.corpus or not state.exists():
            continue
        if batch_id in read_manifest(state, ROWS_FORMAT)["batches"]:
            yield name, header


def _scores_of(root: str, corpus: Corpus, place: RowLocation) -> list[Scores]:
    ids = [folder.name for folder in published_folders(store_folder(root) / "scores")]
    opened = [Scores.open(ScoresRef(root, scores_id)) for scores_id in ids]
    return [
        scores
        for scores in opened
        if _is_of(scores.manifest, corpus) and place.batch_id in scores.manifest["batches"]
    ]
