"""How long a release takes: select, guard, write, check and publish, from stored scores.

A store is made of random English-like rows: a corpus, a small index, one query set, and its
scores. Every release is made in a process of its own, so that its peak memory is its own, and
under another name, so that nothing is there already. Run from the repository:

    python benchmarks/release.py --rows 200000 --release 100000 --out release.json
"""

import argparse
import cProfile
import importlib.metadata
import json
import multiprocessing
import os
import platform
import pstats
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from storage.corpus import BatchWriter
from storage.queries import QuerySet
from storage.refs import CorpusRef, IndexRef, QuerySetRef, ScoresRef
from storage.rows import ROW_SCHEMA
from storage.signatures import SignatureIndex
from tasks.config import RuntimeConfig, ScoreConfig
from tasks.release import release
from tasks.release_config import ReleaseConfig, TopK
from tasks.report import write_report
from tasks.scoring import score

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
        result = measure(root, scores_id, arguments)
    Path(arguments.out).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["ways"], indent=1))


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=200_000, help="rows that are scored")
    parser.add_argument("--release", type=int, default=100_000, help="rows that are released")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=list(SETS), default=list(SETS))
    parser.add_argument("--profile", action="store_true", help="show where the time goes instead")
    parser.add_argument("--folder", default=None, help="where the store is made; default: temp")
    parser.add_argument("--out", default="release.json")
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
    with index.lock():
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


def measure(root: str, scores_id: str, arguments: argparse.Namespace) -> dict:
    runs = {way: [] for way in arguments.ways}
    for number in range(arguments.repeats):
        # in turns, so that a busy neighbour slows every way alike
        for way in arguments.ways:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                runs[way].append(pool.apply(run, (root, scores_id, way, number, arguments.release)))
    return {
        "shape": vars(arguments),
        "ways": {
            way: {
                "seconds": statistics.median(one["seconds"] for one in found),
                "all_seconds": [one["seconds"] for one in found],
                "cpu_seconds": statistics.median(one["cpu_seconds"] for one in found),
                "report_seconds": statistics.median(one["report_seconds"] for one in found),
                "peak_rss_bytes": max(one["peak_rss_bytes"] for one in found),
                "data_bytes": found[0]["data_bytes"],
                "n_dropped": found[0]["n_dropped"],
            }
            for way, found in runs.items()
        },
        "hardware": {
            "cpu": platform.processor() or platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "load_after": os.getloadavg()[0],
        },
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("numpy", "pyarrow", "great-expectations", "py3langid")
        }
        | {"python": platform.python_version()},
    }


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


def peak_rss_bytes() -> int:
    """Return the most memory that this process had; ru_maxrss would count its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    main()
