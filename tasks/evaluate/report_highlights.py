"""Token highlights of the examples: which tokens made the scores of RISE, by its own index.

RISE leaves its store in the evaluation's work folder. An index serves when it is of the task's
model and has the example's rows with the same texts; the query is read whole from where RISE was
given it. The model runs on every row that is shown, so these are few.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from storage.corpus import Corpus
from storage.errors import NotFoundError, StorageError
from storage.files import short_id
from storage.refs import CorpusRef, IndexRef
from storage.signatures import SignatureIndex
from tasks.config import RuntimeConfig
from tasks.evaluate.measure import EXCERPT_CHARS
from tasks.evaluate.ready import POOLS, TASKS
from tasks.evaluate.report_data import Contender, Place, Results
from tasks.evaluate.report_examples import RISE, Asked, Highlighted
from tasks.evaluate.rise_method import NAME

Found = dict[tuple[str, str, str, str, str], Highlighted]

HIGHLIGHTED_ROWS = 3
"""Of one query a task."""
MOST_TOKENS = 1_024
"""Rows longer than this are shown without highlights: reading them again takes too long."""


def find_highlights(
    results: Results, examples: Sequence[Asked], runtime: RuntimeConfig
) -> tuple[Found, str | None]:
    """Return what tokens add to scores of RISE, and why there is nothing of it, if so.

    Args:
        results: The evaluation.
        examples: What the page shows; of each task the first query is looked at.
        runtime: Device and batch size.
    """
    found: Found = {}
    reasons: list[str] = []
    seen: set[tuple[str, str]] = set()
    for one in examples:
        if one.place.key in seen or not one.sides or one.sides[0][0].family != RISE:
            continue
        seen.add(one.place.key)
        try:
            found.update(_of_query(results, one, runtime))
        except (ValueError, RuntimeError, StorageError, OSError) as error:
            # the page is drawn whether or not index and model are here; the reason stands on it
            reasons.append(str(error))
    if found or not seen:
        return found, None
    return found, reasons[0] if reasons else "no row that is shown could be read again."


def _of_query(results: Results, one: Asked, runtime: RuntimeConfig) -> Found:
    from tasks.attribution import token_contributions

    method, lines = one.sides[0]
    shown = [line for line in lines[:HIGHLIGHTED_ROWS] if line["score"]]
    index = _index(results, one.place, method, shown)
    query = _query(results, one, method)
    n_prompt = len(query["prompt"])
    corpus = Corpus(CorpusRef(index.root, NAME))
    found: Found = {}
    for line in shown:
        row = corpus.locate(line["row_id"]).row
        if row.n_tokens > MOST_TOKENS:
            continue
        made = token_contributions(
            index,
            line["row_id"],
            query["text"][:n_prompt],
            query["text"][n_prompt:],
            runtime=runtime,
        )
        found[(*one.place.key, method.name, one.query["query_id"], line["row_id"])] = Highlighted(
            made, row.text, query["text"]
        )
    return found


def _index(
    results: Results, place: Place, method: Contender, lines: Sequence[Mapping[str, Any]]
) -> IndexRef:
    """Return the index that a method's scores came from.

    Raises:
        NotFoundError: It is no longer in the work folder.
    """
    lineage = results.about.get("lineage", {}).get("tasks", {})
    model = lineage.get(f"{place.task} ({place.paradigm})", {}).get("model")
    for folder in sorted((results.work / POOLS).glob(f"*/{_mine(method)}/store")):
        ref = IndexRef(str(folder), NAME)
        if _serves(ref, model, lines):
            return ref
    raise NotFoundError(
        f"the index of {method.name} on {place.name} is not in {results.work / POOLS}."
    )


def _serves(ref: IndexRef, model: str | None, lines: Sequence[Mapping[str, Any]]) -> bool:
    try:
        space = SignatureIndex.open(ref).identity["space"]
        if short_id({"model": space["model"], "dtype": space["dtype"]}) != model:
            return False
        corpus = Corpus(CorpusRef(ref.root, NAME))
        texts = [corpus.locate(line["row_id"]).row.text for line in lines]
    except StorageError:  # half built, or of other rows
        return False
    return all(
        text[:EXCERPT_CHARS] == line["text"] for text, line in zip(texts, lines, strict=True)
    )


def _query(results: Results, one: Asked, method: Contender) -> Mapping[str, Any]:
    """Return a query whole: the table of examples has its beginning.

    Raises:
        NotFoundError: What RISE was asked is no longer in the work folder.
    """
    place = one.place
    folders = (results.work / TASKS).glob(f"{place.task}-{place.paradigm}-*/{_mine(method)}")
    for folder in sorted(folders):
        for line in _lines(folder / "queries.jsonl"):
            same = line["id"] == one.query["query_id"]
            if same and line["text"][:EXCERPT_CHARS] == one.query["text"]:
                return line
    raise NotFoundError(f"query {one.query['query_id']!r} is not in {results.work / TASKS}.")


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            yield from (json.loads(line) for line in file)


def _mine(method: Contender) -> str:
    return f"{method.key}-{short_id(json.loads(method.settings))}"
