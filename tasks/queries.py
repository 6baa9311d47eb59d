"""Stage: queries get their signatures, in the space of an index.

A query is a row whose prompt is masked: only positions that predict the completion count. A query
set is published under a version that names its content and its space, so that asking again for the
same one costs nothing, and scores never meet signatures of another model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from storage.files import short_id
from storage.queries import QuerySet
from storage.refs import IndexRef, QuerySetRef
from storage.roots import shown
from storage.signatures import SignatureIndex
from tasks.backbone import TokenRow, load_tokenizer, resolve_device
from tasks.config import ModelConfig, RowsConfig, RuntimeConfig
from tasks.corpus import canonical_rows
from tasks.index_identity import index_space, require_index_model
from tasks.sketching import sketch_rows

SKETCHED_FIELDS = ("row_id", "text", "prompt_chars")


@dataclass(frozen=True)
class QuerySetReport:
    """A published query set.

    Attributes:
        ref: Name and version.
        path: Its folder.
        n_queries: Queries.
        n_positions: Predicted tokens of all of them.
        already: This very version was there; nothing was computed.
    """

    ref: QuerySetRef
    path: str
    n_queries: int
    n_positions: int
    already: bool


def make_query_set(
    root: str,
    name: str,
    index: IndexRef,
    rows: RowsConfig,
    runtime: RuntimeConfig,
    *,
    model: ModelConfig | None = None,
) -> QuerySetReport:
    """Read queries, sketch them as the index sketched its rows, and publish them.

    Args:
        root: Folder of the store.
        name: Name of the query set; other content makes another version of it.
        index: Its model and sketch are used.
        rows: Where the queries come from; every record must be usable.
        runtime: Speed only.
        model: Where the index's model is, when it is not where it was.

    Raises:
        ValueError: A record is not usable, or a query has nothing to predict after its prompt.
        NotFoundError: There is no such index.
        MismatchError: ``model`` is not the model of the index.
    """
    opened = SignatureIndex.open(index)
    model = model or index_model(opened)
    require_index_model(opened, model, device=resolve_device(runtime.device))
    queries = canonical_rows(rows, load_tokenizer(model))
    content = queries.select(["row_id", "content_hash", "label"]).to_pylist()
    space = opened.identity["space"]
    ref = QuerySetRef(root, name, short_id({"space": space, "content": content}))
    already = QuerySet.exists(ref)
    if already:
        QuerySet.mark_latest(ref)
    else:
        columns = [queries.column(field).to_pylist() for field in SKETCHED_FIELDS]
        signatures, n_positions = _sketch_queries(opened, model, columns, runtime)
        about = {"space": space, "index": index.index, "rows": rows.model_dump(mode="json")}
        QuerySet.write(
            ref, queries=queries, signatures=signatures, n_positions=n_positions, manifest=about
        )
    published = QuerySet.open(ref)
    return QuerySetReport(
        ref=ref,
        path=shown(published.folder),
        n_queries=queries.num_rows,
        n_positions=int(published.n_positions().sum()),
        already=already,
    )


def latest_query_set(root: str, name: str) -> QuerySetRef:
    """Return the version of a query set that was made, or asked for again, last.

    Raises:
        NotFoundError: There is no query set of that name.
    """
    return QuerySet.latest(root, name)


def query_signatures(
    index: IndexRef,
    texts: Sequence[str],
    prompt_chars: Sequence[int],
    runtime: RuntimeConfig,
) -> np.ndarray:
    """Return the signatures of texts that somebody asks about, float32 [texts, numbers].

    Args:
        index: Its model and sketch are used.
        texts: Prompt and completion, one string each.
        prompt_chars: Length of each prompt in characters.
        runtime: Speed only.

    Raises:
        ValueError: A text has nothing to predict after its prompt.
    """
    opened = SignatureIndex.open(index)
    names = [f"text {number}" for number in range(1, len(texts) + 1)]
    columns: list[list[Any]] = [names, list(texts), list(prompt_chars)]
    return _sketch_queries(opened, index_model(opened), columns, runtime)[0]


def index_model(index: SignatureIndex) -> ModelConfig:
    """Return the model that an index was built with, in the index's own number format.

    Raises:
        ValueError: The index does not say where its model is.
    """
    remembered = index.remembered_model()
    if remembered is None:
        raise ValueError(
            f"index {index.ref.index!r} does not say which model it was built with. Run its build "
            "again with the model's name."
        )
    # "auto" may mean another format on this machine than on the one that built the index
    dtype = index.identity["space"]["dtype"]
    return ModelConfig.model_validate({**remembered, "dtype": dtype})


def _sketch_queries(
    index: SignatureIndex,
    model: ModelConfig,
    columns: list[list[Any]],
    runtime: RuntimeConfig,
) -> tuple[np.ndarray, np.ndarray]:
    row_ids, texts, prompt_chars = columns
    space = index_space(index, model, device=resolve_device(runtime.device))
    rows = space.tokenizer.encode(texts, prompt_chars)
    _require_targets(rows, row_ids)
    return sketch_rows(rows, space, runtime, row_ids=row_ids, where="queries")


def _require_targets(rows: Sequence[TokenRow], row_ids: Sequence[str]) -> None:
    empty = [
        row_id
        for row, row_id in zip(rows, row_ids, strict=True)
        if len(row.ids) <= max(row.first_target, 1)
    ]
    if empty:
        raise ValueError(
            f"{len(empty)} queries have no token to predict after their prompt: {empty[:5]}. Give "
            "each a completion (what the model said), or leave it out."
        )
