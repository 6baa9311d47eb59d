"""Which estimator leads back to the right rows, at how many bytes? One command, one JSON file.

    python benchmarks/evidence.py DATA --output evidence.json

DATA has the folders howdy, finmed, quality_headlines and brainrot (docs/evidence.md says what is in
them). The model reads every text once; what it says is kept under --work, so that all estimators
share one forward pass, and a killed run goes on where it stopped. --rows finmed=800 takes the first
800 rows of a shuffled pool, --query-step 2 every second query of the large sets.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evidence_cache import Readout, build_cache, load_cache
from evidence_estimators import Estimator, Separable, Tensor, estimators
from evidence_machine import machine, with_records
from evidence_signatures import (
    Residuals,
    agreement,
    calibrate,
    code_bytes,
    coded,
    make_tables,
    needs_calibration,
    signatures,
)
from evidence_texts import POOLS, QUERY_SETS, TASKS, Task, Text, positives, read_texts

from rise_ops.baselines.bm25 import bm25_scores
from rise_ops.baselines.random_scores import random_scores
from rise_ops.calibration import Moments
from rise_ops.metrics import auprc_at, full_average_precision, precision_at
from rise_ops.readout import ReadoutHead
from tasks.backbone import load_backbone, load_tokenizer
from tasks.config import ModelConfig

MANY_QUERIES = 100
"""Sets of so many queries are thinned by --query-step."""


_SETTINGS = ("code", "projection", "settings")


@dataclass(frozen=True)
class Bench:
    """Where texts and caches are, and how many texts are used."""

    data: Path
    work: Path
    rows: dict[str, int]
    query_step: int

    def texts(self, name: str) -> list[Text]:
        texts = read_texts(self.data, name)
        if name in QUERY_SETS:
            return texts[:: self.query_step if len(texts) >= MANY_QUERIES else 1]
        return texts[: self.rows.get(name)]

    def readout(self, name: str) -> Readout:
        return load_cache(self.cache(name), len(self.texts(name)))

    def cache(self, name: str) -> Path:
        thinned = name in QUERY_SETS and self.query_step > 1
        return self.work / "cache" / (f"{name}-by-{self.query_step}" if thinned else name)


def main() -> None:
    arguments = _arguments()
    torch.set_grad_enabled(False)
    torch.set_num_threads(arguments.threads)
    rows = {pool: int(n) for pool, _, n in (word.partition("=") for word in arguments.rows)}
    bench = Bench(arguments.data, arguments.work, rows, arguments.query_step)
    model = ModelConfig(name=arguments.model, dtype=arguments.dtype)
    backbone = load_backbone(model, device="cpu")
    for name in _names(arguments.pools):
        build_cache(bench.cache(name), bench.texts(name), load_tokenizer(model), backbone)
    for pool in arguments.pools:
        PoolRun(bench, pool, backbone.head).measure(arguments.groups)
    result = {
        "command": "python benchmarks/evidence.py DATA",
        "machine": machine(),
        "model": {
            "name": Path(backbone.name).name,
            "dtype": backbone.dtype,
            "id": backbone.fingerprint,
        },
        "pools": {pool: _described(bench, pool) for pool in arguments.pools},
    }
    order = {(one.group, one.name): place for place, one in enumerate(estimators(POOLS))}
    records = sorted(
        (record for pool in arguments.pools for record in _records(bench, pool)),
        key=lambda record: order.get((record["group"], record["name"]), -1),
    )
    arguments.output.write_text(_json(result, records))


class PoolRun:
    """Measures every estimator on one pool and its query sets; what is recorded is not redone."""

    def __init__(self, bench: Bench, pool: str, head: ReadoutHead) -> None:
        self.bench, self.pool, self.head = bench, pool, head
        self.tasks = [task for task in TASKS if task.pool == pool]
        self.rows, self.row_readout = bench.texts(pool), bench.readout(pool)
        self.queries = {task.name: bench.texts(task.query_set) for task in self.tasks}
        # only what comes behind the prompt counts; a query without prompt counts whole
        self.query_readouts = {
            task.name: _completions(bench.readout(task.query_set)) for task in self.tasks
        }
        self.residuals: dict[Any, Residuals] = {}
        self.moments: dict[Any, Moments] = {}
        self.path = _record_path(bench, pool)
        self.done = {_key(record) for record in _records(bench, pool)}

    def measure(self, groups: list[str]) -> None:
        """Append the records that are missing."""
        self._baselines()
        for estimator in sorted(estimators(POOLS), key=_residual_key):
            wanted = not groups or estimator.group in groups
            names = {
                (task.name, estimator.group, estimator.name, estimator.seed) for task in self.tasks
            }
            if wanted and not names <= self.done and self._has_calibration(estimator):
                self._measure(estimator)

    def _measure(self, estimator: Estimator) -> None:
        started = time.monotonic()
        moments = self._moments(estimator) if needs_calibration(estimator) else None
        tables = make_tables(estimator, self.head.weight, moments)

        def made(name: str, readout: Readout) -> np.ndarray:
            residuals = self._residuals(name, readout, estimator)
            return signatures(residuals, estimator.settings, self.head, tables).numpy()

        rotate = estimator.code != "float16" and isinstance(estimator.projection, Separable)
        is_masked = estimator.positions == "completion"
        rows = made("rows", _completions(self.row_readout) if is_masked else self.row_readout)
        facts: dict[str, Any] = {
            "numbers": rows.shape[1],
            "bytes": code_bytes(rows.shape[1], estimator.code, rotate=rotate),
            "code": estimator.code,
            "projection": type(estimator.projection).__name__ + str(_plain(estimator.projection)),
            "settings": asdict(estimator.settings),
        }
        if moments is not None:
            facts["calibration_positions"] = moments.n_positions
        if estimator.group == "main" and estimator.seed == 0:
            facts["agreement"] = agreement(
                self.row_readout.first_texts(8), estimator.settings, self.head, tables
            )
        for task in self.tasks:
            queries = made(task.name, self.query_readouts[task.name])
            scores = coded(rows, queries, estimator.code, rotate=rotate)
            facts["seconds"] = round(time.monotonic() - started, 1)
            self._record(task, estimator.group, estimator.name, estimator.seed, scores, facts)

    def _baselines(self) -> None:
        texts = [row.text for row in self.rows]
        lengths = torch.bincount(self.row_readout.text_index, minlength=len(texts)).numpy()
        words = np.array([len(text.split()) for text in texts])
        row_means = _mean_states(self.row_readout)
        for task in self.tasks:
            asked = [query.text for query in self.queries[task.name]]
            means = _mean_states(self.query_readouts[task.name])
            made: list[tuple[str, int, Callable[[], np.ndarray]]] = [
                ("BM25", 0, lambda asked=asked: bm25_scores(texts, asked)),
                ("length in tokens", 0, lambda asked=asked: np.tile(lengths, (len(asked), 1)).T),
                ("length in words", 0, lambda asked=asked: np.tile(words, (len(asked), 1)).T),
                ("mean hidden state", 0, lambda means=means: row_means @ means.T),
            ]
            for seed in range(3):
                made.append(
                    ("random", seed, lambda s=seed, a=asked: random_scores(texts, a, seed=s))
                )
            for name, seed, scores in made:
                if (task.name, "baseline", name, seed) not in self.done:
                    self._record(task, "baseline", name, seed, scores().astype(np.float32), {})

    def _record(
        self,
        task: Task,
        group: str,
        name: str,
        seed: int,
        scores: np.ndarray,
        facts: dict[str, Any],
    ) -> None:
        right = positives(self.rows, self.queries[task.name])
        record = {"task": task.name, "group": group, "name": name, "seed": seed} | facts
        for metric, cuts in ((auprc_at, (10, 50)), (precision_at, (10,))):
            for k in cuts:
                found = metric(scores, right, k=k)
                record[f"{metric.__name__.removesuffix('_at')}@{k}"] = found.value
        ranking = full_average_precision(scores, right)
        record |= {"full_ap": ranking.value, "used": ranking.n_used, "skipped": ranking.n_skipped}
        with self.path.open("a") as stream:
            stream.write(json.dumps(record) + "\n")
        print(f"{task.name:24s} {group} / {name} {seed}: {record['auprc@50']:.3f}", flush=True)

    def _residuals(self, name: str, readout: Readout, estimator: Estimator) -> Residuals:
        key = _residual_key(estimator)
        if any(known[0] != key for known in self.residuals):
            self.residuals.clear()
        if (key, name) not in self.residuals:
            self.residuals[key, name] = Residuals(readout, estimator.settings, self.head.weight)
        return self.residuals[key, name]

    def _moments(self, estimator: Estimator) -> Moments:
        pool = self.pool if estimator.calibration == "own" else estimator.calibration
        settings, n_tokens, seed = estimator.settings, estimator.calibration_tokens, estimator.seed
        key = (pool, _residual_key(estimator), settings, n_tokens, seed)
        if key not in self.moments:
            readout = self.row_readout if pool == self.pool else self.bench.readout(pool)
            if estimator.positions == "completion":
                readout = _completions(readout)
            self.moments[key] = calibrate(
                readout, settings, self.head.weight, n_tokens=n_tokens, seed=seed
            )
        return self.moments[key]

    def _has_calibration(self, estimator: Estimator) -> bool:
        own = estimator.calibration in ("own", self.pool)
        return own or self.bench.cache(estimator.calibration).exists()


def _residual_key(estimator: Estimator) -> tuple[str, float, float, int, int]:
    settings = estimator.settings
    support = (settings.temperature, settings.mass, settings.top_k, settings.min_tokens)
    return (estimator.positions, *support)


def _plain(projection: Any) -> dict[str, Any]:
    return asdict(projection) if isinstance(projection, Separable | Tensor) else vars(projection)


def _completions(readout: Readout) -> Readout:
    return readout.kept(readout.completion)


def _mean_states(readout: Readout) -> np.ndarray:
    sums = torch.zeros(readout.n_texts, readout.hidden.shape[1])
    sums.index_add_(0, readout.text_index, readout.hidden.float())
    return torch.nn.functional.normalize(sums, dim=-1).numpy()


def _names(pools: list[str]) -> list[str]:
    sets = [task.query_set for task in TASKS if task.pool in pools]
    return [*sets, *pools]


def _described(bench: Bench, pool: str) -> dict[str, Any]:
    rows = bench.texts(pool)
    labels = sorted({row.label for row in rows})
    readout = bench.readout(pool)
    return {
        "rows": len(rows),
        "of": len(read_texts(bench.data, pool)),
        "positions": len(readout.text_index),
        "labels": {label: sum(row.label == label for row in rows) for label in labels},
        "median_positions": statistics.median(torch.bincount(readout.text_index).tolist()),
        "queries": {
            task.name: [
                len(bench.texts(task.query_set)),
                len(read_texts(bench.data, task.query_set)),
            ]
            for task in TASKS
            if task.pool == pool
        },
    }


def _record_path(bench: Bench, pool: str) -> Path:
    n_rows = len(bench.texts(pool))
    return bench.work / f"records-{pool}-{n_rows}-by-{bench.query_step}.jsonl"


def _records(bench: Bench, pool: str) -> Iterator[dict[str, Any]]:
    path = _record_path(bench, pool)
    lines: Iterable[str] = path.read_text().splitlines() if path.exists() else []
    return (json.loads(line) for line in lines)


def _json(result: dict[str, Any], records: list[dict[str, Any]]) -> str:
    """Return one line a record, and settings once an estimator."""
    settings: dict[str, Any] = {}
    lines = []
    for record in records:
        own = {name: record[name] for name in _SETTINGS if name in record}
        settings[f"{record['group']} / {record['name']}"] = own
        short = {
            name: round(value, 7) if isinstance(value, float) else value
            for name, value in record.items()
            if name not in _SETTINGS
        }
        lines.append(short)
    return with_records(result | {"estimators": settings}, lines)


def _key(record: dict[str, Any]) -> tuple[str, str, str, int]:
    return record["task"], record["group"], record["name"], record["seed"]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--work", type=Path, default=Path("evidence-work"))
    parser.add_argument("--output", type=Path, default=Path("evidence.json"))
    parser.add_argument("--pools", nargs="*", default=list(POOLS), choices=POOLS)
    parser.add_argument("--groups", nargs="*", default=[])
    parser.add_argument("--rows", nargs="*", default=[], metavar="POOL=N")
    parser.add_argument("--query-step", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
