"""What never changes about an index: its identity and sizes, and the empty arrays they ask for."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from storage import arrays
from storage.blocks import GROUP, PLAIN_CODE, SignatureBlocks
from storage.files import canonical_json, short_id
from storage.layout import INDEX_FILE, INDEX_FORMAT
from storage.manifests import write_manifest

TABLES = "tables"


def index_header(
    identity: Mapping[str, Any],
    *,
    n_numbers: int,
    block_rows: int,
    code: str,
    float_numbers: int | None,
) -> dict[str, Any]:
    """Return the fields of ``index.json``; see `SignatureIndex.create`."""
    if n_numbers < 1 or block_rows < 1:
        raise ValueError(f"expected n_numbers and block_rows >= 1, got {n_numbers}, {block_rows}.")
    return {
        "identity": json.loads(canonical_json(identity)),  # as it will be read: tuples are lists
        "index_id": short_id(identity),
        "n_numbers": n_numbers,
        "block_rows": block_rows,
        # absent means float16, and no floats: indexes from before there were any stay what they are
        **({} if code == PLAIN_CODE else {"code": code}),
        **({} if float_numbers is None else {"float_numbers": float_numbers}),
    }


def index_blocks(folder: Path, header: Mapping[str, Any]) -> SignatureBlocks:
    """Return the block files that a header asks for."""
    return SignatureBlocks(
        folder,
        header["n_numbers"],
        header["block_rows"],
        header.get("code", PLAIN_CODE),
        header.get("float_numbers"),
    )


def write_empty_index(
    folder: Path, header: Mapping[str, Any], tables: Mapping[str, np.ndarray]
) -> None:
    """Fill a folder with an index without rows."""
    index_blocks(folder, header).create()
    stored = arrays.create_group(folder / GROUP / TABLES)
    for name in sorted(tables):
        arrays.write_whole(stored, name, tables[name])
    write_manifest(folder / INDEX_FILE, INDEX_FORMAT, header)
