"""The README of a release: a dataset card that the Hugging Face hub and `datasets` understand.

Everything that came from users or from rows (names, source paths, licences) is escaped: a source
called ``a|b`` or ``<script>`` must not change the page. The card holds no times and no paths of
this machine, so the same release always has the same card.
"""

import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

SIZE_CATEGORIES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"),
    (1_000_000_000, "100M<n<1B"),
)
"""The hub's words for sizes: rows below the number, and the word."""

MAX_SOURCES_SHOWN = 20
"""Sources listed one by one; a release may draw on thousands of files."""

_COLUMNS = (
    ("row_id", "id of the row in the corpus; unique"),
    ("text", "the whole row, prompt and completion"),
    ("prompt", "the part of the text that is the prompt; may be empty"),
    ("completion", "the rest of the text"),
    ("score", "inner product with the mean query signature; higher is a stronger proponent"),
    ("rank", "1 is the highest score; ties by row id"),
    ("lineage_id", "batch and position in the batch that the row was ingested with"),
    ("source", "file or dataset that the row came from"),
    ("source_line", "line or record in the source, from 1"),
    ("label", "label given with the row, if any; not used for scoring"),
    ("n_tokens", "length in tokens of the model that scored"),
)


def dataset_card(
    *,
    name: str,
    license_name: str,
    totals: Mapping[str, int],
    lineage: Mapping[str, Any],
    sources: Sequence[tuple[str, int]],
) -> str:
    """Return the README.md of a release.

    Args:
        name: Name of the release.
        license_name: Licence of the rows, as the user gave it.
        totals: n_rows, n_tokens and bytes.
        lineage: The lineage of the release's manifest.
        sources: Every source and how many of its rows are in the release.
    """
    sections = [
        f"---\n{_front_matter(name, license_name, totals)}---\n",
        f"# {markdown_text(name)}\n",
        _introduction(totals, lineage),
        "## Columns\n",
        _table(("column", "meaning"), [(f"`{column}`", meaning) for column, meaning in _COLUMNS]),
        "## Sources\n",
        _source_table(sources),
        "## Lineage\n",
        "What this release was made from; `manifest.json` has every setting and the checksum of "
        "every file.\n",
        code_block(json.dumps(_ids(lineage), indent=1, ensure_ascii=False), "json"),
        "## Quality\n",
        "The rows were read back from the Parquet files and checked before publication; the "
        "report is `quality/index.html`.\n",
    ]
    return "\n".join(sections)


def _ids(lineage: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "release": lineage["release"],
        "scores": lineage["scores"]["id"],
        "query_set": {key: lineage["query_set"][key] for key in ("name", "version")},
        "index": {key: lineage["index"][key] for key in ("name", "id")},
        "model": lineage["model"],
        "corpus": lineage["corpus"],
        "batches": {batch["id"]: batch["n_released"] for batch in lineage["batches"]},
    }


def _front_matter(name: str, license_name: str, totals: Mapping[str, int]) -> str:
    fields = {
        "license": license_name,
        "pretty_name": name,
        "size_categories": [size_category(totals["n_rows"])],
        "tags": ["data-attribution", "data-valuation"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": "train", "path": "data/train-*.parquet"}],
            }
        ],
    }
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)


def size_category(n_rows: int) -> str:
    """Return the hub's word for a number of rows."""
    for limit, word in SIZE_CATEGORIES:
        if n_rows < limit:
            return word
    return "n>1B"


def _introduction(totals: Mapping[str, int], lineage: Mapping[str, Any]) -> str:
    query_set = markdown_text(lineage["query_set"]["name"])
    return (
        f"{totals['n_rows']:,} training rows ({totals['n_tokens']:,} tokens, "
        f"{totals['bytes']:,} bytes) selected by their influence on the query set "
        f"{query_set}: each row is scored by the inner product of its read-out signature with "
        "the mean signature of the queries (RISE, arXiv:2604.16197), and the rows come best "
        "first.\n"
    )


def _source_table(sources: Sequence[tuple[str, int]]) -> str:
    largest = sorted(sources, key=lambda entry: (-entry[1], entry[0]))
    lines = [(markdown_text(source), f"{n_rows:,}") for source, n_rows in largest]
    table = _table(("source", "rows"), lines[:MAX_SOURCES_SHOWN])
    hidden = len(lines) - MAX_SOURCES_SHOWN
    return table if hidden <= 0 else f"{table}\nand {hidden:,} more sources.\n"


def _table(head: tuple[str, str], lines: Sequence[tuple[str, str]]) -> str:
    rows = [head, ("---", "---"), *lines]
    return "\n".join(f"| {left} | {right} |" for left, right in rows) + "\n"


def markdown_text(text: str) -> str:
    """Return ``text`` so that Markdown shows it as it is, on one line."""
    one_line = " ".join(text.split())
    return re.sub(r"([\\`*_{}\[\]()#+!|~$^:-])", r"\\\1", html.escape(one_line, quote=False))


def code_block(text: str, language: str) -> str:
    """Return a fenced block that ``text`` cannot close, whatever backticks it holds."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}\n"
