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

from tasks.languages import UNKNOWN

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

HUB_LICENSES = frozenset(
    """
    apache-2.0 mit bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear 0bsd isc zlib unlicense
    wtfpl artistic-2.0 afl-3.0 bsl-1.0 ecl-2.0 epl-1.0 epl-2.0 eupl-1.1 eupl-1.2 lppl-1.3c
    ms-pl mpl-2.0 ncsa ofl-1.1 osl-3.0 postgresql gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0
    lgpl-lr agpl-3.0 cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0
    cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
    cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0
    cdla-permissive-1.0 cdla-permissive-2.0 c-uda etalab-2.0 gfdl odbl odc-by pddl openrail
    creativeml-openrail-m bigscience-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
    openrail++ llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 gemma unknown other
    """.split()  # noqa: SIM905 - a word a line would fill the page
)
"""Licences that the hub knows by these words; any other is ``other`` with a ``license_name``."""

LEAST_LANGUAGE_SHARE = 0.01
"""Share of the sampled rows from which a language is named in the header."""

CONFIGS = {
    "default": ("data", "the rows, best first"),
    "attributes": ("attributes", "all about the rows but their texts, by id"),
}
"""Name of a configuration of `load_dataset` to the folder of its files, and what they hold."""

_COLUMNS = (
    ("row_id", "id of the row in the corpus; unique"),
    ("text", "the whole row, prompt and completion"),
    ("prompt", "the part of the text that is the prompt; may be empty"),
    ("completion", "the rest of the text"),
    ("score", "the value that rows were selected by; a higher one is a stronger proponent"),
    ("rank", "place in the release, from 1; ties by row id"),
    ("lineage_id", "batch and position in the batch that the row was ingested with"),
    ("source", "file or dataset that the row came from"),
    ("source_line", "line or record in the source, from 1"),
    ("label", "label given with the row, if any"),
    ("n_tokens", "length in tokens of the model that scored"),
)

_FILES = (
    ("`data/train-*.parquet`", "the rows, in order of rank"),
    ("`attributes/train-*.parquet`", "scores, calibrated scores and origins, in order of row_id"),
    ("`dropped.parquet`", "rows that something kept out, with the reason; no texts"),
    ("`selection.json`", "what each constraint of the selection cost"),
    ("`statistics.json`", "lengths, sources, labels and languages before and after"),
    ("`manifest.json`", "checksums of all files, parents, settings"),
    ("`quality/index.html`", "the checks that the files passed before publication"),
)


def dataset_card(
    *, name: str, license_name: str, manifest: Mapping[str, Any], statistics: Mapping[str, Any]
) -> str:
    """Return the README.md of a release.

    Args:
        name: Name of the release.
        license_name: Licence of the rows, as the user gave it.
        manifest: Of the release, but for the list of its files.
        statistics: Its histograms.
    """
    lineage = manifest["lineage"]
    sources = [(source["source"], source["n_released"]) for source in lineage["sources"]]
    sections = [
        f"---\n{_front_matter(name, license_name, statistics)}---\n",
        f"# {markdown_text(name)}\n",
        _introduction(manifest, statistics),
        "## Columns\n",
        _table(("column", "meaning"), [(f"`{column}`", meaning) for column, meaning in _COLUMNS]),
        "## Files\n",
        _table(("file", "what"), _FILES),
        "## Sources\n",
        _source_table(sources),
        "## Left out\n",
        _dropped(manifest["n_dropped"]),
        "## Lineage\n",
        "What this release was made from; `manifest.json` has every setting and the checksum of "
        "every file.\n",
        code_block(json.dumps(_ids(lineage), indent=1, ensure_ascii=False), "json"),
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


def _front_matter(name: str, license_name: str, statistics: Mapping[str, Any]) -> str:
    spoken = spoken_languages(statistics)
    known = license_name.lower() in HUB_LICENSES
    fields = {
        **({"language": spoken} if spoken else {}),
        "license": license_name.lower() if known else "other",
        **({} if known else {"license_name": license_name}),
        "pretty_name": name,
        "size_categories": [size_category(statistics["rows"]["after"])],
        "tags": ["data-attribution", "data-valuation"],
        "configs": [
            {
                "config_name": config,
                **({"default": True} if config == "default" else {}),
                "data_files": [{"split": "train", "path": f"{folder}/train-*.parquet"}],
            }
            for config, (folder, _) in CONFIGS.items()
        ],
    }
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)


def spoken_languages(statistics: Mapping[str, Any]) -> list[str]:
    """Return the codes of the languages of the released rows that are no rarities."""
    found = statistics["language"]
    least = LEAST_LANGUAGE_SHARE * found["sampled"]["after"]
    return sorted(
        entry["value"]
        for entry in found["values"]
        if entry["after"] >= max(least, 1) and entry["value"] != UNKNOWN
    )


def _introduction(manifest: Mapping[str, Any], statistics: Mapping[str, Any]) -> str:
    lineage = manifest["lineage"]
    query_set = markdown_text(lineage["query_set"]["name"])
    target = manifest["target_tokens"]
    tokens = f"{manifest['n_tokens']:,} tokens"
    if target is not None:
        tokens += f", {target['n_tokens']:,} of the target tokenizer"
    return (
        f"{statistics['rows']['after']:,} training rows ({tokens}, {manifest['bytes']:,} bytes) of "
        f"{statistics['rows']['before']:,}, selected by their influence on the query set "
        f"{query_set}: each row is scored by the inner products of its read-out signature with "
        "the signatures of the queries (RISE, arXiv:2604.16197). The settings below say how "
        "scores became one value a row and which rows were taken.\n"
    )


def _dropped(counts: Mapping[str, int]) -> str:
    if not counts:
        return "Nothing kept a row out that its score would have brought in.\n"
    lines = [(markdown_text(reason), f"{n_rows:,}") for reason, n_rows in sorted(counts.items())]
    return _table(("reason", "rows"), lines)


def size_category(n_rows: int) -> str:
    """Return the hub's word for a number of rows."""
    for limit, word in SIZE_CATEGORIES:
        if n_rows < limit:
            return word
    return "n>1B"


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
