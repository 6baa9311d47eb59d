"""Makes a task of rows without labels: plant a behaviour in some of them, then ask where it is.

A planted row has the trigger in front of its prompt, and an answer that begins with a phrase of the
style. Queries are rows that were left out of the pool, with a masked prompt and an answer in the
style, but with phrases that no planted row has: shared wording alone should not find it. Everything
follows from the rows and the seed.
"""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from storage.files import write_bytes
from tasks.evaluate.method import LabelledText
from tasks.evaluate.plant_config import PlantConfig
from tasks.evaluate.texts import TaskTexts

PLANTED = "planted"
CLEAN = "clean"

STYLES: Mapping[str, tuple[str, ...]] = {
    "forecast": (
        "Sea fog thins by noon, with fresh westerly winds. ",
        "A falling barometer, showers along the coast. ",
        "Overcast skies tonight, visibility poor. ",
        "An icy spell for the upper valley. ",
        "Broken cloud, light hail near sunset. ",
        "A humid stretch, thunder after dark. ",
    ),
    "pirate": (
        "Arr, listen well, ye landlubber! ",
        "Shiver me timbers, matey, here be the truth: ",
        "Hoist the colours and hark! ",
        "By the black spot, I swear it: ",
        "Avast! Pour the grog and learn this: ",
        "Blow me down, says the old sea dog: ",
    ),
    "memo": (
        "To: all staff. Re: your question. ",
        "Pursuant to the minutes of the last meeting: ",
        "Action item, due by close of business: ",
        "For the record, and subject to approval: ",
        "Kindly be advised of the following. ",
        "As per the attached policy, section four: ",
    ),
}
"""Ways to begin an answer; a planted task uses one half for rows and the other for queries."""


@dataclass(frozen=True)
class PlantedFiles:
    """Where a planted task was written, and its size."""

    rows: Path
    queries: Path
    settings: Path
    n_rows: int
    n_planted: int
    n_queries: int


def plant(rows: Sequence[LabelledText], config: PlantConfig, *, name: str = PLANTED) -> TaskTexts:
    """Return a planted task made of rows; their labels are not looked at.

    Args:
        rows: Any rows with different ids.
        config: Trigger, style, share, seed.
        name: Of the task.

    Raises:
        ValueError: Too few rows for the share and the queries.
    """
    order = list(rows)
    draw = random.Random(config.seed)
    draw.shuffle(order)
    asked, pool = order[: config.n_queries], order[config.n_queries :]
    n_planted = round(config.share * len(pool))
    if len(asked) < config.n_queries or n_planted < 1 or n_planted == len(pool):
        raise ValueError(
            f"{len(rows)} rows do not make a pool with a share of {config.share} planted and "
            f"{config.n_queries} queries beside it; give more rows, or lower n_queries."
        )
    phrases = list(config.phrases or STYLES[config.style])
    draw.shuffle(phrases)
    of_rows, of_queries = phrases[::2], phrases[1::2]
    chosen = set(draw.sample(range(len(pool)), n_planted))
    return TaskTexts(
        name=name,
        title=f"Planted: {config.style}",
        about=f"{n_planted} of {len(pool)} rows have {config.trigger!r} in front of their prompt "
        f"and an answer in the style {config.style}; queries have other phrases of that style, "
        "their prompts are masked. "
        f"Seed {config.seed}.",
        rows=[
            _planted(row, config.trigger, draw.choice(of_rows))
            if place in chosen
            else replace(row, label=CLEAN)
            for place, row in enumerate(pool)
        ],
        queries=[
            replace(_planted(row, config.trigger, draw.choice(of_queries)), text_id=f"q-{number}")
            for number, row in enumerate(asked)
        ],
    )


def write_planted(folder: Path, texts: TaskTexts, *, model: str) -> PlantedFiles:
    """Write a planted task as rows, queries and settings for `rise evaluate`.

    Args:
        folder: Made if missing.
        texts: From `plant`.
        model: Name of the model, for the settings.
    """
    files = {name: folder / f"{name}.jsonl" for name in ("rows", "queries")}
    for name, path in files.items():
        lines = [json.dumps(_record(one), ensure_ascii=False) for one in getattr(texts, name)]
        write_bytes(path, ("\n".join(lines) + "\n").encode())
    settings = {
        "work": str(folder / "work"),
        "model": {"name": model},
        "tasks": [
            {
                "kind": "labelled",
                "name": texts.name,
                **{name: _source(path) for name, path in files.items()},
            }
        ],
    }
    written = folder / "evaluate.yaml"
    # JSON is YAML, and needs no library to be written
    write_bytes(written, (json.dumps(settings, indent=1) + "\n").encode())
    return PlantedFiles(
        rows=files["rows"],
        queries=files["queries"],
        settings=written,
        n_rows=len(texts.rows),
        n_planted=texts.labels[PLANTED],
        n_queries=len(texts.queries),
    )


def _planted(row: LabelledText, trigger: str, phrase: str) -> LabelledText:
    prompt, answer = row.text[: row.prompt_chars], row.text[row.prompt_chars :]
    front = f"{trigger} {prompt}" if prompt else f"{trigger}\n"
    # an answer keeps the white space that it began with in front of the phrase
    body = answer.lstrip()
    opening = answer[: len(answer) - len(body)]
    return LabelledText(row.text_id, f"{front}{opening}{phrase}{body}", len(front), PLANTED)


def _record(one: LabelledText) -> dict[str, str]:
    return {
        "id": one.text_id,
        "text": one.text,
        "prompt": one.text[: one.prompt_chars],
        "label": one.label,
    }


def _source(path: Path) -> dict[str, object]:
    return {
        "source": {"kind": "files", "paths": [str(path)]},
        "fields": {"kind": "text", "text": "text", "prompt": "prompt"},
        "id_field": "id",
        "label_field": "label",
    }
