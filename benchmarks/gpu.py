"""How fast a GPU makes signatures: the read-out head alone, and tokens to Zarr, in one command.

The shape of Pythia-1B (vocabulary 50,304, hidden size 2,048, 16 layers) with random weights, so
that nothing is fetched; speed does not depend on the values, but for the share of positions that
the coarse head must repair, which is measured too. On a machine with a GPU, from the repository:

    python benchmarks/gpu.py --out docs/performance/gpu.json
    python benchmarks/gpu.py --profile gpu-profile.txt      # where a kernel would pay
    python benchmarks/gpu.py --tiny                         # any machine: does it run?

The head is timed by events on the device, `--calls` calls a round without a host wait between them;
only `repair` waits, once a call. End to end is timed by the clock: token ids on the host, model,
head, sketch, and shards written to `--folder`.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evidence_machine import performance, target, write_record
from head import RULES, random_problem
from speed_timing import in_turns, medians

from rise_ops.coarse_head import candidates_for, coarse_residual, repair
from rise_ops.coarse_product import coarse_head, fast_dtype
from rise_ops.readout import ReadoutHead
from rise_ops.residual import ResidualRule
from rise_ops.signature import Sketcher
from storage.refs import IndexRef
from storage.signatures import SignatureIndex
from tasks.backbone import Backbone, TokenRow, load_backbone
from tasks.config import ModelConfig, RuntimeConfig
from tasks.signature_config import PRESETS
from tasks.sketch_tables import input_sizes, make_tables
from tasks.sketching import sketch_rows
from tasks.space import SignatureSpace, coarse_head_of, sketch_settings


@dataclass(frozen=True)
class Shape:
    """Sizes of a model and of the work."""

    vocab: int
    hidden: int
    layers: int
    attention_heads: int
    positions: int
    rows: int
    row_tokens: int
    batch_tokens: int
    head_bytes: int


PYTHIA_1B = Shape(50_304, 2_048, 16, 8, 65_536, 8_192, 256, 65_536, 2**33)
TINY = Shape(320, 32, 2, 2, 64, 12, 24, 96, 2**20)
HEAD_TARGET, END_TO_END_TARGET = 2_400_000, 225_000
"""Tokens a second: the published figures of the method's own code, on one H200."""

BLOCK_ROWS = 1_024


def main() -> None:
    arguments = read_arguments()
    write_record(measure(TINY if arguments.tiny else PYTHIA_1B, arguments), arguments.out)


def read_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="small shapes: does it run?")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--calls", type=int, default=4, help="of the head a round")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--profile", type=Path, default=None, help="write the profiler's table")
    parser.add_argument("--folder", default=None, help="where weights and shards are written")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    return parser.parse_args(words)


def measure(shape: Shape, arguments: argparse.Namespace) -> dict[str, Any]:
    found, share = head_alone(shape, arguments)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        space = random_space(shape, Path(folder), arguments.device)
        run = partial(end_to_end, shape, space, Path(folder), arguments.device)
        run("warm-up")
        seconds = [run(f"round-{number}") for number in range(arguments.repeats)]
        if arguments.profile:
            arguments.profile.write_text(profiled(lambda: run("profiled"), arguments.device))
    n_tokens = shape.rows * shape.row_tokens
    found["tokens/s, end to end into Zarr"] = round(n_tokens / float(np.median(seconds)))
    return performance(
        shapes=vars(shape),
        medians=found,
        targets=[] if arguments.tiny else speed_targets(),
        device=arguments.device,
        libraries=("zarr",),
        certified=share,
        end_to_end_seconds=[round(s, 4) for s in seconds],
    )


def speed_targets() -> list[dict[str, Any]]:
    return [
        target(
            "GPU, Pythia-1B shapes, read-out head alone",
            "tokens/s, head, paper",
            "tokens/s",
            at_least=HEAD_TARGET,
        ),
        target(
            "GPU, Pythia-1B shapes, end to end into Zarr",
            "tokens/s, end to end into Zarr",
            "tokens/s",
            at_least=END_TO_END_TARGET,
        ),
    ]


# ------------------------------------------------------------------------------ the head alone


