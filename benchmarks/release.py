"""How long a release takes: select, guard, write, check and publish, from stored scores.

A store is made of random English-like rows: a corpus, a small index, one query set, and its
scores. Every release is made in a process of its own, so that its peak memory is its own, and
under another name, so that nothing is there already. Run from the repository:

    python benchmarks/release.py --rows 200000 --release 100000
"""

import argparse
import cProfile
import multiprocessing
import pstats
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from evidence_machine import peak_rss_bytes, performance, target, write_record

from storage.corpus import BatchWriter
from storage.guards import index_guard
from storage.queries import QuerySet
from storage.refs import CorpusRef, IndexRef, QuerySetRef, ScoresRef
from storage.rows import ROW_SCHEMA
from storage.signatures import SignatureIndex
from tasks.config import RuntimeConfig, ScoreConfig
from tasks.release import release
from tasks.release_config import ReleaseConfig, TopK
from tasks.report import write_report
from tasks.scoring import score

ASKED_ROWS = 100_000
"""Rows of the release whose seconds are held against a target."""

N_NUMBERS = 64
N_QUERIES = 16
BLOCK_ROWS = 4096
WORDS_A_ROW = (20, 200)
"""Least and most words of a row: about 640 bytes on average."""

SPACE = {"benchmark": "release"}
SETS = {
    "plain": {},
    "guarded": {"leakage": {"action": "report"}, "privacy": {"action": "report"}},
    "full": {
        "leakage": {"action": "remove"},
        "privacy": {"action": "remove"},
        "quotas": [{"field": "source", "value": "*", "max_rows": 60_000}],
        "formats": ["parquet", "jsonl"],
    },
}
"""Name of a way to release to its settings; ``guarded`` is what the defaults do."""


def main() -> None:
    arguments = read_arguments()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as root:
        scores_id = make_store(f"{root}/store", arguments.rows)
        if arguments.profile:
            profile(root, scores_id, arguments)
            return
        runs = measure(root, scores_id, arguments)
    write_record(record(runs, arguments), arguments.out)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000, help="rows that are scored")
    parser.add_argument("--release", type=int, default=100_000, help="rows that are released")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--profile", action="store_true", help="show where the time goes instead")
    parser.add_argument("--folder", default=None, help="where the store is made; default: temp")
    parser.add_argument("--out", type=Path, default=Path("docs/performance/release.json"))
    return parser.parse_args()


