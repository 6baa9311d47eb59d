"""How long a selection takes, and how much memory: a token budget, quotas, duplicates collapsed.

Makes a store with a corpus on disk (texts of about 150 words, from 40 sources, some of them near
duplicates of others), its scores, and a small index; then selects, each time in a process of its
own, so that peak memory is its own. What is timed is all that a release does before it writes:
reading values and columns, the selection, what every constraint cost. Run from the repository:

    python benchmarks/selection.py --rows 1000000
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from evidence_machine import peak_rss_bytes, performance, target, write_record

from storage.corpus import BatchWriter, Corpus
from storage.refs import CorpusRef, IndexRef, ScoresRef
from storage.rows import ROW_SCHEMA
from storage.scores import TOP_ROWS_SCHEMA, VALUES_SCHEMA, Scores
from storage.signatures import SignatureIndex
from tasks.release_config import Collapse, Quota, ReleaseConfig, TokenBudget
from tasks.selection import select_rows
from tasks.selection_rows import StoredRows, candidate_table

SOURCES = 40
LABELS = 8
VOCABULARY = 50_000
DUPLICATED = 0.1
"""Share of rows that are a near duplicate of another: one word in 40 replaced."""

ASKED_ROWS = 1_000_000
"""Scored rows whose seconds and memory are held against targets."""

N_NUMBERS = 64
BLOCK_ROWS = 65_536
PART_ROWS = 50_000
TOKENS_A_WORD = 1.3


def main() -> None:
    arguments = read_arguments()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        root = arguments.store or folder
        if not Scores.exists(root, "s1"):
            make_store(root, arguments.rows)
        n_tokens = pc.sum(Corpus(CorpusRef(root, "main")).columns(["n_tokens"])[0]).as_py()
        runs = [run_apart(root, n_tokens, arguments) for _ in range(arguments.repeats)]
    write_record(record(runs, n_tokens, arguments), arguments.out)


def record(runs: list[dict], n_tokens: int, arguments: argparse.Namespace) -> dict:
    """Return the record of all runs; memory is the most of any."""
    medians = {
        "seconds": round(statistics.median(run["seconds"] for run in runs), 2),
        "cpu_seconds": round(statistics.median(run["cpu_seconds"] for run in runs), 2),
        "GB": round(max(run["peak_rss_bytes"] for run in runs) / 1e9, 3),
    }
    what = f"selection from {arguments.rows:,} scored rows: token budget, quotas, no duplicates"
    asked = arguments.rows == ASKED_ROWS
    return performance(
        {
            "rows": arguments.rows,
            "tokens": n_tokens,
            "budget_share": arguments.share,
            "sources": SOURCES,
            "duplicated_share": DUPLICATED,
            "repeats": arguments.repeats,
        },
        medians,
        [
            target(what, "seconds", "seconds", **({"at_most": 60} if asked else {})),
            target(what, "GB", "GB", **({"at_most": 3} if asked else {})),
        ],
        libraries=("pyarrow", "rensa", "scipy"),
        parts=[run["parts"] for run in runs],
        selection=runs[0]["selection"],
        same_every_time=len({run["digest"] for run in runs}) == 1,
    )


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--share", type=float, default=0.1, help="of all tokens, the budget")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", default=None, help="where the store is made; default: temp")
    parser.add_argument("--store", default=None, help="a store that is kept, and used again")
    parser.add_argument("--out", type=Path, default=Path("docs/performance/selection.json"))
    return parser.parse_args()


# --------------------------------------------------------------------------------- the store


def make_store(root: str, n_rows: int) -> None:
    """Write corpus, index and scores."""
    rng = np.random.default_rng(0)
    words = vocabulary(rng)
    frequency = 1.0 / np.arange(1, VOCABULARY + 1)
    cumulative = np.cumsum(frequency / frequency.sum())
    earlier: list[str] = []
    with BatchWriter(CorpusRef(root, "main"), "b1") as writer:
        for start in range(0, n_rows, PART_ROWS):
            part = min(PART_ROWS, n_rows - start)
            texts = make_texts(rng, words, cumulative, part, earlier)
            earlier = texts[:: max(1, part // 5_000)]
            writer.add(corpus_part(rng, start, texts))
        writer.commit({})
    make_index(root, n_rows)
    values = rng.normal(size=n_rows).astype(np.float32)
    make_scores(root, values)


def vocabulary(rng: np.random.Generator) -> list[str]:
    letters = np.array(list("etaoinshrdlucmfwypvbgkqjxz"))
    weights = np.linspace(2.0, 0.1, 26)
    lengths = np.clip(rng.poisson(5, VOCABULARY), 2, 14)
    drawn = rng.choice(letters, lengths.sum(), p=weights / weights.sum())
    ends = np.cumsum(lengths)
    return ["".join(drawn[end - n : end]) for end, n in zip(ends, lengths, strict=True)]


def make_texts(rng, words, cumulative, n_rows: int, earlier: list[str]) -> list[str]:
    """Return texts of 100 to 200 words; some are those of ``earlier`` with a few words changed."""
    lengths = rng.integers(100, 201, n_rows)
    places = np.searchsorted(cumulative, rng.random(lengths.sum()))
    ends = np.cumsum(lengths)
    texts = [
        " ".join([words[p] for p in places[end - n : end]])
        for end, n in zip(ends.tolist(), lengths.tolist(), strict=True)
    ]
    for row in np.flatnonzero(rng.random(n_rows) < DUPLICATED).tolist():
        pool = earlier or texts
        changed = pool[int(rng.integers(len(pool)))].split()
        for place in rng.integers(0, len(changed), len(changed) // 40):
            changed[place] = words[int(rng.integers(VOCABULARY))]
        texts[row] = " ".join(changed)
    return texts


def corpus_part(rng: np.random.Generator, start: int, texts: list[str]) -> pa.Table:
    n_rows = len(texts)
    numbers = range(start, start + n_rows)
    counts = np.array([text.count(" ") + 1 for text in texts])
    sources = rng.choice(
        SOURCES, n_rows, p=np.arange(SOURCES, 0, -1) / (SOURCES * (SOURCES + 1) / 2)
    )
    return pa.table(
        {
            "row_id": [f"{(number * 2654435761) % 2**32:08x}{number:08x}" for number in numbers],
            "text": texts,
            "prompt_chars": np.zeros(n_rows, np.int32),
            "label": [f"label-{one}" for one in rng.integers(0, LABELS, n_rows)],
            "source": [f"data/source-{one:02d}.jsonl" for one in sources],
            "source_line": np.arange(start + 1, start + n_rows + 1),
            "content_hash": [f"{number:064x}" for number in numbers],
            "n_tokens": (counts * TOKENS_A_WORD).astype(np.int32),
        },
        schema=ROW_SCHEMA,
    )


def make_index(root: str, n_rows: int) -> None:
    index = SignatureIndex.create(
        IndexRef(root, "main"),
        identity={"benchmark": "selection", "corpus": "main"},
        tables={},
        n_numbers=N_NUMBERS,
        block_rows=BLOCK_ROWS,
    )
    rng = np.random.default_rng(1)
    index.reserve(n_rows)
    for block, start in enumerate(range(0, n_rows, BLOCK_ROWS)):
        n = min(BLOCK_ROWS, n_rows - start)
        index.write_block(
            block,
            rng.standard_normal((n, N_NUMBERS)).astype(np.float16),
            np.ones(n, np.int32),
            rows_digest=str(block),
            n_tokens=0,
        )
    index.commit(["b1"], n_rows)


def make_scores(root: str, values: np.ndarray) -> None:
    row_ids = Corpus(CorpusRef(root, "main")).row_ids().column("row_id")
    table = pa.table(
        {"row_id": row_ids, "value": values, "n_positions": np.ones(len(values), np.int32)}
    )
    manifest = {
        "index": "main",
        "index_id": "i",
        "query_set": "none",
        "query_set_version": "v1",
        "corpus": "main",
        "batches": ["b1"],
        "n_rows": len(values),
    }
    Scores.write(
        root,
        "s1",
        values=table.cast(VALUES_SCHEMA),
        top_rows=TOP_ROWS_SCHEMA.empty_table(),
        manifest=manifest,
    )


# ---------------------------------------------------------------------------------- measuring


def run_apart(root: str, n_tokens: int, arguments: argparse.Namespace) -> dict:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(run, (root, arguments.rows, int(arguments.share * n_tokens)))


def run(root: str, n_rows: int, budget: int) -> dict:
    """Select once, in this process; imports are not counted."""
    import rensa  # noqa: F401
    import scipy.optimize  # noqa: F401

    config = ReleaseConfig(
        select=TokenBudget(max_tokens=budget),
        quotas=(
            Quota(field="source", value="data/source-00.jsonl", max_rows=n_rows // 500),
            Quota(field="source", value="data/source-39.jsonl", min_rows=n_rows // 1000),
            Quota(field="source", value="*", max_rows=n_rows // 100),
            Quota(field="label", value="label-0", max_rows=n_rows // 100),
        ),
        collapse=Collapse(text=0.7),
    )
    before = peak_rss_bytes()
    started, worked = time.perf_counter(), time.process_time()
    scores = Scores.open(ScoresRef(root, "s1"))
    candidates = candidate_table(scores)
    read = time.perf_counter()
    selection = select_rows(candidates, config, StoredRows(scores))
    done = time.perf_counter()
    report = selection.report
    return {
        "seconds": done - started,
        "cpu_seconds": time.process_time() - worked,
        "parts": {"columns": read - started, "selection": done - read},
        "peak_rss_bytes": peak_rss_bytes(),
        "rss_before_bytes": before,
        "digest": digest(selection),
        "selection": {
            "rows": report["rows"],
            "tokens": report["tokens"],
            "constraints": report["constraints"],
        },
    }


def digest(selection) -> str:
    import hashlib

    sha = hashlib.sha256()
    for table in (selection.selected, selection.dropped):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        sha.update(sink.getvalue())
    return sha.hexdigest()


if __name__ == "__main__":
    main()
