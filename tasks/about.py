"""Everything recorded about one thing in a store, found by its name, its id or the id's beginning.

With where it lies, what it was made from, and what was made from it.
"""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from storage.catalog import (
    Artifact,
    batch_folders,
    corpus_names,
    list_artifacts,
    published_folders,
    refused_batches,
)
from storage.corpus import Corpus
from storage.cursor import Cursor
from storage.errors import NotFoundError, StorageError
from storage.index_names import index_place
from storage.layout import (
    REFUSED_FILE,
    REFUSED_FORMAT,
    batches_folder,
    query_set_folder,
    release_folder,
    scores_folder,
    tombstones_folder,
)
from storage.manifests import read_manifest
from storage.queries import QuerySet
from storage.refs import CorpusRef, IndexRef, QuerySetRef, ReleaseRef, ScoresRef
from storage.release_pointer import is_latest
from storage.roots import store_folder, stored_size
from storage.signatures import SignatureIndex
from storage.tombstones import Tombstones
from tasks.release_drift import is_held, noted_drift

LEAST_DIGITS = 4
"""Characters of an id that are enough to find what has it."""

Link = dict[str, str]


def describe(root: str, text: str) -> list[dict[str, Any]]:
    """Return everything recorded about what a text means.

    Args:
        root: Folder of the store.
        text: A name, an id or its beginning (at least LEAST_DIGITS characters), ``INDEX:BLOCK``, a
            file of an inbox, or a row id.

    Returns:
        A dictionary a thing: ``kind``, ``name``, ``id``, ``path``, and of artifacts ``created``,
        ``bytes``, ``detail`` (the manifest), ``made_from``, ``used_by`` (kind, name and id each).

    Raises:
        NotFoundError: Nothing in the store goes by it.
    """
    artifacts = list_artifacts(root)
    meant = [item for item in artifacts if text in (item.name, item.id)] or [
        item for item in artifacts if len(text) >= LEAST_DIGITS and item.id.startswith(text)
    ]
    found = [
        *(_artifact(root, item, artifacts) for item in meant),
        *_block(root, text),
        *_inbox_files(root, text),
        *_refused(root, text),
        *_rows(root, text),
    ]
    if not found:
        raise NotFoundError(
            f"nothing in {root} goes by {text!r}. Give a name or id that `rise ls` lists, at least "
            f"{LEAST_DIGITS} characters of an id, INDEX:BLOCK, a file of an inbox or a row id."
        )
    return found


def made_from(artifact: Artifact) -> list[Link]:
    """Return what an artifact was made from, nearest first, as its manifest says."""
    detail = artifact.detail
    batches = [_link("batch", "", batch) for batch in detail.get("batches", ())]
    if artifact.kind == "index":
        corpus = detail.get("identity", {}).get("corpus", "")
        return [{**one, "name": corpus} for one in batches]
    if artifact.kind == "query set":
        return [_link("index", detail["index"], "")] if "index" in detail else []
    if artifact.kind == "scores" and "index_id" in detail:
        return [
            _link("index", detail["index"], detail["index_id"]),
            _link("query set", detail["query_set"], detail["query_set_version"]),
            *[{**one, "name": detail.get("corpus", "")} for one in batches],
        ]
    if artifact.kind == "release" and "scores_id" in detail:
        parents = detail.get("parents") or [{"kind": "scores", "id": detail["scores_id"]}]
        return [_link(one["kind"], one.get("name", ""), one["id"]) for one in parents]
    return []


def used_by(artifact: Artifact, artifacts: list[Artifact]) -> list[Link]:
    """Return the artifacts that name this one among what they were made from."""
    return [
        _link(other.kind, other.name, other.id)
        for other in artifacts
        if any(_is(artifact, link) for link in made_from(other))
    ]


def _is(artifact: Artifact, link: Link) -> bool:
    if link["kind"] != artifact.kind:
        return False
    return link["id"] == artifact.id if link["id"] else link["name"] == artifact.name


def _link(kind: str, name: str, id_: str) -> Link:
    return {"kind": kind, "name": name, "id": id_}


