"""What makes an index this one and no other: corpus, space, positions, block size, code.

All of it but two parts is known from fingerprints, before a weight is loaded: the sketch tables,
which enter by their values, and the calibration sample that they were made from.
"""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from storage.errors import MismatchError, NotFoundError, flat_differences
from storage.refs import CorpusRef, IndexRef
from storage.signatures import SignatureIndex
from tasks.backbone import forget_model
from tasks.codes import code_identity, without_rotation
from tasks.config import IndexConfig, ModelConfig
from tasks.signature_config import SignatureConfig
from tasks.space import SignatureSpace, load_space, space_identity, tables_digest

FORMAT = 1

TABLES_KEY = "tables_sha256"
"""Field of a stored space that needs the sketch tables."""

CALIBRATION_KEY = "calibration"
"""Field of a stored identity that says which sample the tables were made from."""


def index_identity(corpus: CorpusRef, config: IndexConfig, *, device: str) -> dict[str, Any]:
    """Return what decides the values in an index, all but the sketch tables."""
    return {
        "format": FORMAT,
        "corpus": corpus.corpus,
        "space": space_identity(config.model, config.signature, device=device),
        "positions": config.positions,
        "block_rows": config.block_rows,
        **code_identity(config.signature),
    }


def index_space(index: SignatureIndex, model: ModelConfig, *, device: str) -> SignatureSpace:
    """Load the space of an index: its stored sketch tables, and ``model``, which must be its own.

    Raises:
        MismatchError: Model, tokenizer or number format are others than the index's.
    """
    require_index_model(index, model, device=device)
    return _load_index_space(index.ref, index.index_id, model, device)


def require_index_model(index: SignatureIndex, model: ModelConfig, *, device: str) -> None:
    """Refuse a model, tokenizer or number format that the index was not built with.

    Only fingerprints are compared; no weight is loaded.

    Raises:
        MismatchError: They differ; the fields are named.
    """
    stored = _without_tables(index.identity["space"])
    signature = SignatureConfig.model_validate(stored["signature"])
    found = space_identity(model, signature, device=device)
    require_same_identity(index.ref, {"space": stored}, {"space": found})


def forget_space() -> None:
    """Let go of the model and tables that this process holds, so that others have the memory."""
    _load_index_space.cache_clear()
    forget_model()


@functools.lru_cache(maxsize=1)
def _load_index_space(
    ref: IndexRef, index_id: str, model: ModelConfig, device: str
) -> SignatureSpace:
    del index_id  # part of the cache's key: an index that was deleted and made anew is read again
    index = SignatureIndex.open(ref)
    space = index.identity["space"]
    tables = without_rotation(index.tables())
    require_same_identity(ref, {TABLES_KEY: space[TABLES_KEY]}, {TABLES_KEY: tables_digest(tables)})
    signature = SignatureConfig.model_validate(space["signature"])
    return load_space(model, signature, tables, device=device)


def existing_index(ref: IndexRef, identity: Mapping[str, Any]) -> SignatureIndex | None:
    """Return the index if it exists.

    Args:
        ref: Which.
        identity: What `index_identity` says that it must be.

    Raises:
        MismatchError: It is another one; the fields are named.
    """
    try:
        index = SignatureIndex.open(ref)
    except NotFoundError:
        return None
    stored = {key: value for key, value in index.identity.items() if key != CALIBRATION_KEY}
    require_same_identity(ref, {**stored, "space": _without_tables(stored["space"])}, identity)
    return index


def with_tables(
    identity: Mapping[str, Any],
    tables: Mapping[str, np.ndarray],
    calibration: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the whole identity of an index, as it is stored.

    Args:
        identity: From `index_identity`.
        tables: Sketch tables.
        calibration: Which sample they were made from; None where there was none.
    """
    space = {**identity["space"], TABLES_KEY: tables_digest(tables)}
    sample = {} if calibration is None else {CALIBRATION_KEY: dict(calibration)}
    return {**identity, "space": space, **sample}


def _without_tables(space: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in space.items() if key != TABLES_KEY}


def require_same_identity(
    ref: IndexRef, stored: Mapping[str, Any], found: Mapping[str, Any]
) -> None:
    """Raise `MismatchError` where two identities of an index differ; the fields are named."""
    differences = flat_differences(stored, found)
    if differences:
        raise MismatchError(
            f"index {ref.index!r} was built with other settings",
            differences,
            "Use the settings of the index (for another machine, state its dtype instead of "
            "auto), or build a new index under another name.",
        )
