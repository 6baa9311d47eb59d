"""Inboxes that are taken without tokenizer and gate, whose seconds a file would drown the rest."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa

from storage.corpus import BatchWriter
from storage.files import short_id
from storage.refs import CorpusRef
from storage.rows import ROW_SCHEMA
from tasks.candidates import Claimed
from tasks.config import PipelineConfig
from tasks.config_file import validated
from tasks.corpus import IngestRefused, IngestReport
from tasks.living_ledger import LivingLedger
from tasks.refresh import IntakeReport, take_inbox
from tasks.sources import source_identity

TIME = "2026-01-02T03:04:05Z"


def inbox_config(root: Path, inbox: Path, **refreshing: Any) -> PipelineConfig:
    files = {"kind": "files", "paths": [str(inbox / "*.jsonl")]}
    queries = inbox.parent / "queries.jsonl"
    if not queries.exists():
        inbox.parent.mkdir(parents=True, exist_ok=True)
        queries.write_text('{"text": "one"}\n')
    settings = {
        "store": str(root),
        "rows": {"source": files, "id_field": "id", "fields": {"kind": "text"}},
        "queries": {"source": {"kind": "files", "paths": [str(queries)]}},
        "refresh": {"settle_seconds": 0.0, **refreshing},
    }
    return validated(PipelineConfig, settings, origin="test")


def put_file(path: Path, rows: Mapping[str, str], *, tick: int) -> None:
    """Write rows by id, with a time of its own: tests are faster than clocks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"id": row_id, "text": text}) for row_id, text in rows.items()]
    path.write_text("".join(f"{line}\n" for line in lines))
    os.utime(path, ns=(tick * 10**9, tick * 10**9))


def take(config: PipelineConfig) -> IntakeReport:
    """Take an inbox, each file by `light_ingest`, at a time that stands still."""
    with (
        patch("tasks.refresh.ingest_rows", light_ingest),
        patch("tasks.refresh._Intake._load_tokenizer", lambda _: None),
        patch("tasks.inbox_file.this_moment", lambda: TIME),
    ):
        return take_inbox(config)


def living(config: PipelineConfig) -> dict[str, tuple[str, str]]:
    """Return the living rows: id to content hash and name of the file."""
    ledger = LivingLedger(CorpusRef(config.store, config.corpus))
    ids = ledger._rows.column("row_id").to_pylist()
    found = {row.row_id: row for row in ledger.find(ids) if row is not None}
    return {name: (row.content_hash, Path(row.source).name) for name, row in found.items()}


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def light_ingest(ref: CorpusRef, rows: Any, _tokenizer: Any, *, quality: Any, revision: Any) -> Any:
    """Do what `tasks.corpus.ingest_rows` does, without a gate: a line that is no JSON refuses."""
    del quality
    source = source_identity(rows.source)
    batch_id = short_id({"source": source, **revision.identity})
    (name,) = rows.source.paths
    with BatchWriter(ref, batch_id) as writer:
        known = revision.begin()
        try:
            records = [json.loads(line) for line in Path(name).read_text().splitlines()]
        except ValueError as error:
            writer.refuse({})
            raise IngestRefused("malformed JSON") from error
        claimed = [Claimed(record["id"], hash_of(record["text"]), None) for record in records]
        standings = known.standings(claimed)
        kept = [
            {
                "row_id": one.row_id,
                "text": record["text"],
                "prompt_chars": 0,
                "label": None,
                "source": name,
                "source_line": line,
                "content_hash": one.content_hash,
                "n_tokens": 2,
            }
            for line, (record, one, standing) in enumerate(
                zip(records, claimed, standings, strict=True), start=1
            )
            if standing in ("new", "changed")
        ]
        table = pa.Table.from_pylist(kept, schema=ROW_SCHEMA)
        revision.require_same_bytes()
        batch = None
        if kept:
            writer.add(table)
            revision.keep(table)
            revision.accept(batch_id)
            batch = writer.commit({"n_known": 0})
        else:
            revision.accept(None)
    n_known = len(records) - len(kept)
    return IngestReport(batch, len(kept), 0, n_known, 2 * len(kept), "", "", False, 0.0)
