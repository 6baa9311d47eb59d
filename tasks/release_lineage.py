"""What a release says of where it comes from: its manifest, its id, and who its parents are."""

import importlib.metadata
import platform
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storage.corpus import Corpus
from storage.errors import MismatchError
from storage.files import digest, short_id
from storage.manifests import FORMAT_VERSION
from storage.queries import QuerySet
from storage.refs import CorpusRef, IndexRef, QuerySetRef, ReleaseRef
from storage.scores import Scores
from storage.signatures import SignatureIndex
from tasks.leakage import leakage_identity
from tasks.release_config import ReleaseConfig
from tasks.takedown import takedown_proof
from tasks.target_tokenizer import TargetTokenizer

RELEASE_VERSION = 2
"""Part of every release id; raised when the same inputs would give other files."""

RECORDED_LIBRARIES = (
    "rise-pipeline",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "zarr",
    "dask",
    "pyarrow",
    "pandas",
    "datasets",
    "py3langid",
    "great-expectations",
    "prefect",
)
"""Libraries whose versions are written beside the release."""


def release_id(scores: Scores, config: ReleaseConfig, *, target: TargetTokenizer | None) -> str:
    """Return the id of a release: of its scores, its settings, and what its guards look at."""
    corpus = CorpusRef(scores.ref.root, scores.manifest["corpus"])
    proof = takedown_proof(corpus, scores.manifest["batches"])
    return short_id(
        {
            "version": RELEASE_VERSION,
            "scores_id": scores.ref.scores_id,
            "config": config.identity,
            **({} if proof is None else {"taken_down": digest(proof)}),
            "evaluation_sets": leakage_identity(config.leakage),
            "target_tokenizer": None if target is None else target.sha256,
        }
    )


def open_parents(scores: Scores) -> tuple[Corpus, SignatureIndex, QuerySet]:
    """Return the corpus, the index and the query set that scores were made of.

    Raises:
        MismatchError: The index was replaced since it was scored.
        StorageError: One of them is gone or damaged.
    """
    root, manifest = scores.ref.root, scores.manifest
    index = SignatureIndex.open(IndexRef(root, manifest["index"]))
    if index.index_id != manifest["index_id"]:
        raise MismatchError(
            f"index {manifest['index']!r} was replaced since it was scored",
            [("index_id", manifest["index_id"], index.index_id)],
            "Score the new index and release those scores.",
        )
    queries = QuerySetRef(root, manifest["query_set"], manifest["query_set_version"])
    corpus = Corpus(CorpusRef(root, manifest["corpus"]))
    return corpus, index, QuerySet.open(queries)


def release_manifest(
    *,
    shape: Mapping[str, int],
    target: Mapping[str, Any] | None,
    dropped: pa.Table,
    guards: Mapping[str, Any],
    lineage: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the manifest of a release, but for the list of its files.

    Args:
        shape: n_shards, n_tokens and bytes of the Parquet files of rows.
        target: Name, sha256 and n_tokens of the target tokenizer, None without one.
        dropped: The rows that were kept out, with reasons.
        guards: Name of each guard to what it compared and how much it found.
        lineage: From `release_lineage`.
    """
    counted = pc.value_counts(dropped.column("reason").combine_chunks()).to_pylist()
    return {
        "scores_id": lineage["scores"]["id"],
        **shape,
        "target_tokens": target,
        "n_dropped": {pair["values"]: pair["counts"] for pair in counted},
        "guards": dict(guards),
        "parents": _parents(lineage),
        "versions": {"format": FORMAT_VERSION, "release": RELEASE_VERSION},
        "lineage": dict(lineage),
    }


def release_lineage(
    ref: ReleaseRef, scores: Scores, config: ReleaseConfig, attributes: pa.Table
) -> dict[str, Any]:
    """Return every station between the sources and this release, with ids and settings."""
    corpus, index, query_set = open_parents(scores)
    manifest = scores.manifest
    batch_ids = pc.list_element(pc.split_pattern(attributes.column("lineage_id"), ":"), 0)
    sources, batches = _counted(attributes.column("source")), _counted(batch_ids)
    return {
        "sources": [
            {"source": source, "n_released": n_rows} for source, n_rows in sorted(sources.items())
        ],
        "corpus": corpus.ref.corpus,
        "batches": [
            {
                "id": batch,
                "n_released": batches[batch],
                "manifest": _without_files(corpus.manifest(batch)),
            }
            for batch in manifest["batches"]
        ],
        "taken_down": takedown_proof(corpus.ref, manifest["batches"]),
        "index": {"name": manifest["index"], "id": index.index_id, "identity": index.identity},
        "model": index.identity["space"],
        "query_set": {
            "name": query_set.ref.name,
            "version": query_set.ref.version,
            "manifest": _without_files(query_set.manifest),
        },
        "scores": {"id": scores.ref.scores_id, "identity": manifest["identity"]},
        "release": {"name": ref.name, "id": ref.release_id, "config": dict(config.identity)},
    }


def environment() -> dict[str, Any]:
    """Return the versions of what ran; kept out of what is hashed and compared."""
    versions: dict[str, str | None] = {}
    for library in RECORDED_LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            versions[library] = None
    return {"python": platform.python_version(), "libraries": versions}


def _parents(lineage: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return what the release was made from directly or not, nearest first, by kind and id."""
    query_set = lineage["query_set"]
    return [
        {"kind": "scores", "id": lineage["scores"]["id"]},
        {"kind": "query set", "name": query_set["name"], "id": query_set["version"]},
        {"kind": "index", "name": lineage["index"]["name"], "id": lineage["index"]["id"]},
        *(
            {"kind": "batch", "name": lineage["corpus"], "id": batch["id"]}
            for batch in lineage["batches"]
        ),
    ]


def _counted(column: pa.ChunkedArray) -> Counter[str]:
    pairs = pc.value_counts(column.combine_chunks()).to_pylist()
    return Counter({pair["values"]: pair["counts"] for pair in pairs})


def _without_files(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in manifest.items() if key != "files"}