def _artifact(root: str, item: Artifact, artifacts: list[Artifact]) -> dict[str, Any]:
    path = _place(root, item)
    return {
        **{key: value for key, value in asdict(item).items() if key != "detail"},
        "path": str(path),
        "bytes": stored_size(path).n_bytes,
        **_standing(root, item),
        "made_from": made_from(item),
        "used_by": used_by(item, artifacts),
        "detail": item.detail,
    }


def _standing(root: str, item: Artifact) -> dict[str, Any]:
    """Return whether a pointer names it, and, of a release, how it compared when it was made."""
    if item.kind == "query set":
        try:
            newest = QuerySet.latest(root, item.name).version
        except NotFoundError:
            newest = None
        return {"latest": newest == item.id}
    if item.kind == "release":
        ref = ReleaseRef(root, item.name, item.id)
        return {"latest": is_latest(ref), "held": is_held(ref), "drift": noted_drift(ref)}
    return {}


def _place(root: str, item: Artifact) -> Path:
    if item.kind in ("batch", "tombstone"):
        folder = batches_folder if item.kind == "batch" else tombstones_folder
        folders = batch_folders(folder(CorpusRef(root, item.name)))
        return next(path for _, id_, path in folders if id_ == item.id)
    places = {
        "index": lambda: index_place(IndexRef(root, item.name)),
        "query set": lambda: query_set_folder(QuerySetRef(root, item.name, item.id)),
        "scores": lambda: scores_folder(ScoresRef(root, item.id)),
        "release": lambda: release_folder(ReleaseRef(root, item.name, item.id)),
    }
    return places[item.kind]()


def _block(root: str, text: str) -> Iterator[dict[str, Any]]:
    name, _, number = text.rpartition(":")
    if not (name and number.isdigit()):
        return
    try:
        index = SignatureIndex.open(IndexRef(root, name))
        record = index.block_record(int(number))
    except (StorageError, ValueError):
        return
    if record is not None:
        start = int(number) * index.block_rows
        rows = {"first_row": start, "last_row": start + record["n_rows"] - 1}
        path = index.array_path / "c" / number / "0"
        yield {**_link("block", name, number), "path": str(path), "detail": {**rows, **record}}


def _inbox_files(root: str, text: str) -> Iterator[dict[str, Any]]:
    for name in corpus_names(root):
        entry = Cursor(CorpusRef(root, name)).get(text)
        if entry is not None:
            yield {**_link("inbox file", name, text), "path": text, "detail": asdict(entry)}


def _refused(root: str, text: str) -> Iterator[dict[str, Any]]:
    for kind, name, folder in _refusals(root):
        if _named(folder, text):
            noted = folder / REFUSED_FILE
            detail = read_manifest(noted, REFUSED_FORMAT) if noted.is_file() else {}
            yield {**_link(kind, name, folder.name), "path": str(folder), "detail": detail}


def _refusals(root: str) -> Iterator[tuple[str, str, Path]]:
    """Yield kind, name and folder of everything that a gate refused."""
    for name in corpus_names(root):
        for folder in refused_batches(CorpusRef(root, name)):
            yield "refused batch", name, folder
    for folder in published_folders(store_folder(root) / "refused" / "scores"):
        yield "refused scores", folder.name, folder
    for named in published_folders(store_folder(root) / "releases"):
        for folder in published_folders(named / "refused"):
            yield "refused release", named.name, folder


def _named(folder: Path, text: str) -> bool:
    return folder.name == text or (len(text) >= LEAST_DIGITS and folder.name.startswith(text))


def _rows(root: str, text: str) -> Iterator[dict[str, Any]]:
    for name in corpus_names(root):
        try:
            place = Corpus(CorpusRef(root, name)).locate(text)
        except NotFoundError:
            continue
        records = Tombstones(CorpusRef(root, name)).at(place.batch_id, place.position_in_batch)
        at = {
            "dead": [{"kind": one.kind, "reason": one.reason, "time": one.time} for one in records],
            "batch_id": place.batch_id,
            "position_in_batch": place.position_in_batch,
            "position": place.position,
        }
        yield {
            **_link("row", name, text),
            "path": f"{place.row.source}:{place.row.source_line}",
            "detail": {**asdict(place.row), **at},
        }
