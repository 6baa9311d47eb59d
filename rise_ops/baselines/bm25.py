"""How far does shared wording alone get? BM25 over the rows' texts.

Source: Robertson and Zaragoza 2009, in Lucene's variant as the bm25s package computes it.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32


def bm25_scores(
    row_texts: Sequence[str], query_texts: Sequence[str], *, k1: float = 1.5, b: float = 0.75
) -> Float32[np.ndarray, "rows queries"]:
    """Return the BM25 score of every row for every query; higher = stronger proponent.

    Words are runs of two or more word characters in lower case, no stop words, no stemming, so
    that nothing depends on a language. A row or query without words scores 0.

    Args:
        row_texts: One text a row.
        query_texts: One text a query; a word that comes twice counts twice.
        k1: How slowly repeated words saturate, 0 or more.
        b: How much long rows are discounted, 0 to 1.

    Raises:
        ValueError: A parameter is outside its range.
    """
    import bm25s  # heavy, and only this baseline needs it

    if k1 < 0.0 or not 0.0 <= b <= 1.0:
        raise ValueError(f"k1 must be >= 0 and b in [0, 1], got k1={k1} and b={b}.")
    scores = np.zeros((len(row_texts), len(query_texts)), dtype=np.float32)
    rows, queries = (
        bm25s.tokenize(list(texts), stopwords=[], return_ids=False, show_progress=False)
        for texts in (row_texts, query_texts)
    )
    if not any(rows):  # bm25s cannot index a corpus without words
        return scores
    index = bm25s.BM25(method="lucene", k1=k1, b=b)
    index.index(rows, show_progress=False)
    for column, words in enumerate(queries):
        if words:
            scores[:, column] = index.get_scores(words)
    return scores
