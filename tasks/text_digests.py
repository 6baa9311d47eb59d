"""MinHash digests of texts: word 5-grams, 128 numbers each.

Words are split at ASCII punctuation and white space, in lower case; a text of a language that is
written without spaces is few long words, and only equal ones are found. rensa makes the digests:
it takes hashes of all texts in one buffer, so that no word becomes a Python object.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rise_ops.shingles import shingle_hashes

N_NUMBERS = 128
SHINGLE_WORDS = 5
SEED = 0x5EED
TEXTS_AT_ONCE = 4_096
"""Texts whose words are in memory at once."""


def text_digests(texts: Sequence[str]) -> NDArray[np.uint32]:
    """Return one digest a text, uint32 [n, N_NUMBERS]; equal words in equal order, equal digest."""
    parts = [
        _digests(texts[start : start + TEXTS_AT_ONCE])
        for start in range(0, len(texts), TEXTS_AT_ONCE)
    ]
    return np.concatenate([np.zeros((0, N_NUMBERS), np.uint32), *parts])


def _digests(texts: Sequence[str]) -> NDArray[np.uint32]:
    from rensa import RMinHash

    words, offsets = _word_hashes(texts)
    shingles, starts = shingle_hashes(words, offsets, n_words=SHINGLE_WORDS)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        shingles, starts.astype(np.uint64), N_NUMBERS, SEED
    )
    return np.array(matrix.to_rows(), np.uint32)


def _word_hashes(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return a hash of every word, and where each text's words begin."""
    from pandas.util import hash_array

    lowered = pc.utf8_lower(pa.array(texts, pa.string()))
    spaced = pc.ascii_trim_whitespace(_without_punctuation(lowered))
    # of a text that is nothing but punctuation, the punctuation
    spaced = pc.if_else(pc.equal(spaced, ""), pc.ascii_trim_whitespace(lowered), spaced)
    split = pc.ascii_split_whitespace(spaced)
    encoded = split.values.dictionary_encode()
    hashes = hash_array(encoded.dictionary.to_numpy(zero_copy_only=False), categorize=False)
    offsets = split.offsets.to_numpy().astype(np.int64)
    return hashes[encoded.indices.to_numpy()], offsets


def _without_punctuation(texts: pa.StringArray) -> pa.StringArray:
    """Put a space for every ASCII character that is no letter or digit; bytes of others stay."""
    null, offsets, data = texts.buffers()
    table = np.arange(256, dtype=np.uint8)
    letters = [code for code in range(128) if chr(code).isalnum()]
    table[[code for code in range(128) if code not in letters]] = ord(" ")
    spaced = table[np.frombuffer(data, np.uint8)] if data is not None else np.zeros(0, np.uint8)
    return pa.StringArray.from_buffers(len(texts), offsets, pa.py_buffer(spaced), null)
