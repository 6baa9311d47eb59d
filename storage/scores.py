"""Scores of one query set over one state of an index; published whole, never changed."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from storage import arrays
from storage import rows as tables
from storage.catalog import open_store, published_folders
from storage.errors import NotFoundError, StorageError
from storage.guards import scores_guard
from storage.layout import (
    QUALITY_FOLDER,
    SCORES_FILE,
    SCORES_FORMAT,
    refused_scores_folder,
    scores_folder,
)
from storage.lease import Lease
from storage.manifests import describe_file, file_problems, read_manifest, write_manifest
from storage.refs import ScoresRef
from storage.roots import fetched, store_folder
from storage.staged import StagedWriter

VALUES_FILE = "values.parquet"
TOP_ROWS_FILE = "top_rows.parquet"
BOTTOM_ROWS_FILE = "bottom_rows.parquet"
NULL_FILE = "null_scores.parquet"
MATRIX = "matrix.zarr"
SCORE_ARRAY = "scores"

VALUES_SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("value", pa.float32(), nullable=False),
        pa.field("n_positions", pa.int32(), nullable=False),
    ]
)
"""One line a row of the index, in its order: the row's value for the whole query set."""

TOP_ROWS_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("percentile", pa.float32()),
        pa.field("z", pa.float32()),
        pa.field("false_discovery", pa.float32()),
    ]
)
"""The strongest rows of each query, rank from 1. The last three columns place the score among those
of random rows; they are null in scores from before there were any."""

NULL_SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field(
            "scores", pa.list_(pa.field("score", pa.float32(), nullable=False)), nullable=False
        ),
    ]
)
"""Random rows, in the order of the index, and what each scores for every query, in their order."""

