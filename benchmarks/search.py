"""How fast is a search, and how many of the best rows does a shortlist find?

Every way to search reads an index of the same rows from disk and keeps the same number of top
rows. The plain loop is what one would write first: read a shard by Zarr, cast it, multiply with
every BLAS thread, keep the best by argpartition. Every way runs in a process of its own, so that
its peak memory is its own; rounds take turns, and speeds are compared within a round. Recall is
that of the ten best rows by float16, over shortlist sizes. Run from the repository:

    python benchmarks/search.py --rows 200000 --numbers 2048 --queries 100
    python benchmarks/search.py --rows 1000000 --numbers 8192 --ways sign --recall-rows 0 \\
        --out docs/performance/search-codes.json
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import zarr
from evidence_machine import peak_rss_bytes, performance, target, with_records

from rise_ops.codes import encode
from rise_ops.integer_scoring import integer_products_are_exact
from rise_ops.scoring import QueryPanel, query_panel, split_keys
from storage.refs import IndexRef
from storage.signatures import SignatureIndex
from tasks.config import RuntimeConfig
from tasks.progress import NO_PROGRESS
from tasks.scoring_graph import Search, SearchResult, block_bounds, predicted_bytes
from tasks.shortlist import find_rows

TOP_K = 100
SHORTLIST = 1000
MILLION = 1_000_000
DISTINCT_ROWS = 40_000
"""Rows that are drawn; beyond them they come again, shuffled."""

PLAIN = "plain loop"
INDEX_OF = {
    PLAIN: "float16",
    "float16": "float16",
    "int8": "int8",
    "sign": "sign",
    f"sign, shortlist {SHORTLIST}": "sign+floats",
}
"""Ways to search, and the index that each reads."""

RECALL_AT = 10
RECALL_SIZES = [None, 20, 50, 100, 200, 500, 1000]
"""Rows on a query's shortlist; None: codes alone decide."""
KIN_SHARES = {"kin": 0.6, "random directions": 0.0}
"""Rows of a family share a direction; how much of it a row has is drawn from 0 to this."""
FAMILY_ROWS = 80


def main() -> None:
    arguments = read_arguments()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as root:
        for name in {INDEX_OF[way] for way in arguments.ways}:
            make_index(root, name, random_rows(arguments), arguments, n_rows=arguments.rows)
        make_index(root, "float16", random_rows(arguments)[:1], arguments, ref_name="one")
        records = measure_speed(root, arguments)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as root:
        if arguments.recall_rows:
            records += measure_recall(root, arguments)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(with_records(summary(records, arguments), records))
    for record in records:
        print(record)


def summary(records: list[dict], arguments: argparse.Namespace) -> dict:
    """Return what was measured where, medians, and what they are held against."""
    left_out = ("folder", "out", "ways")
    shapes = {name: value for name, value in vars(arguments).items() if name not in left_out}
    found = performance(
        {**shapes, "top_k": TOP_K},
        medians(records),
        targets(arguments),
        libraries=("zarr", "dask"),
    )
    found["hardware"]["int8_product"] = integer_products_are_exact()
    return found


def medians(records: list[dict]) -> dict[str, float]:
    found = {}
    for one in records:
        if one["group"] == "speed":
            queries = "1 query" if one["queries"] == 1 else f"{one['queries']} queries"
            name = f"{one['name']}, {queries}"
            found[f"{name}: seconds"] = one["seconds"]
            found[f"{name}: GB"] = round(one["peak_rss_bytes"] / 1e9, 3)
            if one["speedup"] is not None:
                found[f"{name} / {PLAIN}"] = one["speedup"]
    return found


def targets(arguments: argparse.Namespace) -> list[dict]:
    of = f"search, {arguments.rows:,} rows of {arguments.numbers:,} numbers"
    name, found = f"{arguments.queries} queries", []
    if {PLAIN, "float16"} <= set(arguments.ways):
        what = f"{of}, {name}: float16 against a plain NumPy loop over the shards"
        found.append(target(what, f"float16, {name} / {PLAIN}", "x", at_least=1.6))
    if "sign" in arguments.ways and arguments.rows == MILLION:
        what = f"{of}, {name}: sign"
        found.append(target(what, f"sign, {name}: seconds", "seconds", at_most=15))
        found.append(target(what, f"sign, {name}: GB", "GB", at_most=2))
    return found


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--numbers", type=int, default=2_048)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--block-rows", type=int, default=4_096)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scheduler", default="threads")
    parser.add_argument("--recall-rows", type=int, default=40_000, help="0: no recall")
    parser.add_argument("--ways", nargs="+", choices=list(INDEX_OF), default=list(INDEX_OF))
    parser.add_argument("--folder", default=None, help="where indexes are made; default: temp")
    parser.add_argument("--out", type=Path, default=Path("docs/performance/search.json"))
    return parser.parse_args()


