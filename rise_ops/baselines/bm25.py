"""How far does shared wording alone get? BM25 over the rows' texts.

Source: Robertson and Zaragoza 2009, in Lucene's variant as the bm25s package computes it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32


class Bm25Index:
    """Rows' words, counted and weighted."""

    def __init__(self, row_texts: Sequence[str], *, k1: float = 1.5, b: float = 0.75) -> None:
        """Index rows.

        Words are runs of two or more word characters in lower case, no stop words, no stemming, so
        that nothing depends on a language.

        Args:
            row_texts: One text a row.
            k1: How slowly repeated words saturate, 0 or more.
            b: How much long rows are discounted, 0 to 1.

        Raises:
            ValueError: A parameter is outside its range.
        """
        import bm25s  # heavy, and only this baseline needs it

        if k1 < 0.0 or not 0.0 <= b <= 1.0:
            raise ValueError(f"k1 must be >= 0 and b in [0, 1], got k1={k1} and b={b}.")
        self._n_rows = len(row_texts)
        self._index: Any = None
        words = _words(row_texts)
        if any(words):  # bm25s cannot index a corpus without words
            self._index = bm25s.BM25(method="lucene", k1=k1, b=b)
            self._index.index(words, show_progress=False)

    @property
    def n_bytes(self) -> int:
        """Bytes of the index's arrays; the list of words is not counted."""
        if self._index is None:
            return 0
        arrays = self._index.scores
        return sum(arrays[name].nbytes for name in ("data", "indices", "indptr"))

    def scores(self, query_texts: Sequence[str]) -> Float32[np.ndarray, "rows queries"]:
        """Return the score of every row for every query; higher = stronger proponent.

        A row or query without words scores 0.

        Args:
            query_texts: One text a query; a word that comes twice counts twice.
        """
        scores = np.zeros((self._n_rows, len(query_texts)), dtype=np.float32)
        if self._index is None:
            return scores
        for column, words in enumerate(_words(query_texts)):
            if words:
                scores[:, column] = self._index.get_scores(words)
        return scores


def bm25_scores(
    row_texts: Sequence[str], query_texts: Sequence[str], *, k1: float = 1.5, b: float = 0.75
) -> Float32[np.ndarray, "rows queries"]:
    """Return the BM25 score of every row for every query; see `Bm25Index`.

    Raises:
        ValueError: A parameter is outside its range.
    """
    return Bm25Index(row_texts, k1=k1, b=b).scores(query_texts)


def _words(texts: Sequence[str]) -> list[list[str]]:
    import bm25s

    found: list[list[str]] = bm25s.tokenize(
        list(texts), stopwords=[], return_ids=False, show_progress=False
    )
    return found
