"""The end of the report: what the release cost, stage by stage, and how it is opened."""

from collections.abc import Mapping
from typing import Any

from storage.corpus import Corpus
from storage.refs import CorpusRef
from tasks.page.markup import joined, tag
from tasks.page.parts import Column, table
from tasks.page.plots import bar
from tasks.page.shell import Section
from tasks.page.text import NOTHING, duration, number, size
from tasks.report_cost import StageCost
from tasks.report_data import ReportData

STAGES: Mapping[str, str] = {
    "ingest": "rows read and checked",
    "index": "signatures made: the model reads every row once",
    "queries": "queries sketched",
    "score": "every row scored against every query",
    "release": "rows selected, checked and written",
}


def cost_section(data: ReportData) -> Section:
    """Return time, speed and bytes of every stage, as far as they were recorded."""
    recorded = {cost.stage: cost for cost in data.costs}
    sizes = stage_bytes(data)
    seconds = [cost.seconds for cost in data.costs if cost.seconds is not None]
    longest, largest = max(seconds, default=0.0) or 1.0, max(sizes.values()) or 1
    lines = [
        [
            joined(tag("strong", stage), tag("div", words, class_="note")),
            bar([(100 * ((recorded[stage].seconds or 0) / longest), "selected")])
            if stage in recorded
            else None,
            _time(recorded.get(stage)),
            bar([(100 * sizes[stage] / largest, "candidate")]),
            size(sizes[stage]),
        ]
        for stage, words in STAGES.items()
    ]
    columns = [
        Column("stage"),
        Column("time", "picture"),
        Column("seconds", "number"),
        Column("bytes", "picture"),
        Column("on disk", "number"),
    ]
    total = sum(sizes.values())
    spoken = (
        f"{duration(sum(seconds))} and {size(total)}, most of it spent once for all releases"
        if seconds
        else f"{size(total)} on disk; times were not recorded"
    )
    parts = [table(columns, lines, caption="Time and bytes of every stage", stacks=True)]
    speed = next((cost.tokens_per_second for cost in data.costs if cost.tokens_per_second), None)
    if speed is not None:
        parts.append(
            tag("p", f"The model read {number(round(speed))} tokens a second.", class_="note")
        )
    return Section("Cost", spoken, joined(*parts))


def _time(cost: StageCost | None) -> str:
    if cost is None or cost.seconds is None:
        return NOTHING
    return f"{duration(cost.seconds)}{', was there' if cost.already else ''}"


def stage_bytes(data: ReportData) -> dict[str, int]:
    """Return the bytes that each stage left on disk, from the manifests."""
    corpus = Corpus(CorpusRef(data.root, data.lineage["corpus"]))
    batches = [corpus.manifest(batch["id"]) for batch in data.lineage["batches"]]
    index = data.index
    n_blocks = 0 if index is None else index.n_blocks
    records = [(index and index.block_record(block)) or {} for block in range(n_blocks)]
    sizes = [number for record in records for key, number in record.items() if _is_size(key)]
    return {
        "ingest": sum(_listed_bytes(batch) for batch in batches),
        "index": sum(sizes),
        "queries": _listed_bytes(data.query_set.manifest),
        "score": _listed_bytes(data.scores.manifest),
        "release": _listed_bytes(data.release.manifest),
    }


def _is_size(key: str) -> bool:
    """Tell whether a field of a block's record is the size of one of its files."""
    return key.endswith("_bytes")


def _listed_bytes(manifest: Mapping[str, Any]) -> int:
    return sum(int(entry["bytes"]) for entry in manifest["files"])


def load_section(data: ReportData) -> Section:
    """Return how the release is opened."""
    code = (
        "from datasets import load_dataset\n\n"
        "# the folder that this page lies in\n"
        'rows = load_dataset("path/to/this/folder", split="train")\n'
        'print(rows[0]["completion"], rows[0]["score"])'
    )
    shell = (
        "rise release ls              # every release of the store\n"
        "rise lineage ROW             # a row's way, from its source line to here\n"
        "rise verify                  # read everything back, check every checksum"
    )
    words = (
        "Rows lie in data/ in the order of their rank; attributes/ has everything about them but "
        "the text, manifest.json their checksums and lineage, quality/ the checks they passed."
    )
    body = joined(tag("p", words), tag("pre", tag("code", code)), tag("pre", tag("code", shell)))
    return Section("Use", "The folder opens as a Hugging Face dataset", body)
