"""How the rows of an index are coded, and what that asks of its queries.

Codes belong to rows: a query set is float32, is made for a signature space, and fits every index of
that space, whatever its code. Where rows were rotated before they were coded, queries are rotated
when they are scored, with the tables that the index keeps.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rise_ops.codes import Rotation, draw_rotation, rotated_numbers
from rise_ops.scoring import QueryPanel, query_panel
from storage.blocks import PLAIN_CODE
from storage.errors import CorruptionError
from storage.signatures import SignatureIndex
from tasks.signature_config import SignatureConfig
from tasks.space import tables_digest

ROTATION_PREFIX = "rotation_"
"""Tables of the rotation, beside the sketch tables of an index."""


def code_rotation(signature: SignatureConfig) -> Rotation | None:
    """Draw the rotation that rows get before they are coded; None where they need none.

    Numbers of a separable random sketch need it, those of other sketches do not; float16 rows
    never do.

    Args:
        signature: Sketch, its seed, and code.
    """
    sketch = signature.sketch
    if signature.code == PLAIN_CODE or sketch.kind != "separable":
        return None
    return draw_rotation(sketch.n_numbers, seed=sketch.seed)


def code_identity(signature: SignatureConfig) -> dict[str, Any]:
    """Return what the code adds to the identity of an index: nothing for float16."""
    if signature.code == PLAIN_CODE:
        return {}
    rotation = code_rotation(signature)
    digest = None if rotation is None else tables_digest(rotation.to_arrays())
    # settings that are off are left out: indexes from before there were floats stay what they are
    floats = {"floats": "float16"} if signature.keep_floats else {}
    return {"code": {"name": signature.code, "rotation_sha256": digest, **floats}}


def coded_numbers(signature: SignatureConfig) -> int:
    """Return the numbers of a row as coded: a rotation fills up to a power of two."""
    n_numbers = signature.sketch.n_numbers
    is_rotated = signature.code != PLAIN_CODE and signature.sketch.kind == "separable"
    return rotated_numbers(n_numbers) if is_rotated else n_numbers


def float_numbers(signature: SignatureConfig) -> int | None:
    """Return the numbers of the float rows beside codes, which are not rotated; None without."""
    return signature.sketch.n_numbers if signature.keep_floats else None


def stored_rotation(index: SignatureIndex) -> Rotation | None:
    """Return the rotation of an index by its tables; None where it has none.

    Raises:
        CorruptionError: A table is damaged, or is not the index's.
    """
    if index.code == PLAIN_CODE:
        return None
    tables = {name: table for name, table in index.tables().items() if is_rotation(name)}
    expected = index.identity["code"]["rotation_sha256"]
    if (tables_digest(tables) if tables else None) != expected:
        raise CorruptionError(
            f"index {index.ref.index!r} has other rotation tables than it was built with. "
            f"Restore {index.folder} from a copy, or build the index again."
        )
    return Rotation.from_arrays(tables) if tables else None


def is_rotation(table: str) -> bool:
    """Tell whether a table of an index belongs to its rotation and not to its sketch."""
    return table.startswith(ROTATION_PREFIX)


def without_rotation(tables: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the tables of the signature space alone."""
    return {name: table for name, table in tables.items() if not is_rotation(name)}


def index_panel(index: SignatureIndex, signatures: np.ndarray) -> QueryPanel:
    """Return query signatures and their mean as the rows of an index want to be multiplied.

    Args:
        index: The rows.
        signatures: float32 [n_queries, n_numbers], made in the index's space, not rotated.

    Raises:
        ValueError: The signatures have another length than the rows had before coding; gives
            both numbers.
    """
    rotation = stored_rotation(index)
    n_numbers = index.n_numbers if rotation is None else rotation.n
    if signatures.ndim != 2 or signatures.shape[1] != n_numbers:
        raise ValueError(
            f"expected query signatures [n_queries, {n_numbers}], as index "
            f"{index.ref.index!r} has, got {list(signatures.shape)}. Make them with this index."
        )
    vectors = signatures.astype(np.float32, copy=False)
    return query_panel(vectors if rotation is None else rotation.apply(vectors))