# ------------------------------------------------------------------------------------- rows


def random_rows(arguments: argparse.Namespace) -> np.ndarray:
    """Return random directions: the hardest rows there are, none stands out."""
    shape = (min(DISTINCT_ROWS, arguments.rows), arguments.numbers)
    return directions(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))


def random_queries(arguments: argparse.Namespace) -> np.ndarray:
    shape = (arguments.queries, arguments.numbers)
    return directions(np.random.default_rng(1).standard_normal(shape, dtype=np.float32))


def kin(arguments: argparse.Namespace, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Return rows in families and queries of some families."""
    rng = np.random.default_rng(2)
    shape = (arguments.recall_rows, arguments.numbers)
    families = directions(rng.standard_normal((-(-shape[0] // FAMILY_ROWS), shape[1])))
    rows = directions(rng.standard_normal(shape, dtype=np.float32))
    queries = random_queries(arguments)
    for members in (rows, queries):
        part = rng.uniform(0.0, share, len(members)).astype(np.float32)[:, None]
        own = families[np.arange(len(members)) % len(families)]
        members *= np.sqrt(1.0 - part)
        members += np.sqrt(part) * own
    return directions(rows), directions(queries)


def directions(rows: np.ndarray) -> np.ndarray:
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32, copy=False)


def make_index(
    root: str,
    name: str,
    rows: np.ndarray,
    arguments: argparse.Namespace,
    *,
    n_rows: int | None = None,
    ref_name: str | None = None,
) -> SignatureIndex:
    """Write an index of the rows, drawn again and again where more are asked for."""
    code, _, floats = name.partition("+")
    numbers = rows.shape[1]
    index = SignatureIndex.create(
        IndexRef(root, ref_name or code + floats),
        identity={"benchmark": "search", "numbers": numbers, "code": {"rotation_sha256": None}},
        tables={},
        n_numbers=numbers,
        block_rows=arguments.block_rows,
        code=code,
        float_numbers=numbers if floats else None,
    )
    n_rows = n_rows or len(rows)
    index.reserve(n_rows)
    pool, halves = encode(rows, code), rows.astype(np.float16)
    rng = np.random.default_rng(3)
    for block, (start, stop) in enumerate(block_bounds(n_rows, arguments.block_rows)):
        chosen = np.arange(start, stop)
        if n_rows > len(rows):
            chosen = rng.integers(0, len(rows), stop - start)
        index.write_block(
            block,
            pool.values[chosen],
            np.ones(stop - start, np.int32),
            scales=None if pool.scales is None else pool.scales[chosen],
            floats=halves[chosen] if floats else None,
            rows_digest=str(block),
            n_tokens=0,
        )
    index.commit(["bench"], n_rows)
    return SignatureIndex.open(index.ref)


# ------------------------------------------------------------------------------------ speed


def measure_speed(root: str, arguments: argparse.Namespace) -> list[dict]:
    """Time every way with all queries, and with one: an answer that somebody asks about."""
    records = []
    for n_queries in (arguments.queries, 1):
        runs = {way: [] for way in arguments.ways}
        for round_ in range(arguments.repeats):
            print(f"{n_queries} queries, round {round_ + 1} of {arguments.repeats}", flush=True)
            # in turns, so that a busy neighbour slows every way alike
            for way in arguments.ways:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    runs[way].append(pool.apply(run_way, (root, way, n_queries, arguments)))
        records += [record(way, n_queries, runs) for way in arguments.ways]
    return records


def record(way: str, n_queries: int, runs: dict[str, list[dict]]) -> dict:
    """Return medians; the speed-up is the median of the rounds' own."""
    speedup = None
    if PLAIN in runs:
        pairs = zip(runs[PLAIN], runs[way], strict=True)
        speedup = round(statistics.median(a["seconds"] / b["seconds"] for a, b in pairs), 2)
    median = {
        name: round(statistics.median(run[name] for run in runs[way]), 3)
        for name in ("seconds", "cpu_seconds")
    }
    return {
        "group": "speed",
        "name": way,
        "queries": n_queries,
        **median,
        "speedup": speedup,
        "all_seconds": [round(run["seconds"], 3) for run in runs[way]],
        "peak_rss_bytes": max(run["peak_rss_bytes"] for run in runs[way]),
        "predicted_bytes": runs[way][0]["predicted_bytes"],
        "row_bytes": runs[way][0]["row_bytes"],
    }


def run_way(root: str, way: str, n_queries: int, arguments: argparse.Namespace) -> dict:
    """Search once, in this process, and say how long it took; imports are not counted."""
    index = SignatureIndex.open(IndexRef(root, INDEX_OF[way].replace("+", "")))
    queries = random_queries(arguments)[:n_queries]
    runtime = RuntimeConfig(scheduler=arguments.scheduler)
    shortlist = SHORTLIST if index.float_numbers is not None else None
    warm_up(index.ref.root, runtime)
    started, worked = time.perf_counter(), time.process_time()
    if way == PLAIN:
        plain_loop(index, query_panel(queries))
    else:
        found(index, queries, runtime, top_k=TOP_K, shortlist=shortlist)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - worked
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_rss_bytes": peak_rss_bytes(),
        "predicted_bytes": predicted_bytes(index, len(queries), runtime, shortlist=shortlist),
        "row_bytes": index.row_bytes,
    }