def head_alone(
    shape: Shape, arguments: argparse.Namespace
) -> tuple[dict[str, int], dict[str, float]]:
    """Return tokens a second of each rule, and the share of positions certified at once."""
    device = arguments.device
    hidden, targets, weight = random_problem(shape.positions, shape.vocab, shape.hidden, device)
    dtype = torch.bfloat16 if device.startswith("cuda") else fast_dtype(device)
    coarse = coarse_head(ReadoutHead(weight), dtype=dtype, states=torch.bfloat16)
    ways: dict[str, Callable[[], object]] = {}
    share = {}
    for name in arguments.rules:
        rule = fitting(RULES[name], shape.vocab)

        def first_pass(rule: ResidualRule = rule) -> Any:
            return coarse_residual(
                coarse,
                hidden,
                targets,
                rule,
                n_candidates=candidates_for(rule, coarse),
                max_logit_bytes=shape.head_bytes,
            )

        def both(rule: ResidualRule = rule, first_pass: Callable[[], Any] = first_pass) -> Any:
            return repair(
                first_pass(), coarse.head, hidden, targets, rule, max_logit_bytes=shape.head_bytes
            )

        ways[f"head without repair, {name}"] = several(first_pass, arguments.calls)
        ways[f"head, {name}"] = several(both, arguments.calls)
        share[name] = round(first_pass().certified.float().mean().item(), 5)
        both()
    seconds = medians(in_turns(ways, repeats=arguments.repeats, device=device))
    n_tokens = arguments.calls * shape.positions
    return {f"tokens/s, {name}": round(n_tokens / s) for name, s in seconds.items()}, share


def several(call: Callable[[], object], times: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(times):
            call()

    return run


def fitting(rule: ResidualRule, vocab: int) -> ResidualRule:
    return ResidualRule(rule.temperature, min(rule.top_k, vocab), rule.mass, rule.min_tokens)


# ---------------------------------------------------------------------------------- end to end


def random_space(shape: Shape, folder: Path, device: str) -> SignatureSpace:
    """Return the paper's signatures of a model of that shape, with the coarse head."""
    signature = PRESETS["paper"].model_copy(update={"head": "two_pass"})
    backbone = random_backbone(shape, folder / "model", device)
    head = backbone.head
    sketcher = Sketcher(
        head,
        head.weight,
        make_tables(signature.sketch, input_sizes(backbone, signature.sketch), None),
        sketch_settings(signature, vocabulary=head.vocab_size),
        coarse=coarse_head_of(backbone),
    )
    # rows are tokens already: no tokenizer
    return SignatureSpace(backbone, None, sketcher, signature.window)


def random_backbone(shape: Shape, folder: Path, device: str) -> Backbone:
    """Return a GPT-NeoX model with random weights, through a folder as every other model."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.attention_heads,
        intermediate_size=4 * shape.hidden,
        max_position_embeddings=2_048,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = GPTNeoXForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder)
    return load_backbone(ModelConfig(name=str(folder), dtype="bfloat16"), device=device)


def end_to_end(shape: Shape, space: SignatureSpace, folder: Path, device: str, name: str) -> float:
    """Sketch and store every row, as the index stage does; return the seconds."""
    ids = np.random.default_rng(0).integers(0, shape.vocab, (shape.rows, shape.row_tokens))
    rows = [TokenRow(row, 0) for row in ids.astype(np.int32)]
    index = SignatureIndex.create(
        IndexRef(str(folder), name),
        identity={"benchmark": name},
        tables={},
        n_numbers=space.sketcher.n_numbers,
        block_rows=BLOCK_ROWS,
    )
    index.reserve(len(rows))
    runtime = RuntimeConfig(
        device=device, batch_tokens=shape.batch_tokens, head_bytes=shape.head_bytes
    )
    started = time.perf_counter()
    for block, start in enumerate(range(0, len(rows), BLOCK_ROWS)):
        part = rows[start : start + BLOCK_ROWS]
        signatures, n_positions = sketch_rows(
            part, space, runtime, row_ids=[str(n) for n in range(len(part))], where=f"block {block}"
        )
        index.write_block(
            block,
            signatures.astype(np.float16),
            n_positions,
            rows_digest=str(block),
            n_tokens=sum(len(row.ids) for row in part),
        )
    index.commit(["bench"], len(rows))
    return time.perf_counter() - started


def profiled(run: Callable[[], object], device: str) -> str:
    """Return the operators of one end-to-end run, those that take the device longest first."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    if device.startswith("cuda"):
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities, record_shapes=True) as profiler:
        run()
    order = "self_cuda_time_total" if device.startswith("cuda") else "self_cpu_time_total"
    events = profiler.key_averages(group_by_input_shape=True)
    return str(events.table(sort_by=order, row_limit=40, max_shapes_column_width=60))


if __name__ == "__main__":
    main()
