"""A row's way through the store: back to its source line, forward to the releases that hold it.

Nothing is recorded for this alone: every artifact's manifest names what it was made from.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from storage.catalog import open_store, published_folders
from storage.corpus import Corpus, RowLocation
from storage.errors import NotFoundError
from storage.index_names import index_names
from storage.layout import INDEX_FILE, INDEX_FORMAT, ROWS_FILE, ROWS_FORMAT
from storage.manifests import read_manifest
from storage.refs import CorpusRef, ReleaseRef, ScoresRef
from storage.releases import Release, all_releases, open_release
from storage.roots import store_folder
from storage.scores import Scores
from storage.tombstones import Tombstones


@dataclass(frozen=True)
class LineageStep:
    """One station of a row.

    Args:
        kind: ``source``, ``rejected``, ``row``, ``batch``, ``tombstone``, ``index``, ``scores`` or
            ``release``.
        id: ``path:line`` of a source, else the id of the artifact or row.
        detail: Where in the artifact the row is, and what the artifact says of it.
    """

    kind: str
    id: str
    detail: dict[str, Any]


def walk_back(root: str, row_id: str, *, release: ReleaseRef | None = None) -> list[LineageStep]:
    """Return a row's stations from its source line to the releases that hold it.

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
        for place in corpus.find_source(source, line):
            steps += _stations(root, corpus, place, None)
        steps += _rejections(corpus, f"{source}:{line}")
    if not steps:
        raise NotFoundError(
            f"nothing in {root} came from {source}:{line}. Give the source as `rise ls` and the "
            "rows name it, and the line counted from 1."
        )
    return steps


def _stations(
    root: str, corpus: Corpus, place: RowLocation, only: ReleaseRef | None
) -> Iterator[LineageStep]:
    row = place.row
    yield LineageStep("source", f"{row.source}:{row.source_line}", {"line": row.source_line})
    about = {"n_tokens": row.n_tokens, "content_hash": row.content_hash, "label": row.label}
    yield LineageStep("row", row.row_id, about)
    yield _batch_step(corpus, place)
    yield from _tombstone_steps(corpus, place)
    releases = [open_release(ref) for ref in all_releases(root) if only in (None, ref)]
    needed = None if only is None else {release.manifest["scores_id"] for release in releases}
    for index, header in _indexes_of(root, corpus, place.batch_id):
        scores = [
            item
            for item in _scores_of(root, header["index_id"], place)
            if needed is None or item.ref.scores_id in needed
        ]
        if needed is None or scores:
            yield _index_step(index, header, place)
        for item in scores:
            yield _scores_step(item, row.row_id)
            yield from _release_steps(releases, item, row.row_id)


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
    for record in Tombstones(corpus.ref).find(place.row.row_id):
        detail = {"kind": record.kind, "reason": record.reason, "time": record.time}
        yield LineageStep("tombstone", record.record_id, detail)


def _index_step(index: str, header: dict[str, Any], place: RowLocation) -> LineageStep:
    block, position_in_block = divmod(place.position, header["block_rows"])
    detail = {"index": index, "block": block, "position_in_block": position_in_block}
    return LineageStep("index", header["index_id"], detail)


def _scores_step(scores: Scores, row_id: str) -> LineageStep:
    manifest = scores.manifest
    detail = {
        "index": manifest["index"],
        "query_set": manifest["query_set"],
        "query_set_version": manifest["query_set_version"],
        "value": scores.value_of(row_id),
    }
    return LineageStep("scores", scores.ref.scores_id, detail)


def _release_steps(releases: list[Release], scores: Scores, row_id: str) -> Iterator[LineageStep]:
    for release in releases:
        if release.manifest["scores_id"] != scores.ref.scores_id:
            continue
        row = release.find(row_id)
        if row is not None:
            detail = {
                "name": release.ref.name,
                "rank": row["rank"],
                "score": row["score"],
                "lineage_id": row["lineage_id"],
            }
            yield LineageStep("release", release.ref.release_id, detail)


def _rejections(corpus: Corpus, location: str) -> Iterator[LineageStep]:
    for batch in Corpus.batches(corpus.ref):
        for record in corpus.rejected(batch.batch_id).to_pylist():
            if record["location"] == location:
                detail = {"reason": record["reason"], "batch_id": batch.batch_id}
                yield LineageStep("rejected", location, detail)


def _places(root: str, row_id: str) -> Iterator[tuple[Corpus, RowLocation]]:
    for corpus in _corpora(root):
        try:
            yield corpus, corpus.locate(row_id)
        except NotFoundError:
            continue


def _corpora(root: str) -> list[Corpus]:
    names = [folder.name for folder in published_folders(store_folder(root) / "corpora")]
    refs = [CorpusRef(root, name) for name in names]
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


def _scores_of(root: str, index_id: str, place: RowLocation) -> list[Scores]:
    ids = [folder.name for folder in published_folders(store_folder(root) / "scores")]
    opened = [Scores.open(ScoresRef(root, scores_id)) for scores_id in ids]
    return [
        scores
        for scores in opened
        if scores.manifest["index_id"] == index_id and place.batch_id in scores.manifest["batches"]
    ]
