"""Row-blocked Zarr v3 arrays: one block of rows is one file, and a damaged file never passes.

A block is written whole or not at all, so two writers of different blocks never meet, and a
killed writer leaves the old block or the new one. The array's length is rounded up to whole
blocks; rows that were not written are the fill value, and no valid row begins with it. That is
how a missing file, which Zarr reads as fill without a word, is found.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.abc.buffer import Buffer
from zarr.codecs import Crc32cCodec
from zarr.storage import MemoryStore

from storage.errors import CorruptionError
from storage.files import read_json, sync_folder, write_bytes, write_json
from storage.mirror_keys import PARTIAL_SUFFIX
from storage.shards import BlockLayout, block_layout, read_first_rows, read_some_rows

INNER_CHUNK_BYTES = 2 * 1024 * 1024
"""Aim for the bytes that one random row read has to fetch and check."""

FEW_ROWS_BYTES = 64 * 1024
"""The same for rows that are only ever read a few at a time."""

WHOLE_BLOCK_CHUNKS = 2
"""Blocks up to so many times the aim are one inner chunk."""

COUNTS_FILL = -1
INT8_FILL = -128
"""Fill values that no written row has."""

DAMAGE = (ValueError, RuntimeError, KeyError, FileNotFoundError)
"""What Zarr raises for damaged bytes: checksum, index of a shard, metadata."""


@dataclass(frozen=True)
class BlockArray:
    """An array on disk whose rows come in blocks: a matrix, or one count a row.

    Args:
        path: Folder of the Zarr array.
        block_rows: Rows a block.
        remedy: Last sentence of the errors: what to do when a block is damaged.
    """

    path: Path
    block_rows: int
    remedy: str

    def file(self, block: int) -> Path:
        """Return the file of a block: ``c/<block>/0`` of a matrix, ``c/<block>`` of counts."""
        return self.path.joinpath("c", str(block), *["0"] * (len(self._shape) - 1))

    def reserved_rows(self) -> int:
        """Return the array's length: whole blocks, at least the rows asked for so far."""
        return int(read_json(self.path / "zarr.json")["shape"][0])

    def grow(self, n_rows: int) -> None:
        """Let the array hold ``n_rows``, rounded up to whole blocks; never shrinks it."""
        metadata = read_json(self.path / "zarr.json")
        wanted = -(-n_rows // self.block_rows) * self.block_rows
        if wanted > metadata["shape"][0]:
            # Not Array.resize: it is not synced, and half a zarr.json would lose the array.
            metadata["shape"][0] = wanted
            write_json(self.path / "zarr.json", metadata)

    def write(self, block: int, values: np.ndarray) -> Path:
        """Write one whole block, make it durable and return its file.

        Raises:
            StorageError: The disk is full or not writable.
        """
        # Encoded in memory, not assigned to the array on disk: Zarr reads the shard that is there
        # before it replaces it (so a damaged one could not be repaired) and does not sync it.
        file = self.file(block)
        write_bytes(file, _encode(zarr.open_array(self.path, mode="r"), values))
        sync_folder(file.parent.parent)
        return file

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return rows [start, stop).

        Raises:
            CorruptionError: A file is missing or damaged; the message names block and file.
        """
        values = self._read_sound(start, stop)
        if values is None:
            values = self._read_by_zarr(start, stop)
        self._refuse_unwritten(values, start, stop)
        return values

    def read_rows(self, block: int, rows: np.ndarray) -> np.ndarray:
        """Return chosen rows of a block, reading only the inner chunks that they lie in.

        Args:
            block: Number of the block.
            rows: int64 [n], ascending positions in the block, at least one.

        Raises:
            CorruptionError: As `read`.
        """
        start = block * self.block_rows
        values = None
        if self._layout is not None:
            values = read_some_rows(self.file(block), self._layout, rows)
        if values is None:
            values = self._read_by_zarr(start, start + int(rows[-1]) + 1)[rows]
        self._refuse_unwritten(values, start, start + self.block_rows)
        return values

    def _refuse_unwritten(self, values: np.ndarray, start: int, stop: int) -> None:
        unwritten = unwritten_rows(values)
        if len(unwritten):
            block = (start + int(unwritten[0])) // self.block_rows
            raise CorruptionError(
                f"block {block}: {self.file(block)} is missing or lacks rows "
                f"({len(unwritten)} of rows {start} to {stop - 1} were never written). "
                f"{self.remedy}"
            )

    def _read_sound(self, start: int, stop: int) -> np.ndarray | None:
        """Return the first rows of one block; None for other ranges and where Zarr must look."""
        block, first = divmod(start, self.block_rows)
        if first or not start < stop <= start + self.block_rows or self._layout is None:
            return None
        return read_first_rows(self.file(block), self._layout, stop - start)

    def _read_by_zarr(self, start: int, stop: int) -> np.ndarray:
        try:
            return np.asarray(zarr.open_array(self.path, mode="r")[start:stop])
        except DAMAGE as error:
            block = self._first_damaged(start, stop)
            raise CorruptionError(
                f"block {block}: {self.file(block)} cannot be read ({error}). {self.remedy}"
            ) from error

    @cached_property
    def _shape(self) -> list[int]:
        return list(self._metadata["shape"])

    @cached_property
    def _layout(self) -> BlockLayout | None:
        return block_layout(self._metadata)

    @cached_property
    def _metadata(self) -> dict[str, Any]:
        return dict(read_json(self.path / "zarr.json"))

    def _first_damaged(self, start: int, stop: int) -> int:
        first, last = start // self.block_rows, (stop - 1) // self.block_rows
        if first == last:
            return first
        middle = (first + last + 1) // 2 * self.block_rows
        try:
            zarr.open_array(self.path, mode="r")[start:middle]
        except DAMAGE:
            return self._first_damaged(start, middle)
        return self._first_damaged(middle, stop)


def choose_chunk_rows(
    block_rows: int, *, row_bytes: int, chunk_bytes: int = INNER_CHUNK_BYTES
) -> int:
    """Return the divisor of ``block_rows`` that brings an inner chunk nearest to the aim."""
    if block_rows * row_bytes <= WHOLE_BLOCK_CHUNKS * chunk_bytes:
        return block_rows
    divisors = [rows for rows in range(1, block_rows + 1) if block_rows % rows == 0]
    return min(divisors, key=lambda rows: abs(math.log(rows * row_bytes / chunk_bytes)))


def create_group(path: Path) -> zarr.Group:
    """Make an empty Zarr v3 group, without consolidated metadata (it goes stale on growth)."""
    return zarr.open_group(path, mode="w", zarr_format=3)


def create_matrix(
    group: zarr.Group,
    name: str,
    *,
    dtype: str,
    n_columns: int,
    block_rows: int,
    chunk_bytes: int = INNER_CHUNK_BYTES,
) -> None:
    """Make an array [0, n_columns] whose shards are blocks of rows.

    Args:
        group: Where.
        name: Its name there.
        dtype: ``f2`` or ``f4``, fill NaN; ``i1``, fill -128; or ``u1``, fill 0.
        n_columns: Columns.
        block_rows: Rows a block.
        chunk_bytes: Aim for the bytes of an inner chunk.
    """
    row_bytes = n_columns * np.dtype(dtype).itemsize
    group.create_array(
        name,
        shape=(0, n_columns),
        dtype=dtype,
        chunks=(
            choose_chunk_rows(block_rows, row_bytes=row_bytes, chunk_bytes=chunk_bytes),
            n_columns,
        ),
        shards=(block_rows, n_columns),
        compressors=Crc32cCodec(),
        fill_value={"i": INT8_FILL, "u": 0}.get(np.dtype(dtype).kind, float("nan")),
        dimension_names=["row", "number"],
    )


def create_counts(group: zarr.Group, name: str, *, block_rows: int) -> None:
    """Make an int32 array [0] with one checksummed chunk a block; fill is -1."""
    _create_column(group, name, dtype="i4", fill=COUNTS_FILL, block_rows=block_rows)


def create_scales(group: zarr.Group, name: str, *, block_rows: int) -> None:
    """Make a float32 array [0] with one checksummed chunk a block; fill is NaN."""
    _create_column(group, name, dtype="f4", fill=float("nan"), block_rows=block_rows)


def write_whole(group: zarr.Group, name: str, values: np.ndarray) -> None:
    """Store an array in one checksummed chunk, also when it is all zeros."""
    group.create_array(
        name,
        data=np.ascontiguousarray(values),
        chunks=tuple(max(1, size) for size in values.shape),
        compressors=Crc32cCodec(),
        config={"write_empty_chunks": True},
    )


def read_whole(path: Path, *, remedy: str) -> np.ndarray:
    """Read an array written by `write_whole`; `CorruptionError` when damaged or missing."""
    try:
        array: Any = zarr.open_array(path, mode="r")
        values = np.asarray(array[...])
    except DAMAGE as error:
        raise CorruptionError(f"{path} cannot be read ({error}). {remedy}") from error
    if values.size and array.nchunks_initialized != 1:
        raise CorruptionError(f"{path} has lost its data file. {remedy}")
    return values


def unwritten_rows(values: np.ndarray) -> np.ndarray:
    """Return the positions of rows that are still the fill value of their array.

    Floats: NaN; int8: -128; counts: -1; packed bits: not one bit is set.
    """
    first = values if values.ndim == 1 else values[:, 0]
    if values.dtype.kind == "f":
        return np.flatnonzero(np.isnan(first))
    if values.dtype.kind == "u":
        candidates = np.flatnonzero(first == 0)
        return candidates[~values[candidates].any(axis=1)]
    return np.flatnonzero(first == (INT8_FILL if values.dtype == np.int8 else COUNTS_FILL))


def remove_litter(path: Path) -> int:
    """Delete unfinished files of killed writers anywhere in a Zarr hierarchy; return how many.

    Only for whoever holds the artifact's lock: a living writer's files look the same.
    """
    litter = [entry for entry in path.rglob(f"*{PARTIAL_SUFFIX}") if entry.is_file()]
    for entry in litter:
        entry.unlink(missing_ok=True)
    return len(litter)


def _create_column(
    group: zarr.Group, name: str, *, dtype: str, fill: float, block_rows: int
) -> None:
    group.create_array(
        name,
        shape=(0,),
        dtype=dtype,
        chunks=(block_rows,),
        compressors=Crc32cCodec(),
        fill_value=fill,
        dimension_names=["row"],
    )


def _encode(array: zarr.Array[Any], values: np.ndarray) -> bytes:
    """Return the bytes of one block of ``array``, filled up to whole length."""
    shape = (array.shards or array.chunks)[0], *array.shape[1:]
    whole = values
    if values.shape != shape:
        whole = np.full(shape, array.fill_value, array.dtype)
        whole[: len(values)] = values
    files: dict[str, Buffer] = {}
    block = zarr.create_array(
        MemoryStore(files),
        shape=shape,
        dtype=array.dtype,
        chunks=array.chunks,
        shards=array.shards,
        compressors=array.compressors,
        fill_value=array.fill_value,
    )
    block[...] = whole
    return files["/".join(["c", *["0"] * len(shape)])].to_bytes()
