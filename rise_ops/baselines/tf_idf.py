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


class TfIdfIndex:
    """Rows' weighted words, each row of length 1."""

    def __init__(self, row_texts: Sequence[str]) -> None:
        """Index rows; weights of words are of these.

        Args:
            row_texts: One text a row.
        """
        self._vocabulary: dict[str, int] = {}
        counted = [Counter(_words(text)) for text in row_texts]
        for words in counted:
            for word in words:
                self._vocabulary.setdefault(word, len(self._vocabulary))
        frequency = Counter(word for words in counted for word in words)
        n_rows = len(row_texts)
        weights = [np.log((1 + n_rows) / (1 + frequency[w])) + 1.0 for w in self._vocabulary]
        self._weights = np.array(weights)
        self._rows = _vectors(counted, self._vocabulary, self._weights)

    @property
    def n_bytes(self) -> int:
        """Bytes of the index's arrays; the list of words is not counted."""
        rows = self._rows
        parts = (rows.data, rows.indices, rows.indptr, self._weights)
        return int(sum(part.nbytes for part in parts))

    def scores(self, query_texts: Sequence[str]) -> Float32[np.ndarray, "rows queries"]:
        """Return the cosine of every row with every query; higher = stronger proponent.

        Words that no row has do not count; a row or query without words scores 0.

        Args:
            query_texts: One text a query.
        """
        counted = [Counter(_words(text)) for text in query_texts]
        queries = _vectors(counted, self._vocabulary, self._weights)
        return np.asarray((self._rows @ queries.T).toarray(), dtype=np.float32)


def tf_idf_scores(
    row_texts: Sequence[str], query_texts: Sequence[str]
) -> Float32[np.ndarray, "rows queries"]:
    """Return the cosine of every row with every query; see `TfIdfIndex`."""
    return TfIdfIndex(row_texts).scores(query_texts)


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
    return sparse.csr_matrix(sparse.diags(1.0 / np.maximum(lengths, 1e-300)) @ found)