BOTTOM_ROWS_SCHEMA = pa.schema(
    [
        pa.field("query_id", pa.string(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
    ]
)
"""The rows of lowest score of each query, its opponents, rank from 1 for the lowest."""

LINEAGE_KEYS = ("index", "index_id", "query_set", "query_set_version", "batches", "n_rows")
"""Fields that the manifest must have, so that a row's way can be followed."""


class Scores:
    """Scores that were published.

    Attributes:
        manifest: What the writer was given, with ``matrix`` (shape and block rows, or None)
            and ``files``.
    """

    def __init__(self, ref: ScoresRef, manifest: dict[str, Any]) -> None:
        """Use `open`."""
        self.ref = ref
        self.manifest = manifest

    @cached_property
    def folder(self) -> Path:
        """Where their files are; of a store at a URL they are fetched when this is first asked."""
        return fetched(scores_folder(self.ref))

    @staticmethod
    def write(
        root: str,
        scores_id: str,
        *,
        values: pa.Table,
        top_rows: pa.Table,
        manifest: Mapping[str, Any],
        matrix: np.ndarray | None = None,
    ) -> ScoresRef:
        """Publish scores at once; `ScoresWriter` takes a large matrix block by block.

        Args:
            root: The store, made when there is none.
            scores_id: Their id; scores of that id that exist are kept.
            values: VALUES_SCHEMA.
            top_rows: TOP_ROWS_SCHEMA.
            manifest: What the caller wants to keep; must have LINEAGE_KEYS.
            matrix: float32 [rows, queries], or None to keep none.
        """
        with ScoresWriter(ScoresRef(root, scores_id)) as writer:
            if matrix is not None:
                n_rows, n_queries = matrix.shape
                staged = writer.start_matrix(n_rows=n_rows, n_queries=n_queries, block_rows=n_rows)
                staged.write_block(0, matrix)
            return writer.commit(values=values, top_rows=top_rows, manifest=manifest)

    @staticmethod
    def exists(root: str, scores_id: str) -> bool:
        """Tell whether scores of that id are published."""
        return (scores_folder(ScoresRef(root, scores_id)) / SCORES_FILE).is_file()

    @classmethod
    def open(cls, ref: ScoresRef) -> "Scores":
        """Open published scores.

        Raises:
            NotFoundError: There are none of that id.
            FormatVersionError: A newer version of the program wrote them.
            CorruptionError: The manifest is damaged.
        """
        open_store(ref.root)
        return cls(ref, read_manifest(scores_folder(ref) / SCORES_FILE, SCORES_FORMAT))

    def values(self) -> pa.Table:
        """Return VALUES_SCHEMA, one line a row of the index, in its order."""
        return tables.read_table(self.folder / VALUES_FILE)

    def top_rows(self) -> pa.Table:
        """Return TOP_ROWS_SCHEMA."""
        table = tables.read_table(self.folder / TOP_ROWS_FILE)
        for field in TOP_ROWS_SCHEMA:
            if field.name not in table.column_names:
                table = table.append_column(field, pa.nulls(table.num_rows, field.type))
        return table

    def null_scores(self) -> tuple[list[str], np.ndarray]:
        """Return random rows of the index and their scores, float32 [queries, rows].

        Raises:
            NotFoundError: The scores are from before there were any.
        """
        if "null" not in self.manifest:
            raise NotFoundError(
                f"scores {self.ref.scores_id} were made without scores of random rows. Score again."
            )
        table = tables.read_table(self.folder / NULL_FILE).combine_chunks()
        flat = table.column("scores").combine_chunks().values.to_numpy()
        return table.column("row_id").to_pylist(), flat.reshape(table.num_rows, -1).T

    def bottom_rows(self) -> pa.Table:
        """Return BOTTOM_ROWS_SCHEMA.

        Raises:
            NotFoundError: The scores were made before opponents were kept.
        """
        if BOTTOM_ROWS_FILE not in {entry["name"] for entry in self.manifest["files"]}:
            raise NotFoundError(
                f"scores {self.ref.scores_id} were made before opponents were kept. Score again."
            )
        return tables.read_table(self.folder / BOTTOM_ROWS_FILE)

    def value_of(self, row_id: str) -> float | None:
        """Return one row's value, of its newest place; None when the row was not scored."""
        path = self.folder / VALUES_FILE
        found = tables.find_values(path, "row_id", [row_id])
        if not found:
            return None
        return float(tables.read_positions(path, list(found.values())).column("value")[0].as_py())

    def value_at(self, position: int) -> float:
        """Return the value of the row at a position of the index."""
        found = tables.read_positions(self.folder / VALUES_FILE, [position], columns=["value"])
        return float(found.column("value")[0].as_py())

    def matrix_block(self, block: int) -> np.ndarray:
        """Return one block of the full score matrix, float32 [n, Q].

        Raises:
            NotFoundError: The matrix was not kept.
            ValueError: There is no such block.
            CorruptionError: The block is missing or damaged.
        """
        shape = self.manifest["matrix"]
        if shape is None:
            raise NotFoundError(
                f"scores {self.ref.scores_id} were made without the full matrix. "
                "Score again with full_matrix set."
            )
        start = block * shape["block_rows"]
        if not 0 <= start < shape["n_rows"]:
            raise ValueError(f"the matrix has {shape['n_rows']} rows; no block {block} there.")
        stop = min(start + shape["block_rows"], shape["n_rows"])
        return _matrix(self.folder, shape["block_rows"]).read(start, stop)

    def verify(self, *, deep: bool = True) -> list[str]:
        """Compare the files with the manifest; one text for each problem."""
        return file_problems(self.folder, self.manifest["files"], deep=deep)


class ScoresWriter(StagedWriter):
    """Writes scores in a staging folder; without `commit` nothing stays."""

    def __init__(self, ref: ScoresRef) -> None:
        """Name the scores; `BusyError` and errors of the disk come on entering."""
        super().__init__(ref.root, scores_folder(ref))
        self.ref = ref
        self._shape: dict[str, int] | None = None

    def _hold(self) -> AbstractContextManager[Lease]:
        return scores_guard(self.ref).hold()

    def start_matrix(self, *, n_rows: int, n_queries: int, block_rows: int) -> "StagedMatrix":
        """Make room for the full matrix, float32 [n_rows, n_queries]; return where to write."""
        group = arrays.create_group(self.staging / MATRIX)
        arrays.create_matrix(
            group, SCORE_ARRAY, dtype="f4", n_columns=n_queries, block_rows=block_rows
        )
        _matrix(self.staging, block_rows).grow(n_rows)
        self._shape = {"n_rows": n_rows, "n_queries": n_queries, "block_rows": block_rows}
        return StagedMatrix(str(self.staging.resolve()), **self._shape)

    def commit(
        self,
        *,
        values: pa.Table,
        top_rows: pa.Table,
        manifest: Mapping[str, Any],
        bottom_rows: pa.Table | None = None,
        null_scores: pa.Table | None = None,
    ) -> ScoresRef:
        """Publish the scores; return the earlier ones if the id exists.

        Args:
            values: VALUES_SCHEMA.
            top_rows: TOP_ROWS_SCHEMA.
            manifest: What the caller wants to keep; must have LINEAGE_KEYS.
            bottom_rows: BOTTOM_ROWS_SCHEMA, or None to keep none.
            null_scores: NULL_SCHEMA, or None to keep none.

        Raises:
            ValueError: A column or a needed field of the manifest is missing.
        """
        missing = [key for key in LINEAGE_KEYS if key not in manifest]
        if missing:
            raise ValueError(f"the scores' manifest lacks {missing}, which lineage needs.")
        what = f"scores {self.ref.scores_id}"
        if Scores.exists(self.ref.root, self.ref.scores_id):
            return self.ref
        found = [
            (VALUES_FILE, values, VALUES_SCHEMA),
            (TOP_ROWS_FILE, top_rows, TOP_ROWS_SCHEMA),
            (BOTTOM_ROWS_FILE, bottom_rows, BOTTOM_ROWS_SCHEMA),
            (NULL_FILE, null_scores, NULL_SCHEMA),
        ]
        for name, table, schema in found:
            if table is None:
                continue
            conformed = tables.conform(table, schema, what=f"{what}, {name}")
            tables.write_table(self.staging / name, conformed)
        reports = self.staging / QUALITY_FOLDER
        files = sorted(
            path
            for path in self.staging.rglob("*")
            if path.is_file() and not path.is_relative_to(reports)
        )
        body = {
            **manifest,
            **({} if null_scores is None else {"null": {"n_rows": null_scores.num_rows}}),
            "matrix": self._shape,
            "files": [describe_file(path, folder=self.staging) for path in files],
        }
        write_manifest(self.staging / SCORES_FILE, SCORES_FORMAT, body)
        # FileExistsError: whoever took the lease for expired was first, with the same scores
        with suppress(FileExistsError):
            self._publish(scores_folder(self.ref))
        return self.ref

    def refuse(self) -> Path:
        """Keep only the quality report, under ``refused/``; return its folder."""
        return self._keep_report(refused_scores_folder(self.ref))


def last_scores(root: str, *, index: str, query_set: str, but: str) -> Scores | None:
    """Return the scores of an index name and a query set name that were made last.

    Scores that cannot be opened do not count: they are nobody's fault who makes new ones.

    Args:
        root: Folder of the store.
        index: Name of the index.
        query_set: Name of the query set, in any version.
        but: An id that does not count.
    """
    found: list[tuple[int, str, Scores]] = []
    for folder in published_folders(store_folder(root) / "scores"):
        if folder.name == but or not (folder / SCORES_FILE).is_file():
            continue
        try:
            scores = Scores.open(ScoresRef(root, folder.name))
        except StorageError:
            continue
        if (scores.manifest["index"], scores.manifest["query_set"]) == (index, query_set):
            made = (folder / SCORES_FILE).stat().st_mtime_ns
            found.append((made, folder.name, scores))
    return max(found, key=lambda item: item[:2])[2] if found else None


@dataclass(frozen=True)
class StagedMatrix:
    """A score matrix being written: cheap to send to the process that writes a block of it."""

    folder: str
    n_rows: int
    n_queries: int
    block_rows: int

    def write_block(self, block: int, scores: np.ndarray) -> None:
        """Write one whole block; different blocks from threads and processes at once.

        Args:
            block: Number of the block, from 0.
            scores: float32 [n, n_queries], finite; n as many as the block has.

        Raises:
            ValueError: The shape or type is another, or a score is not finite.
        """
        left = self.n_rows - block * self.block_rows
        shape = (min(left, self.block_rows), self.n_queries)
        if block < 0 or scores.dtype != np.float32 or scores.shape != shape:
            raise ValueError(
                f"block {block}: expected float32 {list(shape)}, got {scores.dtype} "
                f"{list(scores.shape)}."
            )
        if not np.isfinite(scores).all():
            raise ValueError(f"block {block}: scores are not finite.")
        _matrix(Path(self.folder), self.block_rows).write(block, scores)


def _matrix(folder: Path, block_rows: int) -> arrays.BlockArray:
    remedy = f"Delete {folder} and score again."
    return arrays.BlockArray(folder / MATRIX / SCORE_ARRAY, block_rows, remedy)
