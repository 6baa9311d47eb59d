"""A small store with a published release that has everything a report shows."""

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from scored_store import SPACE, write_index

from storage.corpus import BatchWriter
from storage.hits import LEAKAGE_SCHEMA, PRIVACY_SCHEMA
from storage.queries import QuerySet
from storage.refs import CorpusRef, IndexRef, QuerySetRef, ReleaseRef, ScoresRef
from storage.release_writer import ReleaseWriter
from storage.releases import ATTRIBUTES_SCHEMA, DROPPED_SCHEMA, RELEASE_SCHEMA
from storage.rows import ROW_SCHEMA
from storage.scores import Scores
from tasks.config import RuntimeConfig, ScoreConfig
from tasks.release_config import Collapse, Quota, ReleaseConfig, TopK
from tasks.scoring import score

N_ROWS, N_RELEASED, N_NUMBERS = 60, 12, 16
DROPPED = {1: "duplicate_text", 3: "quota", 6: "leakage"}
"""Places in the order of values, from 0, and why their rows were passed over."""
CONFIG = ReleaseConfig(
    select=TopK(top_k=N_RELEASED),
    collapse=Collapse(text=0.8),
    quotas=(Quota(field="source", value="*", max_rows=30),),
)


def plain_texts() -> list[str]:
    return [f"question {number} answer {number * number} and more" for number in range(N_ROWS)]


def make_rows(texts: Sequence[str], *, source: str = "data/train.jsonl") -> pa.Table:
    rows = [
        {
            "row_id": f"row-{number:04d}",
            "text": text,
            "prompt_chars": min(8, len(text)),
            "label": "even" if number % 2 == 0 else None,
            "source": source if number % 3 else "data/other.jsonl",
            "source_line": number + 1,
            "content_hash": hashlib.sha256(f"{number} {text}".encode()).hexdigest(),
            "n_tokens": 4 + number % 7,
        }
        for number, text in enumerate(texts)
    ]
    return pa.Table.from_pylist(rows, schema=ROW_SCHEMA)


def make_scores(root: str, texts: Sequence[str], queries: Sequence[str]) -> ScoresRef:
    rng = np.random.default_rng(3)
    with BatchWriter(CorpusRef(root, "main"), "b1") as writer:
        writer.add(make_rows(texts))
        writer.commit({})
    signatures = rng.standard_normal((len(texts), N_NUMBERS)).astype(np.float16)
    n_positions = np.full(len(texts), 3, np.int32)
    signatures[5], n_positions[5] = 0, 0
    write_index(
        IndexRef(root, "main"), signatures, n_positions, block_rows=16, batches=["b1"], code="int8"
    )
    found = QuerySet.write(
        QuerySetRef(root, "asked", "v1"),
        queries=make_rows(queries, source="queries.jsonl"),
        signatures=rng.standard_normal((len(queries), N_NUMBERS)).astype(np.float32),
        n_positions=np.ones(len(queries), np.int32),
        manifest={"space": SPACE},
    )
    cpu = RuntimeConfig(device="cpu")
    return score(IndexRef(root, "main"), found, ScoreConfig(top_k=3, full_matrix=True), cpu).ref


def make_release(
    root: str,
    *,
    texts: Sequence[str] | None = None,
    queries: Sequence[str] = ("why is it so, and how?", "what is the answer to 7?"),
    config: ReleaseConfig = CONFIG,
    excerpt: str = "words that both of them have",
) -> ReleaseRef:
    """Publish a release by hand, with every table that a report reads."""
    texts = plain_texts() if texts is None else texts
    scores = Scores.open(make_scores(root, texts, queries))
    order = ranked(scores, lowest=config.prefer == "lowest")
    dropped = {order[place]: reason for place, reason in DROPPED.items()}
    taken = [row for row in order if row not in dropped][:N_RELEASED]
    rows = make_rows(texts).to_pylist()
    values = scores.values().column("value").to_pylist()
    ref = ReleaseRef(root, "picked", "r1")
    with ReleaseWriter(ref) as writer:
        lines = [_line(rows[row], values[row], rank, row) for rank, row in enumerate(taken, 1)]
        writer.add(pa.Table.from_pylist(lines, schema=RELEASE_SCHEMA))
        about = [{**line, "percentile": 99.0, "z": 3.5, "false_discovery": 0.01} for line in lines]
        table = pa.Table.from_pylist(about, schema=ATTRIBUTES_SCHEMA)
        writer.add_attributes(table, rows_per_shard=100)
        kept = rows[taken[0]]["row_id"]
        passed = [
            {
                **_line(rows[row], values[row], 0, row),
                "place": place + 1,
                "reason": dropped[row],
                "detail": f"of {kept}, 88% alike" if dropped[row] == "duplicate_text" else "full",
            }
            for place, row in enumerate(order)
            if row in dropped
        ]
        _add(writer, "dropped.parquet", passed, DROPPED_SCHEMA)
        _add(writer, "leakage.parquet", [_leak(rows[order[6]], excerpt)], LEAKAGE_SCHEMA)
        _add(writer, "privacy.parquet", [_private(rows[taken[1]])], PRIVACY_SCHEMA)
        writer.add_json("statistics.json", _statistics(rows, [rows[row] for row in taken]))
        writer.add_json("selection.json", SELECTION)
        return writer.commit(_manifest(scores, config, ref, lines), card="# Picked\n")