def make_store(root: str, n_rows: int) -> str:
    """Make a store up to its scores; return their id."""
    rng = np.random.default_rng(0)
    corpus = CorpusRef(root, "main")
    table = random_rows(rng, n_rows, "row")
    for half in range(2):
        with BatchWriter(corpus, f"b{half}") as writer:
            writer.add(table.slice(half * (n_rows // 2), n_rows - n_rows // 2))
            writer.commit({})
    index = write_index(root, rng, n_rows)
    queries = QuerySet.write(
        QuerySetRef(root, "main", "v1"),
        queries=random_rows(rng, N_QUERIES, "query"),
        signatures=rng.standard_normal((N_QUERIES, N_NUMBERS)).astype(np.float32),
        n_positions=np.ones(N_QUERIES, np.int32),
        manifest={"space": SPACE},
    )
    return score(index, queries, ScoreConfig(), RuntimeConfig()).ref.scores_id


def random_rows(rng: np.random.Generator, n_rows: int, name: str) -> pa.Table:
    """Return rows of words whose frequencies fall as they do in English."""
    words = np.array([f"{a}{b}{c}" for a in "bdfglmnprst" for b in "aeiou" for c in WORD_ENDS])
    weights = 1 / np.arange(1, len(words) + 1)
    lengths = rng.integers(*WORDS_A_ROW, n_rows)
    stream = rng.choice(words, int(lengths.sum()), p=weights / weights.sum())
    texts = [" ".join(part) for part in np.split(stream, np.cumsum(lengths)[:-1])]
    columns = {
        "row_id": [f"{name}-{number:08d}" for number in rng.permutation(n_rows)],
        "text": texts,
        "prompt_chars": np.minimum(12, lengths),
        "label": [("news", "code", None)[number % 3] for number in range(n_rows)],
        "source": [f"data/part-{number * 8 // n_rows}.jsonl" for number in range(n_rows)],
        "source_line": np.arange(1, n_rows + 1),
        "content_hash": [f"{number:064x}" for number in range(n_rows)],
        "n_tokens": (lengths * 1.3).astype(np.int32),
    }
    return pa.table(columns).select(ROW_SCHEMA.names).cast(ROW_SCHEMA)


WORD_ENDS = ("", "r", "n", "st", "ld", "ck", "ring", "ment", "der", "ly", "tion", "ss")


def write_index(root: str, rng: np.random.Generator, n_rows: int) -> IndexRef:
    index = SignatureIndex.create(
        IndexRef(root, "main"),
        identity={"corpus": "main", "space": SPACE},
        tables={},
        n_numbers=N_NUMBERS,
        block_rows=BLOCK_ROWS,
    )
    with index_guard(index.ref).hold():
        index.reserve(n_rows)
        for block in range(index.count_blocks(n_rows)):
            here = min(BLOCK_ROWS, n_rows - block * BLOCK_ROWS)
            index.write_block(
                block,
                rng.standard_normal((here, N_NUMBERS)).astype(np.float16),
                np.ones(here, np.int32),
                rows_digest=str(block),
                n_tokens=0,
            )
        index.commit(["b0", "b1"], n_rows)
    return index.ref


def measure(root: str, scores_id: str, arguments: argparse.Namespace) -> dict[str, list[dict]]:
    """Return every run of every way."""
    runs = {way: [] for way in arguments.ways}
    for number in range(arguments.repeats):
        # in turns, so that a busy neighbour slows every way alike
        for way in arguments.ways:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                runs[way].append(pool.apply(run, (root, scores_id, way, number, arguments.release)))
    return runs


def record(runs: dict[str, list[dict]], arguments: argparse.Namespace) -> dict:
    """Return the record of all runs; memory is the most of any."""
    medians, held = {}, []
    for way, found in runs.items():
        for name in ("seconds", "cpu_seconds", "report_seconds"):
            medians[f"{way}: {name}"] = round(statistics.median(one[name] for one in found), 2)
        medians[f"{way}: GB"] = round(max(one["peak_rss_bytes"] for one in found) / 1e9, 3)
        what = f"release of {arguments.release:,} of {arguments.rows:,} rows, {way}"
        limit = {"at_most": 30} if arguments.release == ASKED_ROWS else {}
        held.append(target(what, f"{way}: seconds", "seconds", **limit))
        held.append(target(what, f"{way}: GB", "GB"))
    return performance(
        {"rows": arguments.rows, "release": arguments.release, "repeats": arguments.repeats},
        medians,
        held,
        libraries=("pyarrow", "great-expectations", "py3langid"),
        runs=runs,
    )


def run(root: str, scores_id: str, way: str, number: int, n_release: int) -> dict:
    """Release once in this process, then draw its page; imports on the way are counted."""
    started, worked = time.perf_counter(), time.process_time()
    report = release(
        ScoresRef(f"{root}/store", scores_id), f"{way}-{number}", settings(way, n_release)
    )
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - worked
    drawn = time.perf_counter()
    write_report(report.ref)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "report_seconds": time.perf_counter() - drawn,
        "peak_rss_bytes": peak_rss_bytes(),
        "data_bytes": report.n_bytes,
        "n_dropped": dict(report.n_dropped),
    }


def settings(way: str, n_release: int) -> ReleaseConfig:
    off = {"leakage": {"action": "off"}, "privacy": {"action": "off"}} if way == "plain" else {}
    return ReleaseConfig.model_validate({"select": TopK(top_k=n_release), **off, **SETS[way]})


def profile(root: str, scores_id: str, arguments: argparse.Namespace) -> None:
    for way in arguments.ways:
        watch = cProfile.Profile()
        watch.enable()
        run(root, scores_id, way, 0, arguments.release)
        watch.disable()
        pstats.Stats(watch).sort_stats("cumulative").print_stats(60)


if __name__ == "__main__":
    main()
