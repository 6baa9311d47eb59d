"""A few short texts of a task, balanced over labels: what can be trained on many times.

Texts are cut at a token, so that a method reads what is trained on and nothing more.
"""

import random
from collections.abc import Container, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tasks.backbone import RowTokenizer
from tasks.evaluate.method import LabelledText


class MeasureRefused(ValueError):  # noqa: N818 - a verdict on a measure and a task, not a fault
    """A task is too small for a measure; the message says which setting to change."""


def cut_texts(
    texts: Sequence[LabelledText], tokenizer: RowTokenizer, *, max_tokens: int
) -> list[LabelledText]:
    """Return texts cut behind their first ``max_tokens`` tokens."""
    ends = tokenizer.ends([text.text for text in texts], n_tokens=max_tokens)
    return [
        replace(text, text=text.text[:end], prompt_chars=min(text.prompt_chars, end))
        for text, end in zip(texts, ends, strict=True)
    ]


def with_loss(
    texts: Sequence[LabelledText], tokenizer: RowTokenizer, *, completion: bool, least: int = 1
) -> list[int]:
    """Return the positions of texts that have a predicted token, or as many as ``least``."""
    n_predicted = predicted_tokens(texts, tokenizer, completion=completion)
    return np.flatnonzero(n_predicted >= least).tolist()


def predicted_tokens(
    texts: Sequence[LabelledText],
    tokenizer: RowTokenizer,
    *,
    completion: bool,
    max_tokens: int | None = None,
) -> npt.NDArray[np.int64]:
    """Return how many tokens of each text are predicted, int64 ``[texts]``.

    Args:
        texts: Whole texts, or cut ones.
        tokenizer: Of the model.
        completion: Whether prompts are masked.
        max_tokens: Behind so many tokens nothing is predicted; None: to the end.
    """
    borders = [text.prompt_chars if completion else 0 for text in texts]
    encoded = tokenizer.encode([text.text for text in texts], borders)
    counts = [len(row.ids[:max_tokens]) - max(1, row.first_target) for row in encoded]
    return np.maximum(0, np.array(counts, dtype=np.int64))


def balanced(
    texts: Sequence[LabelledText],
    candidates: Sequence[int],
    n: int,
    *,
    seed: int,
    preferred: Container[int] = (),
) -> list[int]:
    """Return ``n`` candidates, as many of each label as there are, drawn by seed; ascending.

    A label that has too few leaves its places to the others.

    Args:
        texts: All texts.
        candidates: Positions that may be drawn.
        n: How many; all candidates where there are fewer.
        seed: Of the draw.
        preferred: Positions that are drawn before others of their label.
    """
    waiting: dict[str, list[int]] = {}
    for number in candidates:
        waiting.setdefault(texts[number].label, []).append(number)
    for label, own in waiting.items():
        random.Random(f"{seed} {label}").shuffle(own)
        own.sort(key=lambda number: number not in preferred)
    chosen: list[int] = []
    while len(chosen) < n and any(waiting.values()):
        for label in sorted(waiting):
            if waiting[label] and len(chosen) < n:
                chosen.append(waiting[label].pop(0))
    return sorted(chosen)


def same_label(
    rows: Sequence[LabelledText], queries: Sequence[LabelledText]
) -> npt.NDArray[np.bool_]:
    """Return which rows have a query's label, bool ``[rows, queries]``."""
    left = np.array([row.label for row in rows], dtype=object)
    right = np.array([query.label for query in queries], dtype=object)
    return np.asarray(left[:, None] == right[None, :], dtype=np.bool_)
