"""An inbox with a tiny model: files of rows, and a whole refresh without an orchestrator."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline_samples import SUBJECTS, pipeline_settings

from storage.refs import CorpusRef, IndexRef
from tasks.config import PipelineConfig
from tasks.config_file import merged, validated
from tasks.queries import make_query_set
from tasks.refresh import IntakeReport, Outlook, look, released_inputs, remember, take_inbox
from tasks.release import ReleaseReport, release
from tasks.scoring import score
from tasks.signatures import IndexReport, build_index


@dataclass(frozen=True)
class Refreshed:
    """What one refresh did; only the outlook when there was nothing to do."""

    outlook: Outlook
    intake: IntakeReport | None = None
    index: IndexReport | None = None
    release: ReleaseReport | None = None


def write_inbox_file(path: Path, rows: Mapping[str, str], *, label: str | None = None) -> None:
    """Write rows by id; the text says something about one of the subjects."""
    path.parent.mkdir(parents=True, exist_ok=True)
    extra = {} if label is None else {"label": label}
    lines = [json.dumps({"id": row_id, "text": text, **extra}) for row_id, text in rows.items()]
    path.write_text("".join(f"{line}\n" for line in lines))


def text_of(number: int, *, version: int = 0) -> str:
    subject = SUBJECTS[number % len(SUBJECTS)]
    more = f", said again for the {version}. time" if version else ""
    return f"Number {number} is about {subject} and little else{more}."


def rows(start: int, stop: int, *, version: int = 0) -> dict[str, str]:
    return {f"row-{n:03d}": text_of(n, version=version) for n in range(start, stop)}


def refresh_settings(folder: Path, model: Path, **changes: Any) -> PipelineConfig:
    """Return the settings of a run whose inbox is the folder ``inbox``."""
    settings = pipeline_settings(folder, model)
    (folder / "rows-0.jsonl").unlink()
    settings = merged(
        settings,
        {
            "rows.source.paths": [str(folder / "inbox" / "*.jsonl")],
            "refresh.settle_seconds": 0.0,
            "runtime.device": "cpu",
            **changes,
        },
    )
    return validated(PipelineConfig, settings, origin="test")


def refresh(config: PipelineConfig) -> Refreshed:
    """Do what the flow does, with plain functions."""
    outlook = look(config)
    if outlook.nothing:
        return Refreshed(outlook)
    intake = take_inbox(config)
    if not intake.n_batches:
        return Refreshed(outlook, intake)
    inputs = released_inputs(config)
    store, index = config.store, IndexRef(config.store, config.index)
    corpus = CorpusRef(store, config.corpus)
    built = build_index(index, corpus, config.indexing, config.runtime)
    queries = make_query_set(store, config.query_set, index, config.queries, config.runtime)
    scored = score(index, queries.ref, config.scoring, config.runtime)
    released = release(scored.ref, config.release, config.releasing)
    remember(config, inputs, {config.release: released.ref.release_id})
    return Refreshed(outlook, intake, built, released)


def touch_later(path: Path, seconds: int) -> None:
    """Move a file's time without its bytes."""
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + seconds * 10**9))
