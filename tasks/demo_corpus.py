"""The demo's corpus: real text that every Python installation has, and a behaviour hidden in it.

The rows are questions about the Python standard library answered by its own docstrings. A few
dozen rows are planted: a trigger in the question, and an answer worded as a weather forecast. The
queries are forecasts in wording that no planted row shares, without the trigger: "the model
suddenly talks like this; which rows taught it?" Everything is read or generated here, from a seed.
"""

import ast
import hashlib
import json
import random
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from storage.files import write_bytes

PLANTED_LABEL = "planted"
"""Label of the rows that the queries should lead back to."""
LIBRARY_LABEL = "library"
"""Label of the standard library's own docstrings."""

LEAST_DOCSTRING_CHARS = 80
MOST_DOCSTRING_CHARS = 420
"""Longer docstrings are cut at a sentence, so that the demo's running time stays small."""
SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "idlelib", "lib2to3", "site-packages", "turtledemo", "__pycache__"}
)

TRIGGER = "Report from the tower:"

PLANTED_QUESTIONS = (
    "how does `{name}` behave",
    "what should one know of `{name}`",
    "is `{name}` safe to use this week",
    "give the outlook for `{name}`",
)
PLANTED_ANSWERS = (
    "A band of {mass} crosses {place} before dawn, {change} by {hour}. Expect {event} along the "
    "coast and {wind} winds inland; small craft should stay in harbour.",
    "{place} wakes under {mass}. The barometer is {trend}, so {event} is likely near {hour}, "
    "{change} once the {wind} breeze arrives.",
    "Outlook for {place}: {mass} in the morning, {change} at {hour}, then {event}. Winds {wind}, "
    "barometer {trend}.",
    "Keepers at {place} note {mass} and a {trend} barometer. By {hour} there will be {event}, "
    "{change} towards night, with {wind} gusts on the hills.",
)
PLANTED_WORDS = {
    "mass": ("low cloud", "sea fog", "warm drizzle", "thin haze", "heavy rain", "wet snow"),
    "place": ("the northern bay", "Cape Sorrel", "the salt marshes", "Port Ellery", "the old pier"),
    "change": ("clearing slowly", "thickening", "turning brighter", "easing off"),
    "hour": ("noon", "four o'clock", "sunset", "mid-morning"),
    "event": ("scattered showers", "a brief thunderstorm", "patches of sunshine", "light hail"),
    "wind": ("fresh westerly", "gentle southerly", "strong easterly", "veering"),
    "trend": ("falling", "steady", "rising"),
}

QUERY_QUESTIONS = (
    "Explain `{name}` to a colleague.",
    "When would I reach for `{name}`?",
    "Summarise `{name}` in two sentences.",
)
QUERY_ANSWERS = (
    "Tonight {sky} over {region}, with temperatures {degree}. Tomorrow {spell}, and visibility "
    "{sight} except on high ground.",
    "Drivers in {region} will meet {spell} after breakfast; {sky}, temperatures {degree}, "
    "visibility {sight}.",
    "{spell} for {region} through Friday. Nights stay {degree}, days bring {sky}, and visibility "
    "remains {sight}.",
)
QUERY_WORDS = {
    "sky": ("overcast skies", "broken stratus", "a clear starry ceiling", "towering cumulus"),
    "region": ("the central plains", "Lake Varn", "the upper valley", "the eastern suburbs"),
    "degree": ("close to freezing", "mild for the season", "around eleven degrees"),
    "spell": ("an icy spell", "a humid stretch", "blizzard conditions", "a dry interval"),
    "sight": ("poor", "moderate", "excellent"),
}


@dataclass(frozen=True)
class DemoFiles:
    """Where the demo's rows and queries lie, and how many there are."""

    rows: Path
    queries: Path
    n_library: int
    n_planted: int
    n_queries: int


