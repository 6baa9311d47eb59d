"""One answer, the rows behind it, and the tokens behind a row's score: without flows.

A question to an index, without a query set. `token_contributions` reads one row and one answer
again and says which of their tokens made the score.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rise_ops import token_contributions as parts
from rise_ops.projection import PositionFeatures
from rise_ops.token_contributions import RowPositions
from storage.corpus import Corpus
from storage.refs import CorpusRef, IndexRef
from storage.signatures import SignatureIndex
from tasks.backbone import TokenRow, resolve_device
from tasks.batches import check_token_ids, cut_windows
from tasks.config import RuntimeConfig
from tasks.fields import check_text
from tasks.index_identity import index_space
from tasks.queries import index_model, query_signatures
from tasks.scoring import Hit, attribute
from tasks.sketching import window_features
from tasks.space import SignatureSpace
from tasks.takedown import require_not_taken_down


@dataclass(frozen=True)
class TokenShare:
    """What a predicted token adds to a score.

    Attributes:
        token: Its text; a part of a character shows as a replacement mark.
        place: Its place among the tokens of its row or query, from 0.
        contribution: What it adds to the score; may be negative.
        share: Contribution over score.
    """

    token: str
    place: int
    contribution: float
    share: float


@dataclass(frozen=True)
class TokenContributions:
    """How the score of a row and an answer falls apart.

    Attributes:
        row_id: The row.
        score: Inner product of the two signatures in float32; a coded row's stored score differs
            from it by the code's error.
        row: The row's predicted tokens in their order; contributions add up to the score.
        query: The answer's predicted tokens in their order; likewise.
    """

    row_id: str
    score: float
    row: list[TokenShare]
    query: list[TokenShare]


def attribute_text(
    index: IndexRef,
    *,
    prompt: str,
    completion: str,
    top_k: int,
    runtime: RuntimeConfig,
    shortlist: int | None = None,
) -> list[Hit]:
    """Return the training rows that pushed the model towards ``completion``, strongest first.

    Args:
        index: A complete index; its own model and sketch read the text.
        prompt: What came before; it is read but its tokens are not counted. May be empty.
        completion: What the model said.
        top_k: Rows wanted, at most the rows of the index.
        runtime: Device and workers.
        shortlist: Rows that codes choose and the floats kept beside them decide on; None: rows as
            they are coded decide.

    Raises:
        ValueError: The completion has no predicted token, ``top_k`` exceeds the rows or the
            shortlist, or there are no floats for a shortlist.
    """
    _check_answer(prompt, completion)
    signatures = query_signatures(index, [prompt + completion], [len(prompt)], runtime)
    return attribute(index, signatures, top_k=top_k, runtime=runtime, shortlist=shortlist)[0]


def token_contributions(
    index: IndexRef,
    row_id: str,
    prompt: str,
    completion: str,
    *,
    runtime: RuntimeConfig = RuntimeConfig(),  # noqa: B008 - frozen
) -> TokenContributions:
    """Return what each token of a row, and of an answer, adds to their score.

    Args:
        index: Its model and sketch read both.
        row_id: A row of the index's corpus.
        prompt: What came before the answer; its tokens are not counted. May be empty.
        completion: What the model said.
        runtime: Device and batch size.

    Raises:
        ValueError: Nothing is predicted in the row or in the completion, or the index's sketch does
            not keep positions apart (kind ``tensor``).
        NotFoundError: There is no such row, or it was taken down.
    """
    _check_answer(prompt, completion)
    opened = SignatureIndex.open(index)
    _require_positions_apart(opened)
    corpus = CorpusRef(index.root, opened.identity["corpus"])
    require_not_taken_down(corpus, row_id)
    row = Corpus(corpus).locate(row_id).row
    space = index_space(opened, index_model(opened), device=resolve_device(runtime.device))
    masked = opened.identity["positions"] == "completion"
    names = [f"row {row_id!r}", "the completion"]
    tokens = space.tokenizer.encode(
        [row.text, prompt + completion], [row.prompt_chars if masked else 0, len(prompt)]
    )
    (of_row, row_places), (of_query, query_places) = (
        _positions(one, space, runtime, name=name) for one, name in zip(tokens, names, strict=True)
    )
    settings = space.sketcher.settings
    found = parts.token_contributions(
        of_row, of_query, channels=settings.channels, weighting=settings.weighting
    )
    score = float(found.score)
    decode = space.tokenizer.token_texts
    return TokenContributions(
        row_id=row_id,
        score=score,
        row=_shares(found.row, row_places, decode(tokens[0].ids), score),
        query=_shares(found.query, query_places, decode(tokens[1].ids), score),
    )


def _check_answer(prompt: str, completion: str) -> None:
    if not completion.strip():
        raise ValueError("the completion is empty: give the text that the model said.")
    check_text(prompt + completion, "the text")


def _require_positions_apart(index: SignatureIndex) -> None:
    if index.identity["space"]["signature"]["sketch"]["kind"] == "tensor":
        raise ValueError(
            f"index {index.ref.index!r} has a tensor sketch, which does not keep the tokens of a "
            "row apart. Use an index of another kind of sketch, such as preset compact."
        )


def _positions(
    tokens: TokenRow, space: SignatureSpace, runtime: RuntimeConfig, *, name: str
) -> tuple[RowPositions, list[int]]:
    """Return the factors of a row's positions, and the place of the token that each predicts."""
    check_token_ids([tokens], [name], vocabulary=space.vocabulary)
    windows, _ = cut_windows([tokens], space.window)
    if not windows:
        raise ValueError(f"{name} has no token to predict; there is nothing to take apart.")
    features, window_index = window_features(tokens, windows, space, runtime)
    places = [place for one in windows for place in range(one.first_target, one.stop)]
    return RowPositions(_dense(features), window_index), places


def _dense(features: PositionFeatures) -> dict[str, torch.Tensor]:
    factors = {name: getattr(features, name) for name in ("residual", "hidden", "projected")}
    return {name: one for name, one in factors.items() if isinstance(one, torch.Tensor)}


def _shares(
    contributions: torch.Tensor, places: Sequence[int], texts: Sequence[str], score: float
) -> list[TokenShare]:
    # neighbouring windows predict some tokens twice: their contributions belong together
    sums: dict[int, float] = {}
    for place, value in zip(places, contributions.tolist(), strict=True):
        sums[place] = sums.get(place, 0.0) + value
    return [
        TokenShare(texts[place], place, value, value / score if score else 0.0)
        for place, value in sorted(sums.items())
    ]
