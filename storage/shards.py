"""Sound block files read without a detour: from the file into the array that is returned.

Zarr reads the same files through an event loop, chunk by chunk, and holds a block three times on
the way; that took longer than scoring it. This reads the layout that FORMAT.md describes, with
every checksum. Whatever it does not recognise as sound (another codec, a missing or short file, a
chunk that was never written, a checksum) it leaves to Zarr, which reads it or says what is wrong.
"""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import Any, cast

import google_crc32c
import numpy as np
from numpy.typing import NDArray

CHECKSUM_BYTES = 4

_PLAIN_CODECS = [
    {"name": "bytes", "configuration": {"endian": "little"}},
    {"name": "crc32c"},
]
_BYTE_CODECS = [{"name": "bytes"}, {"name": "crc32c"}]
"""Of elements of one byte: they have no byte order."""


@dataclass(frozen=True)
class BlockLayout:
    """Where the rows of a block lie in its file.

    Attributes:
        dtype: Of an element.
        row_shape: ``(columns,)``; empty for an array of one number a row.
        chunk_rows: Rows that share a checksum.
        n_chunks: Chunks a block.
        is_sharded: The file ends with an index of its chunks; else it is one chunk.
    """

    dtype: np.dtype[Any]
    row_shape: tuple[int, ...]
    chunk_rows: int
    n_chunks: int
    is_sharded: bool

    @cached_property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk, its checksum not counted."""
        return self.chunk_rows * math.prod(self.row_shape) * self.dtype.itemsize


def block_layout(metadata: Mapping[str, Any]) -> BlockLayout | None:
    """Return the layout of an array's blocks from its ``zarr.json``; None when it is another."""
    try:
        return _block_layout(metadata)
    except (KeyError, IndexError, TypeError, ValueError):
        return None  # not what Zarr writes; Zarr says so


def _block_layout(metadata: Mapping[str, Any]) -> BlockLayout | None:
    block_rows, *row_shape = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    codecs = metadata["codecs"]
    chunk_rows, is_sharded = block_rows, codecs[0]["name"] == "sharding_indexed"
    if is_sharded:
        sharding = codecs[0]["configuration"]
        chunk_rows, *inner_shape = sharding["chunk_shape"]
        plain_index = sharding["index_codecs"] == _PLAIN_CODECS
        if sharding["index_location"] != "end" or not plain_index or inner_shape != row_shape:
            return None
        codecs = sharding["codecs"]
    if codecs not in (_PLAIN_CODECS, _BYTE_CODECS) or sys.byteorder != "little":
        return None
    return BlockLayout(
        dtype=np.dtype(metadata["data_type"]),
        row_shape=tuple(row_shape),
        chunk_rows=chunk_rows,
        n_chunks=block_rows // chunk_rows,
        is_sharded=is_sharded,
    )


def read_first_rows(file: Path, layout: BlockLayout, n_rows: int) -> np.ndarray | None:
    """Return the first rows of a block; None when the file is not known to be sound."""
    return _read_chunks(file, layout, np.arange(-(-n_rows // layout.chunk_rows)), n_rows)


def read_some_rows(file: Path, layout: BlockLayout, rows: np.ndarray) -> np.ndarray | None:
    """Return chosen rows of a block, reading only the chunks that they lie in; None as above.

    Args:
        file: The block's file.
        layout: How rows lie in it.
        rows: int64 [n], ascending positions in the block.
    """
    chunks, chunk_of = np.unique(rows // layout.chunk_rows, return_inverse=True)
    found = _read_chunks(file, layout, chunks, len(chunks) * layout.chunk_rows)
    return None if found is None else found[chunk_of * layout.chunk_rows + rows % layout.chunk_rows]


def _read_chunks(
    file: Path, layout: BlockLayout, chunks: np.ndarray, n_rows: int
) -> np.ndarray | None:
    """Return the rows of some chunks one after the other, cut to ``n_rows``."""
    values = np.empty((len(chunks) * layout.chunk_rows, *layout.row_shape), layout.dtype)
    parts = values.reshape(-1).view(np.uint8)
    try:
        with FileIO(file) as opened:
            offsets = _chunk_offsets(opened, layout)
            if offsets is None:
                return None
            for place, chunk in enumerate(chunks):
                start = place * layout.chunk_bytes
                part = parts[start : start + layout.chunk_bytes]
                opened.seek(offsets[chunk])
                if not _fill_checked(opened, part):
                    return None
    except OSError:
        return None
    return values[:n_rows]


def _chunk_offsets(opened: FileIO, layout: BlockLayout) -> list[int] | None:
    if not layout.is_sharded:
        return [0]
    entries = np.empty((layout.n_chunks, 2), "<u8")
    size = opened.seek(0, 2)
    start = size - entries.nbytes - CHECKSUM_BYTES
    if start < 0:
        return None
    opened.seek(start)
    if not _fill_checked(opened, entries.reshape(-1).view(np.uint8)):
        return None
    # chunks that were never written have the largest number for both
    sound = (entries[:, 1] == layout.chunk_bytes + CHECKSUM_BYTES) & (entries[:, 0] < start)
    return [int(offset) for offset in entries[:, 0]] if sound.all() else None


def _fill_checked(opened: FileIO, part: NDArray[np.uint8]) -> bool:
    """Fill ``part`` from the file and compare it with the checksum that follows."""
    stored = np.empty(CHECKSUM_BYTES, np.uint8)
    if not (_fill(opened, part) and _fill(opened, stored)):
        return False
    # of buffers that can change the library reads NumPy's arrays alone in place; Zarr relies on it
    checksum = int(google_crc32c.value(cast("bytes", part)))
    return checksum == int.from_bytes(stored.tobytes(), "little")


def _fill(opened: FileIO, part: NDArray[np.uint8]) -> bool:
    """Read until ``part`` is full; False at the end of the file."""
    while len(part):
        n_read = opened.readinto(part.data)
        if not n_read:
            return False
        part = part[n_read:]
    return True