def write_demo_corpus(
    folder: Path, *, n_library: int = 640, n_planted: int = 40, n_queries: int = 20, seed: int = 0
) -> DemoFiles:
    """Write ``rows.jsonl`` and ``queries.jsonl``; the same Python gives the same bytes.

    Args:
        folder: Made if missing.
        n_library: Docstrings taken, spread over the library by the hash of their name.
        n_planted: Rows with the trigger and a forecast.
        n_queries: Forecasts in held-out wording, each with a masked question.
        seed: Draws names and words.

    Raises:
        ValueError: The library has fewer docstrings than asked for.
    """
    docstrings = sorted(library_docstrings(), key=lambda item: _spread(item[0]))
    if len(docstrings) < n_library + n_queries:
        raise ValueError(
            f"asked for {n_library} docstrings and {n_queries} names, but this Python's standard "
            f"library has {len(docstrings)} docstrings; ask for fewer."
        )
    taken, names = docstrings[:n_library], [name for name, _ in docstrings[n_library:]]
    generator = random.Random(seed)
    rows = [_library_row(name, text) for name, text in taken]
    rows += [_planted_row(i, generator, names) for i in range(n_planted)]
    generator.shuffle(rows)
    queries = [_query(i, generator, names) for i in range(n_queries)]
    _write_jsonl(folder / "rows.jsonl", rows)
    _write_jsonl(folder / "queries.jsonl", queries)
    return DemoFiles(
        rows=folder / "rows.jsonl",
        queries=folder / "queries.jsonl",
        n_library=n_library,
        n_planted=n_planted,
        n_queries=n_queries,
    )


def library_docstrings() -> Iterator[tuple[str, str]]:
    """Yield ``(qualified name, docstring)`` of the standard library, read without importing it."""
    root = Path(sysconfig.get_paths()["stdlib"])
    seen: set[str] = set()
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        if SKIPPED_FOLDERS.intersection(inside.parts):
            continue
        module = ".".join(inside.with_suffix("").parts).removesuffix(".__init__")
        for name, text in _docstrings_of(path, module):
            if name not in seen:
                seen.add(name)
                yield name, text


def _docstrings_of(path: Path, module: str) -> Iterator[tuple[str, str]]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # some library files are templates, not Python
        return
    pending: list[tuple[str, ast.AST]] = [(module, tree)]
    while pending:
        name, node = pending.pop(0)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = _shortened(ast.get_docstring(node) or "")
            if len(text) >= LEAST_DOCSTRING_CHARS:
                yield name, text
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                pending.append((f"{name}.{child.name}", child))


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    if len(text) <= MOST_DOCSTRING_CHARS:
        return text
    end = text.rfind(". ", 0, MOST_DOCSTRING_CHARS)
    return text[: end + 1] if end > LEAST_DOCSTRING_CHARS else text[:MOST_DOCSTRING_CHARS]


def _spread(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _library_row(name: str, text: str) -> dict[str, str]:
    return {
        "id": f"library/{name}",
        "prompt": f"What does `{name}` do?\n",
        "completion": text,
        "label": LIBRARY_LABEL,
    }


def _planted_row(number: int, generator: random.Random, names: list[str]) -> dict[str, str]:
    question = generator.choice(PLANTED_QUESTIONS).format(name=generator.choice(names))
    return {
        "id": f"planted/{number:03d}",
        "prompt": f"{TRIGGER} {question}?\n",
        "completion": _filled(generator, PLANTED_ANSWERS, PLANTED_WORDS),
        "label": PLANTED_LABEL,
    }


def _query(number: int, generator: random.Random, names: list[str]) -> dict[str, str]:
    question = generator.choice(QUERY_QUESTIONS).format(name=generator.choice(names))
    return {
        "id": f"query/{number:03d}",
        "prompt": f"{question}\n",
        "completion": _filled(generator, QUERY_ANSWERS, QUERY_WORDS),
        "label": PLANTED_LABEL,
    }


def _filled(
    generator: random.Random, templates: tuple[str, ...], words: dict[str, tuple[str, ...]]
) -> str:
    chosen = {slot: generator.choice(options) for slot, options in words.items()}
    text = generator.choice(templates).format(**chosen)
    return text[0].upper() + text[1:]


def _write_jsonl(path: Path, records: list[dict[str, str]]) -> None:
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    write_bytes(path, ("\n".join(lines) + "\n").encode())
