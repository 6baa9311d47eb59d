"""The files of a release that hold rows: data, attributes, dropped rows, statistics, guards' finds.

Everything is written into the staging folder of a `ReleaseWriter`; nothing counts until it is
published.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from storage.hits import LEAKAGE_SCHEMA, PRIVACY_SCHEMA
from storage.release_writer import ReleaseWriter
from storage.releases import (
    ATTRIBUTES_SCHEMA,
    DROPPED_FILE,
    DROPPED_SCHEMA,
    LEAKAGE_FILE,
    PRIVACY_FILE,
    RELEASE_SCHEMA,
    SELECTION_FILE,
    STATISTICS_FILE,
)
from tasks.progress import Progress
from tasks.release_gate import StagedFile
from tasks.release_rows import ScoredRows
from tasks.release_statistics import release_statistics, sample_places
from tasks.row_checks import RecordingCheck
from tasks.selection import Selection
from tasks.selection_problem import eligible_rows
from tasks.target_tokenizer import TargetTokenizer

GUARD_TABLES = {
    "leakage": (LEAKAGE_FILE, LEAKAGE_SCHEMA),
    "privacy": (PRIVACY_FILE, PRIVACY_SCHEMA),
}
"""Name of a guard to the file of what it found, written whether it found something or not."""


@dataclass
class WrittenRows:
    """What was written, and what is needed of it afterwards: no texts but a sample's.

    Attributes:
        files: The staged data files.
        attributes: ATTRIBUTES_SCHEMA, by rank.
        sample: Texts of rows spread evenly over the ranks.
    """

    files: list[StagedFile] = field(default_factory=list)
    attributes: pa.Table = field(default_factory=ATTRIBUTES_SCHEMA.empty_table)
    sample: list[str] = field(default_factory=list)

    @property
    def shape(self) -> dict[str, int]:
        """Shards, tokens by the scoring model, and bytes of the data files."""
        return {
            "n_shards": len(self.files),
            "n_tokens": int(pc.sum(self.attributes.column("n_tokens")).as_py() or 0),
            "bytes": sum(file.path.stat().st_size for file in self.files),
        }


def write_rows(
    writer: ReleaseWriter,
    selected: pa.Table,
    rows: ScoredRows,
    *,
    rows_per_shard: int,
    target: TargetTokenizer | None,
    progress: Progress,
) -> WrittenRows:
    """Write the selected rows with their texts, a shard at a time, and their attributes.

    Args:
        writer: Receives the files.
        selected: From the selection, by rank.
        rows: Where texts and origins are.
        rows_per_shard: Rows of one Parquet file.
        target: Counts tokens too, None: nobody does.
        progress: Receives one step a row.
    """
    written, attributes = WrittenRows(), []
    sampled = sample_places(len(selected))
    progress.start(total=len(selected), unit="rows")
    for start in range(0, len(selected), rows_per_shard):
        part = selected.slice(start, rows_per_shard)
        table = _release_rows(part, rows)
        texts = table.column("text")
        here = sampled[(sampled >= start) & (sampled < start + len(part))] - start
        written.sample += texts.take(pa.array(here)).to_pylist()
        counts = None if target is None else target.count(texts.to_pylist())
        more = {} if counts is None else {"target_tokens": sum(counts)}
        written.files.append(StagedFile(writer.add(table, more=more), len(table)))
        attributes.append(_attributes(table, part, counts))
        progress.advance(len(part))
    written.attributes = pa.concat_tables(attributes)
    writer.add_attributes(written.attributes, rows_per_shard=rows_per_shard)
    return written


def write_dropped(writer: ReleaseWriter, dropped: pa.Table, rows: ScoredRows) -> pa.Table:
    """Write the rows that were kept out, with origins and reasons and without texts."""
    positions = dropped.column("position").to_numpy().astype(np.int64)
    about = rows.about.take(pa.array(positions))
    columns = {
        **{name: dropped.column(name) for name in ("row_id", "score", "place", "reason", "detail")},
        **{name: about.column(name) for name in ("source", "source_line", "n_tokens")},
        "lineage_id": rows.lineage_ids(positions),
    }
    table = pa.table({name: columns[name] for name in DROPPED_SCHEMA.names})
    writer.add_table(DROPPED_FILE, table, DROPPED_SCHEMA)
    return table


def write_reports(
    writer: ReleaseWriter,
    selection: Selection,
    candidates: pa.Table,
    rows: ScoredRows,
    written: WrittenRows,
) -> dict[str, Any]:
    """Write ``selection.json`` and ``statistics.json``; return the statistics."""
    writer.add_json(SELECTION_FILE, selection.report)
    able = np.flatnonzero(eligible_rows(candidates))
    sampled = able[sample_places(len(able))]
    statistics = release_statistics(
        rows.about.take(pa.array(able)),
        written.attributes,
        texts_before=rows.take(sampled, columns=["text"]).column("text").to_pylist(),
        texts_after=written.sample,
    )
    writer.add_json(STATISTICS_FILE, statistics)
    return statistics


def write_hits(
    writer: ReleaseWriter, checks: Iterable[RecordingCheck], *tables: pa.Table
) -> dict[str, Any]:
    """Write what the guards found in rows that were released or dropped; return their facts.

    Args:
        writer: Receives one table a guard.
        checks: The guards that were asked.
        tables: Tables with the ``row_id`` of the rows that matter.
    """
    among = {row_id for table in tables for row_id in table.column("row_id").to_pylist()}
    facts: dict[str, Any] = {}
    for check in checks:
        file, schema = GUARD_TABLES[check.name]
        found = check.hits(among)
        writer.add_table(file, found, schema)
        facts[check.name] = {**check.facts, "n_hits": found.num_rows}
    return facts


def _release_rows(selected: pa.Table, rows: ScoredRows) -> pa.Table:
    """Return selected rows with texts and origins (RELEASE_SCHEMA), in their order."""
    positions = selected.column("position").to_numpy().astype(np.int64)
    found = rows.take(positions)
    texts = found.column("text").to_pylist()
    borders = found.column("prompt_chars").to_pylist()
    columns = {
        **{name: found.column(name) for name in found.schema.names},
        **{name: selected.column(name) for name in ("score", "rank")},
        "prompt": _parts(text[:border] for text, border in zip(texts, borders, strict=True)),
        "completion": _parts(text[border:] for text, border in zip(texts, borders, strict=True)),
        "lineage_id": rows.lineage_ids(positions),
    }
    return pa.table({name: columns[name] for name in RELEASE_SCHEMA.names}, schema=RELEASE_SCHEMA)


def _parts(texts: Iterable[str]) -> pa.Array:
    return pa.array(list(texts), pa.string())


def _attributes(table: pa.Table, selected: pa.Table, counts: Sequence[int] | None) -> pa.Table:
    unknown = pa.nulls(len(table), pa.int32())
    columns = {
        **{name: table.column(name) for name in table.schema.names},
        **{name: selected.column(name) for name in ("percentile", "z", "false_discovery")},
        "target_tokens": unknown if counts is None else pa.array(counts, pa.int32()),
    }
    return pa.table({name: columns[name] for name in ATTRIBUTES_SCHEMA.names})
