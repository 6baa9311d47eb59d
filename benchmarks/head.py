"""How fast residuals come out of the read-out head: float32 against the coarse head.

Both give the same residuals: what the coarse head cannot certify goes through the float32 head,
and that time counts. Rounds are interleaved, so that a busy machine slows both; `--threads 1
--clock cpu` counts processor time and is the fairer one on a machine that others use. Run from the
repository:

    python benchmarks/head.py --out head.json
    python benchmarks/head.py --vocab 50304 --hidden 2048      # the shape of Pythia-1B
    python benchmarks/head.py --states states.pt               # real: {"h", "y", "w"} tensors

Without `--states` rows of the weight and hidden states are random, with logits about as peaked as
those of a small language model.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from rise_ops.coarse_head import CoarseResidual, candidates_for, coarse_residual, repair
from rise_ops.coarse_product import CoarseHead, coarse_head, fast_dtype
from rise_ops.readout import ReadoutHead
from rise_ops.residual import ResidualRule, SparseResidual, sparse_residual

RULES = {
    "paper": ResidualRule(0.1, 256, 0.92, 4),
    "compact-64": ResidualRule(1.0, 64, 1.0, 1),
    "compact-256": ResidualRule(1.0, 256, 1.0, 1),
}
FLOAT32_SLICE = 256
"""Positions a slice of the float32 head: it keeps both within the same memory."""


def main() -> None:
    arguments = read_arguments()
    torch.set_num_threads(arguments.threads)
    hidden, targets, weight = read_problem(arguments)
    head = ReadoutHead(weight)
    dtype = getattr(torch, arguments.dtype) if arguments.dtype else fast_dtype(arguments.device)
    coarse = coarse_head(head, dtype=dtype)
    rounds = {
        name: measure(coarse, hidden, targets, RULES[name], arguments) for name in arguments.rules
    }
    result = {"machine": machine(arguments), "shapes": shapes(hidden, head), "dtype": str(dtype)}
    Path(arguments.out).write_text(json.dumps(result | {"rules": rounds}, indent=1) + "\n")
    print(json.dumps(rounds, indent=1))


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocab", type=int, default=49_152)
    parser.add_argument("--hidden", type=int, default=576)
    parser.add_argument("--positions", type=int, default=1_024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--candidates", type=int, default=None, help="default: by the rule")
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default=None)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--states", default=None, help="a torch file with h, y and w")
    parser.add_argument("--out", default="head.json")
    return parser.parse_args()


def read_problem(arguments: argparse.Namespace) -> tuple[torch.Tensor, ...]:
    if arguments.states:
        states = torch.load(arguments.states, map_location=arguments.device)
        n = arguments.positions
        return states["h"][:n].float(), states["y"][:n], states["w"].float()
    g = torch.Generator().manual_seed(0)
    weight = torch.randn(arguments.vocab, arguments.hidden, generator=g).bfloat16().float()
    # logits with a standard deviation of 3, and a target that stands out by about 15
    hidden = torch.randn(arguments.positions, arguments.hidden, generator=g)
    targets = torch.randint(arguments.vocab, (arguments.positions,), generator=g)
    hidden = hidden * (3.0 / arguments.hidden**0.5)
    hidden = hidden + weight[targets] * (15.0 / arguments.hidden)
    return tuple(x.to(arguments.device) for x in (hidden, targets, weight))


def measure(
    coarse: CoarseHead,
    hidden: torch.Tensor,
    targets: torch.Tensor,
    rule: ResidualRule,
    arguments: argparse.Namespace,
) -> dict:
    n_candidates = arguments.candidates or candidates_for(rule, coarse)
    limit = FLOAT32_SLICE * coarse.head.vocab_size * 4

    def exact() -> SparseResidual:
        return float32_residual(coarse.head, hidden, targets, rule)

    def fast() -> CoarseResidual:
        found = coarse_residual(
            coarse, hidden, targets, rule, n_candidates=n_candidates, max_logit_bytes=limit
        )
        return repair(found, coarse.head, hidden, targets, rule, max_logit_bytes=limit)

    found = coarse_residual(
        coarse, hidden, targets, rule, n_candidates=n_candidates, max_logit_bytes=limit
    )
    difference = largest_difference(exact(), fast().residual, coarse.head.vocab_size)
    seconds = interleaved({"float32": exact, "coarse": fast}, arguments)
    ratios = [a / b for a, b in zip(seconds["float32"], seconds["coarse"], strict=True)]
    return {
        "candidates": n_candidates,
        "certified": round(found.certified.float().mean().item(), 5),
        "largest_difference_after_repair": difference,
        "tokens_per_second": {
            name: round(len(hidden) / statistics.median(times)) for name, times in seconds.items()
        },
        "ratio_of_medians": round(
            statistics.median(seconds["float32"]) / statistics.median(seconds["coarse"]), 2
        ),
        "ratios": [round(ratio, 2) for ratio in ratios],
    }


def float32_residual(
    head: ReadoutHead, hidden: torch.Tensor, targets: torch.Tensor, rule: ResidualRule
) -> SparseResidual:
    parts = [
        sparse_residual(head.logits(states), wanted, **vars(rule))
        for states, wanted in zip(
            hidden.split(FLOAT32_SLICE), targets.split(FLOAT32_SLICE), strict=True
        )
    ]
    tokens, values = ([getattr(part, name) for part in parts] for name in ("tokens", "values"))
    return SparseResidual(torch.cat(tokens), torch.cat(values))


def largest_difference(first: SparseResidual, second: SparseResidual, vocab: int) -> float:
    largest = 0.0
    for start in range(0, len(first.tokens), FLOAT32_SLICE):
        part = slice(start, start + FLOAT32_SLICE)
        dense = [
            torch.zeros(len(r.tokens[part]), vocab, device=r.tokens.device).scatter_add_(
                1, r.tokens[part], r.values[part]
            )
            for r in (first, second)
        ]
        largest = max(largest, (dense[0] - dense[1]).abs().max().item())
    return largest


def interleaved(
    functions: dict[str, Callable[[], object]], arguments: argparse.Namespace
) -> dict[str, list[float]]:
    clock = time.process_time if arguments.clock == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(arguments.repeats):
        for name, function in functions.items():
            wait(arguments.device)
            start = clock()
            function()
            wait(arguments.device)
            seconds[name].append(clock() - start)
    return seconds


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def shapes(hidden: torch.Tensor, head: ReadoutHead) -> dict:
    return {"positions": len(hidden), "vocab": head.vocab_size, "hidden": head.hidden_size}


def machine(arguments: argparse.Namespace) -> dict:
    is_cuda = arguments.device.startswith("cuda")
    return {
        "device": torch.cuda.get_device_name() if is_cuda else cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "clock": arguments.clock,
        "torch": importlib.metadata.version("torch"),
        "python": platform.python_version(),
        "states": "real" if arguments.states else "random",
    }


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor()
    lines = info.read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
