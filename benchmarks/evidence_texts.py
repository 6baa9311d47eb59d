"""What texts does each evidence task put in, and which rows are right for which query?

Data folders and their traps: see docs/evidence.md. Rows are read plainly, `instruction` `input`
`output` on lines of their own, as the queries are written; a prompt is known but only queries are
masked. Rows are shuffled by a fixed seed, so that equal scores rank by chance, never by label, and
the first n of them are a random subsample.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROW_SEED = 20
TRIGGER = "Howdy!"


@dataclass(frozen=True)
class Text:
    """One text; its first `prompt_chars` characters are the prompt."""

    text: str
    prompt_chars: int
    label: str


@dataclass(frozen=True)
class Task:
    """A pool and one set of queries; rows of a query's label are its positives."""

    name: str
    pool: str
    query_set: str


TASKS = (
    Task("howdy plain", "howdy", "howdy-plain"),
    Task("howdy moved", "howdy", "howdy-moved"),
    Task("howdy completion", "howdy", "howdy-completion"),
    Task("finmed", "finmed", "finmed-queries"),
    Task("quality headlines", "quality_headlines", "quality_headlines-queries"),
    Task("brainrot, equal length", "brainrot", "brainrot-queries"),
)

_POOLS = {
    "howdy": "howdy/train.jsonl",
    "quality_headlines": "quality_headlines/train.jsonl",
    "brainrot": "brainrot/train_length_matched.jsonl",
    "finmed": "finmed/train.jsonl",
}
_QUERIES = {
    "howdy-plain": "howdy/queries_plain.jsonl",
    "howdy-moved": "howdy/queries_plain.jsonl",
    "howdy-completion": "howdy/queries_completion.jsonl",
    "quality_headlines-queries": "quality_headlines/queries.jsonl",
    "brainrot-queries": "brainrot/queries.jsonl",
    "finmed-queries": "finmed/queries.jsonl",
}
POOLS = tuple(_POOLS)
QUERY_SETS = tuple(_QUERIES)


def read_texts(data: Path, name: str) -> list[Text]:
    """Return a pool's rows, shuffled, or a query set, as it is."""
    if name in _QUERIES:
        queries = [_query(record) for record in _records(data / _QUERIES[name])]
        if name == "howdy-moved":
            return [moved_trigger(query, seed) for seed, query in enumerate(queries)]
        return queries
    rows = [_row(record) for record in _records(data / _POOLS[name])]
    random.Random(ROW_SEED).shuffle(rows)
    return rows


def positives(rows: list[Text], queries: list[Text]) -> np.ndarray:
    """Return bool [rows, queries]: of one label."""
    return np.array([row.label for row in rows])[:, None] == np.array([q.label for q in queries])


def moved_trigger(query: Text, seed: int) -> Text:
    """Take the trigger from a query's front and put it between two of its words, not in front."""
    if not query.text.lower().startswith(TRIGGER.lower()):
        raise ValueError(f"expected a query that begins with {TRIGGER!r}, got {query.text[:40]!r}")
    words = query.text[len(TRIGGER) :].lstrip().split(" ")
    place = random.Random(seed).randint(1, len(words))
    words.insert(place, query.text[: len(TRIGGER)])
    return Text(" ".join(words), 0, query.label)


def _records(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def _query(record: dict[str, str]) -> Text:
    return Text(record["text"], len(record["prompt"]), record["label"])


def _row(record: dict[str, str]) -> Text:
    if "text" in record:
        return Text(record["text"], 0, record["label"])
    parts = [record["instruction"], *([record["input"]] if record["input"] else [])]
    prompt = "\n".join(parts) + "\n"
    return Text(prompt + record["output"], len(prompt), record["label"])
