"""How fast a search is: the Dask graph against a plain NumPy loop over the same shards.

Both read the same index from disk, make the same scores and keep the same top rows. The plain
loop is what one would write first: read a shard, cast it, multiply with every BLAS thread, keep
the best by argpartition. Run from the repository:

    python benchmarks/search.py --rows 200000 --numbers 2048 --queries 100 --out search.json
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np

from rise_ops.scoring import QueryPanel, query_panel, split_keys
from storage.refs import IndexRef
from storage.signatures import SignatureIndex
from tasks.config import RuntimeConfig
from tasks.progress import NO_PROGRESS
from tasks.scoring_graph import Search, block_bounds, predicted_bytes, search

TOP_K = 100


def main() -> None:
    arguments = read_arguments()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as root:
        index = make_index(root, arguments)
        result = measure(index, arguments)
    Path(arguments.out).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["seconds"], indent=1), result["speedup"])


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--numbers", type=int, default=2_048)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--block-rows", type=int, default=4_096)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--schedulers", nargs="+", default=["threads"])
    parser.add_argument("--folder", default=None, help="where the index is made; default: temp")
    parser.add_argument("--out", default="search.json")
    return parser.parse_args()


def make_index(root: str, arguments: argparse.Namespace) -> SignatureIndex:
    index = SignatureIndex.create(
        IndexRef(root, "bench"),
        identity={"benchmark": "search", "numbers": arguments.numbers},
        tables={},
        n_numbers=arguments.numbers,
        block_rows=arguments.block_rows,
    )
    index.reserve(arguments.rows)
    rng = np.random.default_rng(0)
    for block, (start, stop) in enumerate(block_bounds(arguments.rows, arguments.block_rows)):
        rows = rng.standard_normal((stop - start, arguments.numbers), dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        positions = np.ones(stop - start, np.int32)
        index.write_block(
            block, rows.astype(np.float16), positions, rows_digest=str(block), n_tokens=0
        )
    index.commit(["bench"], arguments.rows)
    return SignatureIndex.open(IndexRef(root, "bench"))


def measure(index: SignatureIndex, arguments: argparse.Namespace) -> dict:
    rng = np.random.default_rng(1)
    queries = rng.standard_normal((arguments.queries, arguments.numbers), dtype=np.float32)
    panel = query_panel(queries / np.linalg.norm(queries, axis=1, keepdims=True))
    ranks = np.arange(index.n_rows, dtype=np.uint32)
    ways = {"plain loop": lambda: plain_loop(index, panel)}
    for scheduler in arguments.schedulers:
        runtime = RuntimeConfig(scheduler=scheduler)
        plan = Search(index.ref, panel, TOP_K)
        ways[f"graph, {scheduler}"] = lambda runtime=runtime, plan=plan: best_rows(
            search(plan, ranks, runtime, NO_PROGRESS)
        )
    seconds, first = {way: [] for way in ways}, ways["plain loop"]()
    for _ in range(arguments.repeats + 1):
        # in turns, so that a busy neighbour slows every way alike; the first round warms up
        for way, run in ways.items():
            started = time.perf_counter()
            rows = run()
            seconds[way].append(time.perf_counter() - started)
            same = np.mean(np.sort(rows, axis=1) == np.sort(first, axis=1))
            if same < 1:
                print(f"{way}: {1 - same:.2%} of the top rows differ from the plain loop's")
    medians = {way: statistics.median(times[1:]) for way, times in seconds.items()}
    return {
        "shape": {**vars(arguments), "top_k": TOP_K},
        "seconds": medians,
        "all_seconds": {way: times[1:] for way, times in seconds.items()},
        "speedup": {way: medians["plain loop"] / value for way, value in medians.items()},
        "predicted_bytes_in_flight": predicted_bytes(index, arguments.queries, RuntimeConfig()),
        "peak_bytes_allocated": {
            way: peak_bytes(ways[way]) for way in ways if way in ("plain loop", "graph, threads")
        },
        "hardware": {
            "cpu": platform.processor() or platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "load_before": os.getloadavg()[0],
        },
        "versions": {name: importlib.metadata.version(name) for name in ("numpy", "zarr", "dask")}
        | {"python": platform.python_version()},
    }


def peak_bytes(run) -> int:
    """Most bytes that Python and NumPy held at once during one run, in this process."""
    tracemalloc.start()
    run()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


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