def warm_up(root: str, runtime: RuntimeConfig) -> None:
    """Search one row, so that libraries are loaded and processors asked what they can do."""
    integer_products_are_exact()
    index = SignatureIndex.open(IndexRef(root, "one"))
    row = np.ones((1, index.n_numbers), np.float32)
    found(index, row, runtime, top_k=1, shortlist=None)
    plain_loop(index, query_panel(row))


def found(
    index: SignatureIndex,
    queries: np.ndarray,
    runtime: RuntimeConfig,
    *,
    top_k: int,
    shortlist: int | None,
) -> SearchResult:
    ranks = np.arange(index.n_rows, dtype=np.uint32)
    plan = Search(index.ref, top_k, shortlist=shortlist)
    return find_rows(plan, queries, ranks, runtime, NO_PROGRESS)


def plain_loop(index: SignatureIndex, panel: QueryPanel) -> np.ndarray:
    """Return the best rows of each query, and multiply with the mean query on the way."""
    stored = zarr.open_array(index.array_path, mode="r")
    best_scores = np.empty((panel.n_queries, 0), np.float32)
    best = np.empty((panel.n_queries, 0), np.int64)
    for start, stop in block_bounds(index.n_rows, index.block_rows):
        scores = panel.vectors @ stored[start:stop].astype(np.float32).T
        scores = scores[:-1]  # without the values
        kept = np.argpartition(scores, -min(TOP_K, stop - start), axis=1)[:, -TOP_K:]
        best_scores = np.concatenate([best_scores, np.take_along_axis(scores, kept, 1)], axis=1)
        best = np.concatenate([best, kept + start], axis=1)
        kept = np.argpartition(best_scores, -min(TOP_K, stop), axis=1)[:, -TOP_K:]
        best_scores = np.take_along_axis(best_scores, kept, axis=1)
        best = np.take_along_axis(best, kept, axis=1)
    return best


# ----------------------------------------------------------------------------------- recall


def measure_recall(root: str, arguments: argparse.Namespace) -> list[dict]:
    """Return how many of the ten best rows by float16 are found, for shortlists of codes."""
    runtime = RuntimeConfig(scheduler=arguments.scheduler)
    records = []
    for kind, share in KIN_SHARES.items():
        print(f"recall, {kind}", flush=True)
        rows, queries = kin(arguments, share)
        folder = str(Path(root) / kind.split()[0])
        exact = make_index(folder, "float16", rows, arguments)
        best = best_rows(found(exact, queries, runtime, top_k=RECALL_AT, shortlist=None))
        for code in ("int8", "sign"):
            index = make_index(folder, f"{code}+floats", rows, arguments)
            for size in RECALL_SIZES:
                at = best_rows(found(index, queries, runtime, top_k=RECALL_AT, shortlist=size))
                shares = [np.isin(a, b).mean() for a, b in zip(best, at, strict=True)]
                records.append(
                    {
                        "group": "recall",
                        "rows": kind,
                        "code": code,
                        "shortlist": size,
                        f"recall@{RECALL_AT}": round(float(np.mean(shares)), 4),
                    }
                )
    return records


def best_rows(result: SearchResult) -> np.ndarray:
    ranks, _ = split_keys(result.keys)
    return ranks.astype(np.int64)


if __name__ == "__main__":
    main()
