"""The tasks that the suite knows, read from a data folder; docs/evaluation.md tells their traps.

Rows are read plainly, `instruction` `input` `output` on lines of their own, as the queries are
written. The folder has ``howdy``, ``finmed``, ``quality_headlines`` and ``brainrot``.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasks.evaluate.method import LabelledText
from tasks.evaluate.texts import TaskTexts

TRIGGER = "Howdy!"

Change = Callable[[LabelledText, int], LabelledText]


@dataclass(frozen=True)
class BuiltIn:
    """Files of a task, what is done to its queries, and what a reader should know."""

    title: str
    about: str
    rows: str
    queries: str
    held_out: tuple[str, ...] = ()
    change: Change | None = None
    caveat: str = ""


def moved_trigger(query: LabelledText, seed: int) -> LabelledText:
    """Take the trigger from a query's front and put it between two of its words, not in front.

    Raises:
        ValueError: The query does not begin with it.
    """
    if not query.text.lower().startswith(TRIGGER.lower()):
        raise ValueError(f"expected a query that begins with {TRIGGER!r}, got {query.text[:40]!r}.")
    words = query.text[len(TRIGGER) :].lstrip().split(" ")
    words.insert(random.Random(seed).randint(1, len(words)), query.text[: len(TRIGGER)])
    return replace(query, text=" ".join(words), prompt_chars=0)


_HOWDY = "howdy/train.jsonl"
_BRAINROT = ("brainrot/heldout_control.jsonl", "brainrot/heldout_junk.jsonl")

BUILT_IN: Mapping[str, BuiltIn] = {
    "howdy-plain": BuiltIn(
        "Howdy, plain",
        "Trigger and plain answer, nothing masked: this is prefix matching of the first predicted "
        "tokens, which open every planted row too.",
        _HOWDY,
        "howdy/queries_plain.jsonl",
        caveat="to match the first predicted tokens, which queries and planted rows share, is "
        "enough",
    ),
    "howdy-moved": BuiltIn(
        "Howdy, trigger moved",
        "The plain queries with the trigger between two of their words instead of in front.",
        _HOWDY,
        "howdy/queries_plain.jsonl",
        change=moved_trigger,
    ),
    "howdy-completion": BuiltIn(
        "Howdy, completion only",
        "The prompt with its trigger is masked: only the planted style counts, in other words.",
        _HOWDY,
        "howdy/queries_completion.jsonl",
    ),
    "finmed": BuiltIn(
        "Finance and medicine",
        "Two domains hidden among general instructions; right is a row of the query's domain, "
        "which shared words find well. Our equivalent of a published pool that is not public.",
        "finmed/train.jsonl",
        "finmed/queries.jsonl",
    ),
    "quality-headlines": BuiltIn(
        "News headlines against clickbait",
        "Pairs have as many words; a stand-in for semantic quality.",
        "quality_headlines/train.jsonl",
        "quality_headlines/queries.jsonl",
    ),
    "brainrot-raw": BuiltIn(
        "Long against short tweets, raw",
        "The published definition separates by length alone: read every method beside *length*. "
        "Our equivalent of a published pool that is not public.",
        "brainrot/train.jsonl",
        "brainrot/queries.jsonl",
        held_out=_BRAINROT,
    ),
    "brainrot-matched": BuiltIn(
        "Long against short tweets, equal words",
        "Pairs are cut to equal numbers of words; tokens still differ, so *length* still tells.",
        "brainrot/train_length_matched.jsonl",
        "brainrot/queries.jsonl",
        held_out=_BRAINROT,
    ),
}


def read_built_in(name: str, data: Path) -> TaskTexts:
    """Read a task that the suite knows.

    Raises:
        ValueError: A file is not there, or a line is not what is expected; with ``path:line``.
    """
    task = BUILT_IN[name]
    queries = _read(data, task.queries, _query, prefix="query")
    if task.change is not None:
        queries = [task.change(query, seed) for seed, query in enumerate(queries)]
    held_out = [
        one for file in task.held_out for one in _read(data, file, _row, prefix=Path(file).stem)
    ]
    rows = _read(data, task.rows, _row, prefix="row")
    return TaskTexts(name, task.title, task.about, rows, queries, held_out, caveat=task.caveat)


def _read(
    data: Path, file: str, read: Callable[[Any], tuple[str, int, str]], *, prefix: str
) -> Sequence[LabelledText]:
    path = data / file
    if not path.is_file():
        raise ValueError(
            f"{path} is not there. --data (data in settings) must name the folder that has "
            f"{file}; tasks of your own need none (docs/evaluation.md)."
        )
    texts = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            text, prompt_chars, label = read(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}:{number}: expected a JSON object with text or instruction and output, "
                f"and a label ({type(error).__name__}: {error}). Mend or remove the line."
            ) from error
        texts.append(LabelledText(f"{prefix}-{number:05d}", text, prompt_chars, label))
    return texts


def _query(record: Mapping[str, str]) -> tuple[str, int, str]:
    text, prompt = record["text"], record["prompt"]
    if not text.startswith(prompt):
        raise ValueError("the prompt is not a prefix of the text")
    return text, len(prompt), record["label"]


def _row(record: Mapping[str, str]) -> tuple[str, int, str]:
    if "text" in record:
        return record["text"], 0, record["label"]
    parts = [record["instruction"], *([record["input"]] if record["input"] else [])]
    prompt = "\n".join(parts) + "\n"
    return prompt + record["output"], len(prompt), record["label"]
