"""The blocks of a signature index: written, recorded as complete, checked.

A block passes three gates in this order: its shard, its position counts, its completion record.
Before a block is replaced its record goes, so that a record never stands for other bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from storage import arrays
from storage.errors import CorruptionError
from storage.files import file_sha256, remove_durably, remove_partials
from storage.layout import BLOCK_FORMAT, refuse_linked_folders
from storage.manifests import read_manifest, write_manifest

GROUP = "signatures.zarr"
SIGNATURES = "signatures"
POSITIONS = "n_positions"
SCALES = "scales"
FLOATS = "floats"
RECORDS = "blocks"


@dataclass(frozen=True)
class RowCode:
    """How the numbers of a row are stored.

    Attributes:
        dtype: Of the array ``signatures``.
        packed: Numbers an element.
        scaled: Every row has a scale beside it, in the array ``scales``.
    """

    dtype: str
    packed: int
    scaled: bool


PLAIN_CODE = "float16"

ROW_CODES = {
    PLAIN_CODE: RowCode("f2", packed=1, scaled=False),
    "int8": RowCode("i1", packed=1, scaled=True),
    "sign": RowCode("u1", packed=8, scaled=True),
}


def check_code(code: str, n_numbers: int, float_numbers: int | None = None) -> None:
    """Refuse codes that are unknown, lengths that do not fill them, and floats kept twice."""
    if code not in ROW_CODES:
        raise ValueError(f"expected a code of {', '.join(ROW_CODES)}, got {code!r}.")
    packed = ROW_CODES[code].packed
    if n_numbers % packed:
        raise ValueError(
            f"code {code!r} packs {packed} numbers into one byte, but {n_numbers} is no multiple."
        )
    if float_numbers is not None and (code == PLAIN_CODE or float_numbers < 1):
        raise ValueError(
            f"float16 rows of 1 number or more are kept beside codes, got code {code!r} and "
            f"{float_numbers} numbers."
        )


@dataclass(frozen=True)
class SignatureBlocks:
    """The block files of one index.

    Args:
        folder: The index's folder.
        n_numbers: Length of a signature.
        block_rows: Rows a block.
        code: How numbers are stored, a key of `ROW_CODES`.
        float_numbers: Length of the float16 rows beside codes; None where there are none.
    """

    folder: Path
    n_numbers: int
    block_rows: int
    code: str = PLAIN_CODE
    float_numbers: int | None = None

    @cached_property
    def signatures(self) -> arrays.BlockArray:
        """[rows, n_columns] of the code's dtype."""
        return self._array(SIGNATURES)

    @cached_property
    def scales(self) -> arrays.BlockArray | None:
        """float32 [rows]; None where the code has none."""
        return self._array(SCALES) if ROW_CODES[self.code].scaled else None

    @cached_property
    def floats(self) -> arrays.BlockArray | None:
        """float16 [rows, float_numbers], as before coding; None where none are kept."""
        return None if self.float_numbers is None else self._array(FLOATS)

    @cached_property
    def n_positions(self) -> arrays.BlockArray:
        """int32 [rows]."""
        return self._array(POSITIONS)

    @property
    def n_columns(self) -> int:
        """Elements a row of the array ``signatures``."""
        return self.n_numbers // ROW_CODES[self.code].packed

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of the array ``signatures``."""
        return self.n_columns * np.dtype(ROW_CODES[self.code].dtype).itemsize

    def create(self) -> None:
        """Make the arrays, without rows, and the folder of the records."""
        group = arrays.create_group(self.folder / GROUP)
        arrays.create_matrix(
            group,
            SIGNATURES,
            dtype=ROW_CODES[self.code].dtype,
            n_columns=self.n_columns,
            block_rows=self.block_rows,
        )
        if self.float_numbers is not None:
            arrays.create_matrix(
                group,
                FLOATS,
                dtype="f2",
                n_columns=self.float_numbers,
                block_rows=self.block_rows,
                chunk_bytes=arrays.FEW_ROWS_BYTES,
            )
        if self.scales is not None:
            arrays.create_scales(group, SCALES, block_rows=self.block_rows)
        arrays.create_counts(group, POSITIONS, block_rows=self.block_rows)
        (self.folder / RECORDS).mkdir()

    def reserve(self, n_rows: int) -> None:
        """Make room for ``n_rows`` and clear what killed writers left; under the index's lease.

        Raises:
            StorageError: A folder in the index is a symbolic link.
        """
        refuse_linked_folders(self.folder)
        remove_partials(self.folder / RECORDS)
        arrays.remove_litter(self.folder / GROUP)
        for array, _ in self._files():
            array.grow(n_rows)

    def write(  # noqa: PLR0913 - one argument an array
        self,
        block: int,
        signatures: np.ndarray,
        n_positions: np.ndarray,
        *,
        scales: np.ndarray | None = None,
        floats: np.ndarray | None = None,
        rows_digest: str,
        n_tokens: int,
    ) -> None:
        """Write a block and then its record; see `SignatureIndex.write_block`."""
        self._check_types(block, signatures, n_positions)
        self._check_values(block, signatures, n_positions)
        self._check_scales(block, signatures, scales)
        self._check_floats(block, len(signatures), floats)
        self.discard(block)
        values = {"shard": signatures, "positions": n_positions}
        if scales is not None:
            values["scales"] = scales
        if floats is not None:
            values["floats"] = floats
        record = {
            "block": block,
            "n_rows": len(signatures),
            "n_tokens": n_tokens,
            "n_empty": int(np.count_nonzero(n_positions == 0)),
            "rows_digest": rows_digest,
        }
        for array, key in self._files():
            file = array.write(block, values[key])
            record |= {f"{key}_bytes": file.stat().st_size, f"{key}_sha256": file_sha256(file)}
        write_manifest(self.record_path(block), BLOCK_FORMAT, record)

    def discard(self, block: int) -> None:
        """Delete the completion record of a block, so that it counts as not done."""
        remove_durably(self.record_path(block))

    def record(self, block: int) -> dict[str, Any] | None:
        """Return the completion record of a block, None when it has none."""
        path = self.record_path(block)
        return read_manifest(path, BLOCK_FORMAT) if path.exists() else None

    def is_done(self, block: int, rows_digest: str) -> bool:
        """Tell whether a block holds these rows; see `SignatureIndex.is_done`."""
        try:
            record = self.record(block)
        except CorruptionError:
            return False
        if record is None or record["rows_digest"] != rows_digest:
            return False
        return not self._file_problems(block, record, deep=False)

    def covers(self, block: int, n_rows: int) -> bool:
        """Tell whether a block is complete for an index of ``n_rows`` rows."""
        record = self.record(block)
        needed = min(self.block_rows, n_rows - block * self.block_rows)
        if record is None or record["n_rows"] < needed:
            return False
        return not self._file_problems(block, record, deep=False)

    def problems(self, block: int, *, deep: bool) -> list[str]:
        """Compare a block with its record; see `SignatureIndex.verify`."""
        try:
            record = self.record(block)
        except CorruptionError as error:
            return [f"block {block}: {error}"]
        if record is None:
            return [
                f"block {block} has no completion record: writing it again was interrupted, or "
                "is going on. Build the index again."
            ]
        return self._file_problems(block, record, deep=deep)

    def record_path(self, block: int) -> Path:
        """Return ``blocks/<block>.json``, eight digits."""
        return self.folder / RECORDS / f"{block:08d}.json"

    def _files(self) -> list[tuple[arrays.BlockArray, str]]:
        """Return the arrays of a block and their keys in its record, in the order of writing."""
        files = [
            (self.signatures, "shard"),
            (self.floats, "floats"),
            (self.scales, "scales"),
            (self.n_positions, "positions"),
        ]
        return [(array, key) for array, key in files if array is not None]

    def _array(self, name: str) -> arrays.BlockArray:
        remedy = f"Delete the block's record in {self.folder / RECORDS} and build the index again."
        return arrays.BlockArray(self.folder / GROUP / name, self.block_rows, remedy)

    def _file_problems(self, block: int, record: Mapping[str, Any], *, deep: bool) -> list[str]:
        remedy = f"Delete {self.record_path(block)} and build the index again."
        problems = []
        for array, key in self._files():
            file = array.file(block)
            if not file.is_file():
                problems.append(f"block {block}: {file} is missing. {remedy}")
            elif file.stat().st_size != record[f"{key}_bytes"]:
                problems.append(f"block {block}: {file} has another size than written. {remedy}")
            elif deep and file_sha256(file) != record[f"{key}_sha256"]:
                problems.append(f"block {block}: {file} has other bytes than written. {remedy}")
        return problems

    def _check_types(self, block: int, signatures: np.ndarray, n_positions: np.ndarray) -> None:
        n_rows = len(signatures)
        dtype = np.dtype(ROW_CODES[self.code].dtype)
        if signatures.dtype != dtype or signatures.shape != (n_rows, self.n_columns):
            raise ValueError(
                f"block {block}: expected {dtype} signatures [n, {self.n_columns}], got "
                f"{signatures.dtype} {list(signatures.shape)}."
            )
        if n_positions.dtype != np.int32 or n_positions.shape != (n_rows,):
            raise ValueError(
                f"block {block}: expected int32 n_positions [{n_rows}], got "
                f"{n_positions.dtype} {list(n_positions.shape)}."
            )
        if not 1 <= n_rows <= self.block_rows:
            raise ValueError(f"block {block}: expected 1 to {self.block_rows} rows, got {n_rows}.")
        reserved = self.signatures.reserved_rows()
        if not 0 <= block < reserved // self.block_rows:
            raise ValueError(
                f"block {block} is outside of the {reserved} reserved rows; call reserve first."
            )

    def _check_values(self, block: int, signatures: np.ndarray, n_positions: np.ndarray) -> None:
        if (n_positions < 0).any():
            raise ValueError(f"block {block}: n_positions has negative counts.")
        _refuse_not_finite(block, signatures)
        marked = arrays.unwritten_rows(signatures)
        if len(marked):
            raise ValueError(
                f"block {block}: row {marked[0]} is coded like a row that was never written: "
                "int8 codes are -127 to 127, and a row of signs has at least one bit set."
            )

    def _check_scales(self, block: int, signatures: np.ndarray, scales: np.ndarray | None) -> None:
        if self.scales is None:
            if scales is not None:
                raise ValueError(f"block {block}: {self.code} signatures have no scales.")
            return
        found = "none" if scales is None else f"{scales.dtype} {list(scales.shape)}"
        if scales is None or scales.dtype != np.float32 or scales.shape != (len(signatures),):
            raise ValueError(
                f"block {block}: expected float32 scales [{len(signatures)}], got {found}."
            )
        if not (np.isfinite(scales) & (scales >= 0)).all():
            raise ValueError(f"block {block}: scales must be finite and 0 or more.")

    def _check_floats(self, block: int, n_rows: int, floats: np.ndarray | None) -> None:
        wanted = "none" if self.floats is None else f"float16 {[n_rows, self.float_numbers]}"
        found = "none" if floats is None else f"{floats.dtype} {list(floats.shape)}"
        if found != wanted:
            raise ValueError(f"block {block}: expected floats: {wanted}, got {found}.")
        if floats is not None:
            _refuse_not_finite(block, floats)


def _refuse_not_finite(block: int, signatures: np.ndarray) -> None:
    broken = np.flatnonzero(~np.isfinite(signatures).all(axis=1))
    if len(broken):
        raise ValueError(
            f"block {block}: {len(broken)} signatures are not finite, the first is row "
            f"{broken[0]} of the block. Check the model's number format (dtype)."
        )
