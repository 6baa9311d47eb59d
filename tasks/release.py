"""Releases: the selected rows, joined with their texts, checked, and published whole.

A release is a folder that `datasets.load_dataset` opens. Its id is made of the scores and the
selection, and its bytes of nothing else: the same inputs give the same files. What may differ
between two machines, the versions of the libraries, lies in ``environment.json`` and the Data
Docs in ``quality/``; the manifest lists neither.
"""

import importlib.metadata
import platform
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import pyarrow as pa

from storage.corpus import Corpus, Row
from storage.errors import CorruptionError, MismatchError
from storage.files import short_id, write_json
from storage.layout import QUALITY_FOLDER
from storage.queries import QuerySet
from storage.refs import CorpusRef, IndexRef, QuerySetRef, ReleaseRef, ScoresRef
from storage.releases import (
    RELEASE_SCHEMA,
    Release,
    ReleaseWriter,
    mark_latest,
    open_release,
    release_exists,
)
from storage.scores import Scores
from storage.signatures import SignatureIndex
from tasks.dataset_card import dataset_card
from tasks.progress import NO_PROGRESS, Progress
from tasks.quality_config import SHIPPED, QualityConfig
from tasks.quality_gate import recorded_warnings, suite_facts
from tasks.release_config import ReleaseConfig
from tasks.release_gate import GATE, StagedFile, StagedRelease, check_release
from tasks.selection import select_rows
from tasks.suite_files import GateSuite, load_suite

RELEASE_VERSION = 1
"""Part of every release id; raised when the same inputs would give other files."""

RECORDED_LIBRARIES = (
    "rise-pipeline",
    "torch",
    "transformers",
    "numpy",
    "zarr",
    "dask",
    "pyarrow",
    "pandas",
    "datasets",
    "great-expectations",
    "prefect",
)
"""Libraries whose versions are written beside the release."""


@dataclass(frozen=True)
class ReleaseReport:
    """What releasing did.

    Attributes:
        ref: The published release.
        path: Its folder; ``datasets.load_dataset(path)`` opens it.
        n_rows: Rows released.
        n_tokens: Their tokens.
        n_bytes: Size of the Parquet files.
        data_docs: First page of the quality report.
        seconds: Wall time of this call.
        already: It was published before; only ``latest`` was pointed to it.
        warnings: What the quality gate found odd, but refused nothing for.
    """

    ref: ReleaseRef
    path: str
    n_rows: int
    n_tokens: int
    n_bytes: int
    data_docs: str
    seconds: float
    already: bool
    warnings: tuple[str, ...] = ()


def release(
    scores: ScoresRef,
    name: str,
    config: ReleaseConfig,
    *,
    quality: QualityConfig = SHIPPED,
    progress: Progress = NO_PROGRESS,
) -> ReleaseReport:
    """Select rows by their scores, check them and publish them as the latest release.

    Args:
        scores: The stored scores.
        name: Name that the release is published under.
        config: Selection and layout; part of the release's identity.
        quality: Where the suite of the gate is.
        progress: Receives one step a row.

    Raises:
        ValueError: The selection cannot be made; gives both numbers.
        ReleaseRefused: The staged files failed the gate; nothing was published.
        SuiteError: The suite cannot be used.
        MismatchError: The index was replaced since it was scored.
        CorruptionError: Something that the release is made from is damaged.
    """
    started = time.monotonic()
    opened = Scores.open(scores)
    ref = ReleaseRef(scores.root, name, _release_id(scores, config))
    already = release_exists(ref)
    if already:
        mark_latest(ref)
    else:
        _publish(ref, opened, config, progress, load_suite(GATE, quality))
    published = open_release(ref)
    _require_sound(published)
    return ReleaseReport(
        ref=ref,
        path=str(published.folder),
        n_rows=published.manifest["n_rows"],
        n_tokens=published.manifest["n_tokens"],
        n_bytes=published.manifest["bytes"],
        data_docs=str(published.folder / QUALITY_FOLDER / "index.html"),
        seconds=time.monotonic() - started,
        already=already,
        warnings=recorded_warnings(published.folder / QUALITY_FOLDER),
    )


def _release_id(scores: ScoresRef, config: ReleaseConfig) -> str:
    return short_id(
        {
            "version": RELEASE_VERSION,
            "scores_id": scores.scores_id,
            "config": config.model_dump(mode="json"),
        }
    )


def _require_sound(published: Release) -> None:
    problems = published.verify(deep=False)
    if problems:
        raise CorruptionError(
            " ".join([*problems, f"Delete {published.folder} and release again."])
        )


# ------------------------------------------------------------------------------------- rows


@dataclass
class _Tally:
    """What the rows written so far add up to."""

    n_tokens: int = 0
    sources: Counter[str] = field(default_factory=Counter)
    batches: Counter[str] = field(default_factory=Counter)


class _Batches:
    """The batches that were scored, laid end to end as the index has them."""

    def __init__(self, corpus: Corpus, batch_ids: Sequence[str]) -> None:
        self._corpus = corpus
        self._ids = list(batch_ids)
        sizes = [int(corpus.manifest(batch_id)["n_rows"]) for batch_id in self._ids]
        self._starts = [0, *accumulate(sizes)]

    def locate(self, position: int) -> tuple[str, int]:
        """Return the batch of a row of the index and the row's position in the batch."""
        batch = bisect_right(self._starts, position) - 1
        return self._ids[batch], position - self._starts[batch]

    def row_ids(self) -> Iterator[tuple[str, pa.ChunkedArray]]:
        """Yield every batch with its row ids in order."""
        for batch_id in self._ids:
            yield batch_id, self._corpus.row_ids([batch_id]).column("row_id")


