"""How fast rows become signatures, everything counted: float32 everywhere against what is faster.

The pipeline's own loop over real rows (model, read-out head, sketch), in ways that differ in number
format, head and preset and take turns. Beside the speed: how far the signatures of a way are from
those of float32 everywhere, how far batches of another size move them, and, given labelled rows,
what becomes of the retrieval metrics. Run from the repository:

    python benchmarks/extraction.py --out docs/performance/extraction.json
    python benchmarks/extraction.py --labelled FOLDER      # as benchmarks/retrieval.py takes it
    python benchmarks/extraction.py --rows rows.jsonl --threads 1 --clock cpu

The calibrated tables of `compact` are made once, in float32, so that its ways share one space.
"""

import argparse
import os
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evidence_machine import performance, target, write_record
from retrieval import labelled_rows, measured_queries
from speed_texts import token_rows
from speed_timing import in_turns, medians

from rise_ops.projection import ProjectionTables
from storage.refs import CorpusRef, IndexRef
from tasks.backbone import TokenRow, load_backbone, load_tokenizer
from tasks.config import IndexConfig, ModelConfig, RuntimeConfig
from tasks.corpus import ingest
from tasks.signature_config import PRESETS, SignatureConfig
from tasks.signatures import build_index
from tasks.sketch_tables import input_sizes, make_tables, measuring_signature, measuring_tables
from tasks.sketching import measure_moments, sketch_rows
from tasks.space import SignatureSpace, make_space


@dataclass(frozen=True)
class Way:
    """A preset with a number format of the model and a head."""

    preset: str
    dtype: str
    head: str

    @property
    def name(self) -> str:
        return f"{self.preset}, {self.dtype} model, {self.head} head"

    @property
    def exact(self) -> "Way":
        """The same preset with float32 everywhere."""
        return Way(self.preset, "float32", "float32")

    @property
    def signature(self) -> SignatureConfig:
        return PRESETS[self.preset].model_copy(update={"head": self.head})


WAYS = [
    Way("paper", "float32", "float32"),
    Way("paper", "bfloat16", "float32"),
    Way("paper", "bfloat16", "two_pass"),
    Way("compact", "float32", "float32"),
    Way("compact", "bfloat16", "two_pass"),
]
PLAIN = WAYS[0]
FAST = [way for way in WAYS if way.head == "two_pass"]
OTHER_BATCH_TOKENS = 700
"""Re-batching: so few tokens at a time instead of the default."""


def main() -> None:
    arguments = read_arguments()
    torch.set_num_threads(arguments.threads)
    rows = token_rows(
        load_tokenizer(ModelConfig(name=arguments.model)),
        n_tokens=arguments.tokens,
        path=arguments.rows,
    )
    write_record(measure(rows, arguments), arguments.out)


