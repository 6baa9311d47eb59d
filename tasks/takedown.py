"""Taking rows down: what is masked in scores and releases, and the proof that a release carries."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.refs import CorpusRef


def masked_rows(corpus: CorpusRef, batches: Sequence[str]) -> NDArray[np.int64]:
    """Return the positions of tombstoned rows in batches laid end to end, ascending.

    Args:
        corpus: The corpus; one without tombstones gives an empty array.
        batches: Batch ids in the order of the index or scores.
    """
    return np.zeros(0, np.int64)


def takedown_proof(corpus: CorpusRef, batches: Sequence[str]) -> dict[str, Any] | None:
    """Return what a release says of the tombstoned rows of its batches; None when there are none.

    Returns:
        ``digest`` (part of the release's identity), ``n_rows``, ``records`` (id, kind, reason,
        time, n_rows of each) and, where they are few, ``row_ids_sha256``.
    """
    return None
