"""How far do rare shared words get? Cosine of TF-IDF vectors.

Source: Salton and Buckley 1988; smoothed weights ``log((1 + n) / (1 + df)) + 1`` of the rows.
"""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32
from scipy import sparse

WORD = re.compile(r"\b\w\w+\b")
"""Runs of two or more word characters, as for BM25; no stop words, no stemming."""


def tf_idf_scores(
    row_texts: Sequence[str], query_texts: Sequence[str]
) -> Float32[np.ndarray, "rows queries"]:
    """Return the cosine of every row with every query; higher = stronger proponent.

    Words that no row has do not count; a row or query without words scores 0.

    Args:
        row_texts: One text a row; weights are of these.
        query_texts: One text a query.
    """
    vocabulary: dict[str, int] = {}
    counted = [Counter(_words(text)) for text in row_texts]
    for words in counted:
        for word in words:
            vocabulary.setdefault(word, len(vocabulary))
    frequency = Counter(word for words in counted for word in words)
    idf = np.array([np.log((1 + len(row_texts)) / (1 + frequency[w])) + 1.0 for w in vocabulary])
    rows = _vectors(counted, vocabulary, idf)
    queries = _vectors([Counter(_words(text)) for text in query_texts], vocabulary, idf)
    return np.asarray((rows @ queries.T).toarray(), dtype=np.float32)


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def _vectors(
    counted: Sequence[Counter[str]], vocabulary: dict[str, int], idf: np.ndarray
) -> sparse.csr_matrix:
    entries = [
        (place, vocabulary[word], n * idf[vocabulary[word]])
        for place, words in enumerate(counted)
        for word, n in words.items()
        if word in vocabulary
    ]
    places, columns, values = (
        np.array(part) for part in (zip(*entries, strict=True) if entries else ([], [], []))
    )
    shape = (len(counted), len(vocabulary))
    found = sparse.csr_matrix((values, (places.astype(int), columns.astype(int))), shape=shape)
    lengths = np.sqrt(np.asarray(found.multiply(found).sum(axis=1)).ravel())
    return sparse.diags(1.0 / np.maximum(lengths, 1e-300)) @ found