def read_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--rows", type=Path, default=None, help="JSON Lines; default: docstrings")
    parser.add_argument("--tokens", type=int, default=12_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--labelled", type=Path, default=None, help="folder of labelled rows")
    parser.add_argument("--out", type=Path, default=Path("extraction.json"))
    return parser.parse_args(words)


def measure(rows: list[TokenRow], arguments: argparse.Namespace) -> dict[str, Any]:
    spaces = make_spaces(rows, arguments)
    runtime = RuntimeConfig(device=arguments.device)
    device = spaces[PLAIN].backbone.device
    few = RuntimeConfig(device=arguments.device, batch_tokens=OTHER_BATCH_TOKENS)
    found = {way: signatures(rows, spaces[way], runtime) for way in WAYS}
    moved = {way.name: likeness(found[way], signatures(rows, spaces[way], few)) for way in FAST}
    seconds = in_turns(
        {way.name: partial(signatures, rows, spaces[way], runtime) for way in WAYS},
        repeats=arguments.repeats,
        device=device,
        clock=arguments.clock,
    )
    middle = medians(seconds)
    n_tokens = sum(len(row.ids) for row in rows)
    speeds = {f"tokens/s, {name}": round(n_tokens / s, 1) for name, s in middle.items()}
    ratios = {f"{way.name} / plain": ratio(middle, way) for way in WAYS[1:]}
    metrics, targets = {}, speed_targets()
    if arguments.labelled:
        metrics = {
            way.name: retrieval_metrics(way, arguments)
            for fast in FAST
            for way in (fast.exact, fast)
        }
        changes = metric_changes(metrics)
        ratios |= changes
        targets += [
            target(f"change by bfloat16 and two_pass: {name}", name, "", at_most=0.01)
            for name in changes
        ]
    return performance(
        shapes={"model": arguments.model, "rows": len(rows), "tokens": n_tokens},
        medians=speeds | ratios,
        targets=targets,
        device=device,
        clock=arguments.clock,
        cosine_to_float32={way.name: likeness(found[way.exact], found[way]) for way in WAYS},
        cosine_between_batch_sizes=moved,
        retrieval=metrics,
        seconds={name: [round(s, 3) for s in values] for name, values in seconds.items()},
    )


def make_spaces(rows: list[TokenRow], arguments: argparse.Namespace) -> dict[Way, SignatureSpace]:
    device = arguments.device
    tables: dict[str, ProjectionTables] = {}
    spaces: dict[Way, SignatureSpace] = {}
    for way in sorted(WAYS, key=lambda way: way.dtype, reverse=True):  # one model after the other
        model = ModelConfig(name=arguments.model, dtype=way.dtype)
        if way.preset not in tables:
            tables[way.preset] = calibrated(rows, way.exact, model, device)
        spaces[way] = make_space(model, way.signature, tables[way.preset], device=device)
    return spaces


def calibrated(rows: list[TokenRow], way: Way, model: ModelConfig, device: str) -> ProjectionTables:
    sketch = way.signature.sketch
    sizes = input_sizes(load_backbone(model, device=device), sketch)
    if not sketch.is_calibrated:
        return make_tables(sketch, sizes, None)
    plain = measuring_signature(way.signature)
    space = make_space(model, plain, measuring_tables(plain.sketch, sizes), device=device)
    moments = measure_moments(
        rows, space, RuntimeConfig(device=device), row_ids=names(rows), where="benchmark"
    )
    return make_tables(sketch, sizes, moments)


def signatures(rows: list[TokenRow], space: SignatureSpace, runtime: RuntimeConfig) -> np.ndarray:
    return sketch_rows(rows, space, runtime, row_ids=names(rows), where="benchmark")[0]


def names(rows: list[TokenRow]) -> list[str]:
    return [str(number) for number in range(len(rows))]


def ratio(seconds: dict[str, float], way: Way) -> float:
    return round(seconds[PLAIN.name] / seconds[way.name], 2)


def likeness(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Return the median and the lowest cosine of two sets of signatures of length 1."""
    cosines = (first.astype(np.float64) * second).sum(axis=1)
    return {"median": round(float(np.median(cosines)), 6), "lowest": round(float(cosines.min()), 6)}


def speed_targets() -> list[dict[str, Any]]:
    return [
        target(
            f"whole extraction, `{way.preset}`, bfloat16 and two_pass, against float32 everywhere",
            f"{way.name} / plain",
            "x",
            at_least=2.5,
        )
        for way in FAST
    ]


def retrieval_metrics(way: Way, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return the metrics of each query set, through the whole pipeline."""
    config = IndexConfig(
        model=ModelConfig(name=arguments.model, dtype=way.dtype), signature=way.signature
    )
    runtime = RuntimeConfig(device=arguments.device)
    with tempfile.TemporaryDirectory() as store:
        corpus, index = CorpusRef(store, "bench"), IndexRef(store, "bench")
        ingest(corpus, labelled_rows(arguments.labelled / "train.jsonl"), config.model)
        build_index(index, corpus, config, runtime)
        return {
            path.stem: measured_queries(store, index, path, runtime)[0]["metrics"]
            for path in sorted(arguments.labelled.glob("queries*.jsonl"))
        }


def metric_changes(metrics: dict[str, dict[str, dict[str, float]]]) -> dict[str, float]:
    """Return each metric's largest change over the query sets, against float32 of the preset."""
    changes = {}
    for fast in FAST:
        before, after = metrics[fast.exact.name], metrics[fast.name]
        for metric in next(iter(before.values())):
            moved = [abs(after[queries][metric] - before[queries][metric]) for queries in before]
            changes[f"{metric}, `{fast.preset}`"] = round(max(moved), 4)
    return changes


if __name__ == "__main__":
    main()
