"""How fast residuals come out of the read-out head: float32 against the coarse head.

Both give the same residuals: what the coarse head cannot certify goes through the float32 head,
and that time counts. Ways take turns, so that a busy machine slows all; `--threads 1 --clock cpu`
counts processor time and is the fairer one on a machine that others use. Run from the repository:

    python benchmarks/head.py --model smollm2-135m-instruct --out docs/performance/head.json
    python benchmarks/head.py --vocab 50304 --hidden 2048 --positions 512   # shape of Pythia-1B

With a model: its head, and its hidden states on the standard library's docstrings. Without: rows of
the weight and hidden states are random, with logits about as peaked as those of a small model.
"""

import argparse
import os
from functools import partial
from pathlib import Path
from typing import Any

import torch
from evidence_machine import performance, target, write_record
from speed_texts import token_rows
from speed_timing import in_turns, medians

from rise_ops.coarse_head import CoarseResidual, candidates_for, coarse_residual, repair
from rise_ops.coarse_product import CoarseHead, coarse_head, fast_dtype
from rise_ops.readout import ReadoutHead
from rise_ops.residual import ResidualRule, SparseResidual, sparse_residual
from tasks.backbone import load_backbone, load_tokenizer
from tasks.config import ModelConfig
from tasks.signature_config import PRESETS

RULES = {name: ResidualRule(**PRESETS[name].residual.model_dump()) for name in ("paper", "compact")}
"""Those of the presets, by their names."""

PLAIN = "float32 head, paper"
"""What every rule is held against, besides the float32 head of the same rule."""

FLOAT32_SLICE = 256
"""Positions a slice of the float32 head: it keeps both within the same memory."""

WINDOW_TOKENS = 256


def main() -> None:
    arguments = read_arguments()
    torch.set_num_threads(arguments.threads)
    hidden, targets, head = read_problem(arguments)
    dtype = getattr(torch, arguments.dtype) if arguments.dtype else fast_dtype(arguments.device)
    states = torch.float32 if torch.any(hidden != hidden.to(dtype)) else dtype
    coarse = coarse_head(head, dtype=dtype, states=states)
    write_record(measure(coarse, hidden, targets, arguments), arguments.out)


def read_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=None)
    parser.add_argument("--vocab", type=int, default=49_152)
    parser.add_argument("--hidden", type=int, default=576)
    parser.add_argument("--positions", type=int, default=4_096, help="those of one batch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--candidates", type=int, default=None, help="default: by the rule")
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default=None)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("head.json"))
    return parser.parse_args(words)


def read_problem(arguments: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor, ReadoutHead]:
    if arguments.model:
        return real_problem(arguments.model, arguments.positions, arguments.device)
    hidden, targets, weight = random_problem(
        arguments.positions, arguments.vocab, arguments.hidden, arguments.device
    )
    return hidden, targets, ReadoutHead(weight)


def real_problem(
    name: str, n_positions: int, device: str
) -> tuple[torch.Tensor, torch.Tensor, ReadoutHead]:
    config = ModelConfig(name=name)
    backbone = load_backbone(config, device=device)
    states, targets, n_found = [], [], 0
    for row in token_rows(load_tokenizer(config), n_tokens=2 * n_positions, path=None):
        ids = torch.from_numpy(row.ids[:WINDOW_TOKENS]).long().to(device)
        states.append(backbone.hidden_states(ids[None])[0, :-1])
        targets.append(ids[1:])
        n_found += len(ids) - 1
        if n_found >= n_positions:
            break
    return torch.cat(states)[:n_positions], torch.cat(targets)[:n_positions], backbone.head


def random_problem(
    n_positions: int, vocab: int, size: int, device: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator(device).manual_seed(0)
    weight = torch.randn(vocab, size, generator=g, device=device).bfloat16().float()
    targets = torch.randint(vocab, (n_positions,), generator=g, device=device)
    # logits with a standard deviation of 3, and a target that stands out by about 15
    hidden = torch.randn(n_positions, size, generator=g, device=device) * (3.0 / size**0.5)
    hidden = hidden + weight[targets] * (15.0 / size)
    return hidden.bfloat16().float(), targets, weight


def measure(
    coarse: CoarseHead, hidden: torch.Tensor, targets: torch.Tensor, arguments: argparse.Namespace
) -> dict[str, Any]:
    plain = partial(float32_residual, coarse.head, hidden, targets, RULES["paper"])
    ways, exactness = {PLAIN: plain}, {}
    for name in arguments.rules:
        rule = RULES[name]
        n_candidates = arguments.candidates or candidates_for(rule, coarse)
        exact = partial(float32_residual, coarse.head, hidden, targets, rule)
        fast = partial(two_passes, coarse, hidden, targets, rule, n_candidates)
        exactness[name] = compared(exact(), fast(), first_pass(*fast.args), coarse)
        exactness[name]["candidates"] = n_candidates
        ways[f"float32 head, {name}"] = exact
        ways[f"coarse head, {name}"] = fast
    seconds = in_turns(
        ways, repeats=arguments.repeats, device=arguments.device, clock=arguments.clock
    )
    middle = medians(seconds)
    found = {f"tokens/s, {name}": round(len(hidden) / s) for name, s in middle.items()}
    for name in arguments.rules:
        fast_seconds = middle[f"coarse head, {name}"]
        for other in dict.fromkeys([PLAIN, f"float32 head, {name}"]):
            found[f"coarse {name} / {other}"] = round(middle[other] / fast_seconds, 2)
    return performance(
        shapes=shapes(hidden, coarse.head) | {"states": arguments.model or "random"},
        medians=found,
        targets=[
            target(
                f"read-out head, rule of `{name}`, against the float32 head of `paper`",
                f"coarse {name} / {PLAIN}",
                "x",
                at_least=3.0,
            )
            for name in arguments.rules
        ],
        device=arguments.device,
        clock=arguments.clock,
        dtype=str(coarse.weight.dtype),
        exactness=exactness,
        seconds={name: [round(s, 4) for s in values] for name, values in seconds.items()},
    )


def first_pass(
    coarse: CoarseHead,
    hidden: torch.Tensor,
    targets: torch.Tensor,
    rule: ResidualRule,
    n_candidates: int,
) -> CoarseResidual:
    return coarse_residual(
        coarse,
        hidden,
        targets,
        rule,
        n_candidates=n_candidates,
        max_logit_bytes=logit_bytes(coarse),
    )


def two_passes(
    coarse: CoarseHead,
    hidden: torch.Tensor,
    targets: torch.Tensor,
    rule: ResidualRule,
    n_candidates: int,
) -> SparseResidual:
    found = first_pass(coarse, hidden, targets, rule, n_candidates)
    limit = logit_bytes(coarse)
    return repair(found, coarse.head, hidden, targets, rule, max_logit_bytes=limit).residual


def logit_bytes(coarse: CoarseHead) -> int:
    return FLOAT32_SLICE * coarse.head.vocab_size * 4


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


def compared(
    exact: SparseResidual, fast: SparseResidual, found: CoarseResidual, coarse: CoarseHead
) -> dict[str, float]:
    return {
        "certified": round(found.certified.float().mean().item(), 5),
        "largest_difference_after_repair": largest_difference(exact, fast, coarse.head.vocab_size),
    }


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


def shapes(hidden: torch.Tensor, head: ReadoutHead) -> dict[str, Any]:
    return {"positions": len(hidden), "vocab": head.vocab_size, "hidden": head.hidden_size}


if __name__ == "__main__":
    main()