def ranked(scores: Scores, *, lowest: bool = False) -> list[int]:
    """Return the rows of the index that have a value, in the order in which they are taken."""
    values = scores.values().column("value").to_numpy()
    able = scores.values().column("n_positions").to_numpy() > 0
    order = np.argsort(values if lowest else -values, kind="stable")
    return [int(row) for row in order if able[row]]


SELECTION = {
    "value": {"mean": 2.0, "best": 4.0, "cut": 1.0, "last_place": 15},
    "constraints": [
        {
            "constraint": name,
            "rows_dropped": 1,
            "tokens_dropped": 5,
            "without": {"rows": 12, "tokens": 70, "mean_value": 2.5, "rows_in_common": 11},
            "mean_value_lost": lost,
        }
        for name, lost in (("quotas of source", 0.5), ("duplicate_text", 0.1))
    ],
    "quotas": [
        {
            "field": "source",
            "value": "data/train.jsonl",
            "min_rows": 0,
            "max_rows": 30,
            "available": 40,
            "selected": 8,
        }
    ],
}


def _add(writer: ReleaseWriter, name: str, lines: list[dict], schema: pa.Schema) -> None:
    writer.add_table(name, pa.Table.from_pylist(lines, schema=schema), schema)


def _line(row: dict, value: float, rank: int, position: int) -> dict:
    text, cut = row["text"], row["prompt_chars"]
    parts = {"prompt": text[:cut], "completion": text[cut:]}
    return {**row, **parts, "score": value, "rank": rank, "lineage_id": f"b1:{position}"}


def _leak(row: dict, excerpt: str) -> dict:
    return {
        "row_id": row["row_id"],
        "set": "asked",
        "other_id": "row-0000",
        "kind": "ngram",
        "share": 0.75,
        "excerpt": excerpt,
        "n_others": 1,
    }


def _private(row: dict) -> dict:
    return {
        "row_id": row["row_id"],
        "kind": "email",
        "detector": "e-mail",
        "start": 3,
        "n_chars": 7,
        "shape": "xx@xx.xx",
    }


def _statistics(before: list[dict], after: list[dict]) -> dict:
    def counted(field: str) -> dict:
        values = sorted({row[field] for row in before}, key=str)
        lines = [
            {
                "value": value,
                "before": sum(row[field] == value for row in before),
                "after": sum(row[field] == value for row in after),
            }
            for value in values
        ]
        return {"values": lines, "other": {"before": 0, "after": 0}}

    sides = {"before": before, "after": after}
    return {
        "rows": {name: len(rows) for name, rows in sides.items()},
        "tokens": {name: sum(row["n_tokens"] for row in rows) for name, rows in sides.items()},
        "source": counted("source"),
        "label": counted("label"),
    }


def _manifest(scores: Scores, config: ReleaseConfig, ref: ReleaseRef, lines: list[dict]) -> dict:
    manifest = scores.manifest
    sources = sorted({line["source"] for line in lines})
    return {
        "scores_id": scores.ref.scores_id,
        "n_tokens": sum(line["n_tokens"] for line in lines),
        "bytes": 100,
        "lineage": {
            "sources": [
                {"source": name, "n_released": sum(line["source"] == name for line in lines)}
                for name in sources
            ],
            "corpus": "main",
            "batches": [{"id": "b1", "n_released": len(lines)}],
            "index": {
                "name": "main",
                "id": manifest["index_id"],
                "identity": {"block_rows": 16},
            },
            "model": SPACE,
            "query_set": {"name": "asked", "version": "v1", "manifest": {}},
            "scores": {"id": scores.ref.scores_id, "identity": {}},
            "release": {"name": ref.name, "id": ref.release_id, "config": dict(config.identity)},
        },
    }
