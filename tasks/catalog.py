"""What is in a store, in plain dictionaries: listing, details, lineage of a row, integrity."""

from dataclasses import asdict
from typing import Any

from storage.catalog import Artifact, list_artifacts
from storage.corpus import Corpus
from storage.errors import NotFoundError, StorageError
from storage.lineage import LineageStep, walk_back, walk_forward
from storage.queries import QuerySet
from storage.refs import CorpusRef, IndexRef, QuerySetRef, ReleaseRef, ScoresRef
from storage.releases import open_release
from storage.scores import Scores
from storage.signatures import SignatureIndex
from storage.tombstones import Tombstones

SUMMARY_FIELDS = (
    "n_rows",
    "n_rejected",
    "n_tokens",
    "n_queries",
    "query_set",
    "index",
    "corpus",
    "reason",
)
"""Manifest fields that a one-line listing shows."""


def list_store(root: str) -> list[dict[str, Any]]:
    """Return one dictionary an artifact: kind, name, id, created, detail (one line of text).

    Raises:
        NotFoundError: There is no store at ``root``.
    """
    return [
        {**asdict(artifact), "created": artifact.created or "", "detail": _summary(artifact.detail)}
        for artifact in list_artifacts(root)
    ]


def describe(root: str, name: str) -> list[dict[str, Any]]:
    """Return everything recorded about the artifacts of a name or id, manifests whole.

    Raises:
        NotFoundError: Nothing in the store goes by ``name``.
    """
    found = [item for item in list_artifacts(root) if name in (item.name, item.id)]
    if not found:
        raise NotFoundError(f"nothing in {root} has the name or id {name!r}. `rise ls` lists it.")
    return [asdict(item) for item in found]


def trace(root: str, row: str) -> list[dict[str, Any]]:
    """Return the stations of a row, from its source line to the releases that carry it.

    Args:
        root: Folder of the store.
        row: A row id, or ``source:line``.

    Raises:
        NotFoundError: No row has that id, and nothing came from such a line.
    """
    source, _, line = row.rpartition(":")
    try:
        steps = walk_back(root, row)
    except NotFoundError:
        if not (source and line.isdigit()):
            raise
        steps = walk_forward(root, source=source, line=int(line))
    return [_plain_step(step) for step in steps]


def verify_store(root: str) -> list[str]:
    """Read everything back and return one text for each thing that is missing or damaged.

    Raises:
        NotFoundError: There is no store at ``root``.
    """
    artifacts = list_artifacts(root)
    problems: list[str] = []
    for name in sorted({item.name for item in artifacts if item.kind == "batch"}):
        problems += Corpus(CorpusRef(root, name)).verify()
        problems += _tombstone_problems(CorpusRef(root, name))
    for item in artifacts:
        if item.kind not in ("batch", "tombstone"):
            problems += _problems(root, item)
    return problems


def _tombstone_problems(ref: CorpusRef) -> list[str]:
    try:
        return Tombstones(ref).verify()
    except StorageError as error:
        return [f"tombstones of corpus {ref.corpus}: {error}"]


def _problems(root: str, artifact: Artifact) -> list[str]:
    name, id_ = artifact.name, artifact.id
    try:
        if artifact.kind == "index":
            index = SignatureIndex.open(IndexRef(root, name))
            return [*index.verify(), *_lost_batches(root, index)]
        if artifact.kind == "query set":
            return QuerySet.open(QuerySetRef(root, name, id_)).verify()
        if artifact.kind == "scores":
            return Scores.open(ScoresRef(root, id_)).verify()
        return open_release(ReleaseRef(root, name, id_)).verify()
    except StorageError as error:  # what cannot even be opened must not hide the others
        return [f"{artifact.kind} {name}: {error}"]


def _lost_batches(root: str, index: SignatureIndex) -> list[str]:
    corpus = CorpusRef(root, index.identity["corpus"])
    there = {batch.batch_id for batch in Corpus.batches(corpus)}
    return [
        f"index {index.ref.index}: batch {batch_id} of corpus {corpus.corpus!r} is missing, so its "
        "rows cannot be named. Restore the batch from a copy."
        for batch_id in index.batches
        if batch_id not in there
    ]


def _summary(detail: dict[str, Any]) -> str:
    if "problem" in detail:
        return str(detail["problem"])
    shown = {name: detail[name] for name in SUMMARY_FIELDS if detail.get(name) is not None}
    return ", ".join(
        f"{value:,} {name[2:]}" if name.startswith("n_") else f"{name} {value}"
        for name, value in shown.items()
    )


def _plain_step(step: LineageStep) -> dict[str, Any]:
    return {"kind": step.kind, "id": step.id, "detail": step.detail}
