"""How far do rare shared words get? TF-IDF, the rival that retrained models often prefer."""

import re

import numpy as np


def tfidf_scores(rows: list[str], queries: list[str]) -> np.ndarray:
    """Return cosines of term frequencies times log(n / rows with the word), words as BM25's."""

    words = [re.findall(r"\w\w+", text.lower()) for text in [*rows, *queries]]
    numbers = {word: n for n, word in enumerate(sorted({w for own in words for w in own}))}
    counts = np.zeros((len(words), len(numbers)))
    for line, own in enumerate(words):
        for word in own:
            counts[line, numbers[word]] += 1
    rarity = np.log((1 + len(rows)) / (1 + (counts[: len(rows)] > 0).sum(0))) + 1
    weighted = counts * rarity
    weighted /= np.maximum(np.linalg.norm(weighted, axis=1, keepdims=True), 1e-12)
    return weighted[: len(rows)] @ weighted[len(rows) :].T
