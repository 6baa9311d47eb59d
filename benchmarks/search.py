"""How fast a search is: every code of the Dask graph against a plain NumPy loop over float16 rows.

All read an index of the same rows from disk and keep the same number of top rows. The plain loop
is what one would write first: read a shard, cast it, multiply with every BLAS thread, keep the
best by argpartition. Every way runs in a process of its own, so that its peak memory is its own;
rounds take turns. Run from the repository:

    python benchmarks/search.py --rows 200000 --numbers 2048 --queries 100 --out search.json
    python benchmarks/search.py --rows 1000000 --numbers 8192 --ways sign --out search-1m.json
"""

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from rise_ops.codes import encode
from rise_ops.integer_scoring import integer_products_are_exact
from rise_ops.scoring import QueryPanel, query_panel, split_keys
from storage.layout import index_folder
from storage.refs import IndexRef
from storage.signatures import SignatureIndex
from tasks.config import RuntimeConfig
from tasks.progress import NO_PROGRESS
from tasks.scoring_graph import Search, block_bounds, predicted_bytes, search

TOP_K = 100

DISTINCT_ROWS = 40_000

PLAIN = "plain loop"
WAYS = [PLAIN, "float16", "int8", "sign"]
CODE_OF = {PLAIN: "float16"}


def main() -> None:
    arguments = read_arguments()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as root:
        for code in {CODE_OF.get(way, way) for way in arguments.ways}:
            make_index(root, code, arguments)
        result = measure(root, arguments)
    Path(arguments.out).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["ways"], indent=1))


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--numbers", type=int, default=2_048)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--block-rows", type=int, default=4_096)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scheduler", default="threads")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--folder", default=None, help="where indexes are made; default: temp")
    parser.add_argument("--out", default="search.json")
    return parser.parse_args()


def make_index(root: str, code: str, arguments: argparse.Namespace) -> None:
    """Write an index of random directions; beyond DISTINCT_ROWS they come again, shuffled."""
    index = SignatureIndex.create(
        IndexRef(root, code),
        identity={"benchmark": "search", "numbers": arguments.numbers, "code": code},
        tables={},
        n_numbers=arguments.numbers,
        block_rows=arguments.block_rows,
        code=code,
    )
    index.reserve(arguments.rows)
    rng = np.random.default_rng(0)
    rows = rng.standard_normal(
        (min(DISTINCT_ROWS, arguments.rows), arguments.numbers), dtype=np.float32
    )
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    pool = encode(rows, code)
    for block, (start, stop) in enumerate(block_bounds(arguments.rows, arguments.block_rows)):
        chosen = rng.integers(0, len(rows), stop - start)
        index.write_block(
            block,
            pool.values[chosen],
            np.ones(stop - start, np.int32),
            scales=None if pool.scales is None else pool.scales[chosen],
            rows_digest=str(block),
            n_tokens=0,
        )
    index.commit(["bench"], arguments.rows)


def measure(root: str, arguments: argparse.Namespace) -> dict:
    runs = {way: [] for way in arguments.ways}
    for _ in range(arguments.repeats):
        # in turns, so that a busy neighbour slows every way alike
        for way in arguments.ways:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                runs[way].append(pool.apply(run_way, (root, way, arguments)))
    seconds = {way: statistics.median(run["seconds"] for run in runs[way]) for way in runs}
    index = SignatureIndex.open(IndexRef(root, CODE_OF.get(arguments.ways[-1], arguments.ways[-1])))
    return {
        "shape": {**vars(arguments), "top_k": TOP_K, "n_blocks": index.n_blocks},
        "ways": {
            way: {
                "seconds": seconds[way],
                "all_seconds": [run["seconds"] for run in runs[way]],
                "cpu_seconds": statistics.median(run["cpu_seconds"] for run in runs[way]),
                "speedup": seconds[PLAIN] / seconds[way] if PLAIN in seconds else None,
                "peak_rss_bytes": max(run["peak_rss_bytes"] for run in runs[way]),
                "predicted_bytes": runs[way][0]["predicted_bytes"],
                "row_bytes": runs[way][0]["row_bytes"],
                "found_of_float": runs[way][0]["found_of_float"],
            }
            for way in runs
        },
        "hardware": {
            "cpu": platform.processor() or platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "int8_product": integer_products_are_exact(),
            "load_after": os.getloadavg()[0],
        },
        "versions": {
            name: importlib.metadata.version(name) for name in ("numpy", "torch", "zarr", "dask")
        }
        | {"python": platform.python_version()},
    }


def run_way(root: str, way: str, arguments: argparse.Namespace) -> dict:
    """Search once, in this process, and say how long it took; imports are not counted."""
    index = SignatureIndex.open(IndexRef(root, CODE_OF.get(way, way)))
    rng = np.random.default_rng(1)
    queries = rng.standard_normal((arguments.queries, arguments.numbers), dtype=np.float32)
    panel = query_panel(queries / np.linalg.norm(queries, axis=1, keepdims=True))
    ranks = np.arange(index.n_rows, dtype=np.uint32)
    runtime = RuntimeConfig(scheduler=arguments.scheduler)
    integer_products_are_exact()
    started, worked = time.perf_counter(), time.process_time()
    if way == PLAIN:
        rows = plain_loop(index, panel)
    else:
        rows = best_rows(search(Search(index.ref, TOP_K), panel, ranks, runtime, NO_PROGRESS))
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - worked
    peak = peak_rss_bytes()
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_rss_bytes": peak,
        "predicted_bytes": predicted_bytes(index, arguments.queries, runtime),
        "row_bytes": index.row_bytes,
        "found_of_float": share_found(root, rows, panel),
    }


def peak_rss_bytes() -> int:
    """Return the most memory that this process had; ru_maxrss would count its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def share_found(root: str, rows: np.ndarray, panel: QueryPanel) -> float | None:
    """Return the mean share of the plain loop's top rows that were found, for a few queries.

    Random directions are the hardest rows there are: no row stands out.
    """
    plain = IndexRef(root, "float16")
    if not index_folder(plain).exists() or SignatureIndex.open(plain).n_rows > DISTINCT_ROWS:
        return None  # rows that come twice tie, and the plain loop breaks ties as it likes
    few = QueryPanel(panel.vectors[:4])
    best = plain_loop(SignatureIndex.open(plain), few)
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(best, rows, strict=False)]))


def plain_loop(index: SignatureIndex, panel: QueryPanel) -> np.ndarray:
    best_scores = np.empty((panel.n_queries, 0), np.float32)
    best = np.empty((panel.n_queries, 0), np.int64)
    for block, (start, stop) in enumerate(block_bounds(index.n_rows, index.block_rows)):
        signatures, _ = index.read_block(block)
        scores = panel.vectors @ signatures.astype(np.float32).T
        rows = np.broadcast_to(np.arange(start, stop), (panel.n_queries, stop - start))
        best_scores = np.concatenate([best_scores, scores[:-1]], axis=1)
        best = np.concatenate([best, rows], axis=1)
        kept = np.argpartition(-best_scores, TOP_K - 1, axis=1)[:, :TOP_K]
        best_scores = np.take_along_axis(best_scores, kept, axis=1)
        best = np.take_along_axis(best, kept, axis=1)
    return best


def best_rows(result) -> np.ndarray:
    ranks, _ = split_keys(result.keys)
    return ranks.astype(np.int64)


if __name__ == "__main__":
    main()
