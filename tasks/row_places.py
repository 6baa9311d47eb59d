"""Which of several places of a row counts: the newest, where a changed row came in again.

A row's id is unique among the rows of a corpus that are alive. Where it has more than one place,
all but the newest have tombstones, so the newest says what the row is, and whether it is.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def newest_places(row_ids: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Return which lines are the last with their id, bool [rows].

    Args:
        row_ids: Ids in the order of the corpus.
    """
    encoded = pc.dictionary_encode(row_ids).combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = pa.concat_arrays(encoded.chunks)
    mask = np.ones(len(row_ids), np.bool_)
    if len(encoded.dictionary) == len(row_ids):
        return mask
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    _, from_the_end = np.unique(codes[::-1], return_index=True)
    mask[:] = False
    mask[len(codes) - 1 - from_the_end] = True
    return mask


def gone_ids(row_ids: pa.ChunkedArray, dead: NDArray[np.int64]) -> pa.Array:
    """Return the ids whose newest place is dead, each once, in the order of their places.

    Args:
        row_ids: Ids in the order of the corpus.
        dead: Places that have a tombstone, counted from 0.
    """
    here = dead[newest_places(row_ids)[dead]]
    found = row_ids.take(pa.array(here, pa.int64()))
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