def _publish(
    ref: ReleaseRef, scores: Scores, config: ReleaseConfig, progress: Progress, suite: GateSuite
) -> None:
    corpus = Corpus(CorpusRef(ref.root, scores.manifest["corpus"]))
    batches = _Batches(corpus, scores.manifest["batches"])
    selected = select_rows(scores.values(), config.select)
    tally = _Tally()
    progress.start(total=len(selected), unit="rows")
    with ReleaseWriter(ref) as writer:
        files = []
        for start in range(0, len(selected), config.rows_per_shard):
            part = selected.slice(start, config.rows_per_shard)
            path = writer.add(_join(part, corpus, batches, tally))
            files.append(StagedFile(path, len(part)))
            progress.advance(len(part))
        staged = StagedRelease(ref.name, files, tally.n_tokens)
        docs = writer.staging / QUALITY_FOLDER
        gate = check_release(staged, batches=batches.row_ids(), docs=docs, suite=suite)
        environment = {**_environment(), "quality": suite_facts(suite, gate)}
        write_json(writer.staging / "environment.json", environment)
        manifest = _manifest(staged, _lineage(ref, scores, config, corpus, tally))
        writer.commit(manifest, card=_card(ref, config, manifest))


def _join(selected: pa.Table, corpus: Corpus, batches: _Batches, tally: _Tally) -> pa.Table:
    """Return the selected rows with texts and origins (RELEASE_SCHEMA), in their order."""
    rows = corpus.rows_by_id(selected.column("row_id").to_pylist())
    lines = [
        _release_line(rows[line["row_id"]], line, *batches.locate(line["position"]))
        for line in selected.to_pylist()
    ]
    tally.n_tokens += sum(line["n_tokens"] for line in lines)
    tally.sources.update(line["source"] for line in lines)
    tally.batches.update(line["lineage_id"].partition(":")[0] for line in lines)
    return pa.Table.from_pylist(lines, schema=RELEASE_SCHEMA)


def _release_line(
    row: Row, selected: Mapping[str, Any], batch_id: str, position: int
) -> dict[str, Any]:
    return {
        "row_id": row.row_id,
        "text": row.text,
        "prompt": row.text[: row.prompt_chars],
        "completion": row.text[row.prompt_chars :],
        "score": selected["score"],
        "rank": selected["rank"],
        "lineage_id": f"{batch_id}:{position}",
        "source": row.source,
        "source_line": row.source_line,
        "label": row.label,
        "n_tokens": row.n_tokens,
    }


# --------------------------------------------------------------------------------- manifest


def _manifest(staged: StagedRelease, lineage: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "scores_id": lineage["scores"]["id"],
        "n_tokens": staged.n_tokens,
        "bytes": sum(file.path.stat().st_size for file in staged.files),
        "lineage": dict(lineage),
    }


def _lineage(
    ref: ReleaseRef, scores: Scores, config: ReleaseConfig, corpus: Corpus, tally: _Tally
) -> dict[str, Any]:
    """Return every station between the sources and this release, with ids and settings."""
    manifest = scores.manifest
    index = SignatureIndex.open(IndexRef(ref.root, manifest["index"]))
    if index.index_id != manifest["index_id"]:
        raise MismatchError(
            f"index {manifest['index']!r} was replaced since it was scored",
            [("index_id", manifest["index_id"], index.index_id)],
            "Score the new index and release those scores.",
        )
    queries = QuerySetRef(ref.root, manifest["query_set"], manifest["query_set_version"])
    return {
        "sources": [
            {"source": source, "n_released": n_rows}
            for source, n_rows in sorted(tally.sources.items())
        ],
        "corpus": corpus.ref.corpus,
        "batches": [
            {"id": batch_id, "n_released": tally.batches[batch_id], **_origin(corpus, batch_id)}
            for batch_id in manifest["batches"]
        ],
        "index": {"name": manifest["index"], "id": index.index_id, "identity": index.identity},
        "model": index.identity["space"],
        "query_set": {
            "name": queries.name,
            "version": queries.version,
            "manifest": _without_files(QuerySet.open(queries).manifest),
        },
        "scores": {"id": scores.ref.scores_id, "identity": manifest["identity"]},
        "release": {
            "name": ref.name,
            "id": ref.release_id,
            "config": config.model_dump(mode="json"),
        },
    }


def _origin(corpus: Corpus, batch_id: str) -> dict[str, Any]:
    return {"manifest": _without_files(corpus.manifest(batch_id))}


def _without_files(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in manifest.items() if key != "files"}


def _card(ref: ReleaseRef, config: ReleaseConfig, manifest: Mapping[str, Any]) -> str:
    lineage = manifest["lineage"]
    return dataset_card(
        name=ref.name,
        license_name=config.license,
        totals={
            "n_rows": sum(source["n_released"] for source in lineage["sources"]),
            "n_tokens": manifest["n_tokens"],
            "bytes": manifest["bytes"],
        },
        lineage=lineage,
        sources=[(source["source"], source["n_released"]) for source in lineage["sources"]],
    )


def _environment() -> dict[str, Any]:
    """Return the versions of what ran; kept out of what is hashed and compared."""
    versions: dict[str, str | None] = {}
    for library in RECORDED_LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            versions[library] = None
    return {"python": platform.python_version(), "libraries": versions}
