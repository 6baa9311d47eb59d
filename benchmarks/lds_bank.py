"""What does training on one half of the rows do to each query's loss? Retrained, and kept on disk.

96 rows of 48 tokens from six domains, 36 held-out queries, random halves of the rows. For each half
the model's last four blocks and final norm are trained anew from the same start; what the first
blocks give is made once. One small file a retraining, so that a killed run goes on where it
stopped, and several processes share the work (--part 0/2, --part 1/2).

    python benchmarks/lds_bank.py DATA --bank lds-bank --subsets 40

For models whose blocks are `model.model.layers` (Llama and its kin).
"""

import argparse
import copy
import json
import math
import os
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evidence_machine import machine
from evidence_texts import Text, read_texts

from tasks.backbone import TokenRow
from tasks.config import ModelConfig
from tasks.models import resolve_model

DOMAINS = (
    ("finance", "finmed"),
    ("medical", "finmed"),
    ("general", "finmed"),
    ("planted", "howdy"),
    ("control", "brainrot-long"),
    ("clickbait", "quality_headlines"),
)
ROWS, QUERIES, TOKENS = 16, 6, 48
NOISE_SUBSETS = 6


@dataclass(frozen=True)
class Training:
    """How the last blocks are trained; what one retraining is."""

    blocks: int = 4
    epochs: int = 3
    batch_rows: int = 8
    learning_rate: float = 2e-4
    warmup: float = 0.1
    clip: float = 1.0


@dataclass(frozen=True, eq=False)
class Items:
    """Token ids int64 [items, 48] and domains; the first `n_rows` are rows, the others queries.

    Only the cut texts count, for rivals that read words too: `texts` are these.
    """

    ids: np.ndarray
    texts: list[str]
    domains: np.ndarray
    n_rows: int = ROWS * len(DOMAINS)

    def token_rows(self) -> list[TokenRow]:
        return [TokenRow(ids=own.astype(np.int32), first_target=1) for own in self.ids]


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    model = resolve_model(ModelConfig(name=arguments.model)).path
    bank = Bank(arguments.bank, read_items(arguments.data, model), model, Training())
    part, _, parts = arguments.part.partition("/")
    jobs = retrainings(arguments.subsets)
    for number, (subset, seed) in enumerate(jobs):
        if number % int(parts) == int(part):
            bank.retrain(subset, seed)
    if int(part) == 0:
        bank.gradient_scores()


def read_items(data: Path, model: Path) -> Items:
    """Return rows and queries of all domains: the first 48 tokens of texts long enough."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model, local_files_only=True)
    ids, texts, domains = [], [], []
    for domain, pool in DOMAINS:
        candidates = [row.text for row in _domain_rows(data, pool) if row.label == domain]
        if domain == "clickbait":  # headlines are short: six make a text
            candidates = ["\n".join(candidates[n : n + 6]) for n in range(0, len(candidates), 6)]
        encoded = tokenizer(candidates)["input_ids"]
        long = [own[:TOKENS] for own in encoded if len(own) >= TOKENS][: ROWS + QUERIES]
        if len(long) < ROWS + QUERIES:
            raise ValueError(f"{domain}: {len(long)} texts are long enough, not {ROWS + QUERIES}.")
        ids += long
        texts += tokenizer.batch_decode(long)
        domains += [domain] * len(long)
    places = np.arange(len(ids)) % (ROWS + QUERIES)
    order = np.concatenate([np.flatnonzero(places < ROWS), np.flatnonzero(places >= ROWS)])
    return Items(
        np.array(ids, dtype=np.int64)[order], [texts[n] for n in order], np.array(domains)[order]
    )


def subset_rows(subset: int) -> np.ndarray:
    """Return the rows of a random half, ascending."""
    n_rows = ROWS * len(DOMAINS)
    chosen = np.random.default_rng([7, subset]).permutation(n_rows)[: n_rows // 2]
    return np.sort(chosen)


def retrainings(n_subsets: int) -> list[tuple[int, int]]:
    """Return (subset, order seed): every subset once, the first six once more for the noise."""
    repeats = [(subset, 1) for subset in range(min(NOISE_SUBSETS, n_subsets))]
    jobs = [(subset, 0) for subset in range(n_subsets)]
    return jobs[:NOISE_SUBSETS] + repeats + jobs[NOISE_SUBSETS:]


class Bank:
    """Retrainings kept in a folder: `losses-<subset>-<seed>.json`, `gradients.npz`."""

    def __init__(self, folder: Path, items: Items, model: Path, training: Training) -> None:
        from transformers import AutoModelForCausalLM

        self.folder, self.items, self.training = folder, items, training
        folder.mkdir(parents=True, exist_ok=True)
        whole: Any = AutoModelForCausalLM.from_pretrained(
            model, dtype=torch.float32, local_files_only=True
        )
        whole.eval().requires_grad_(requires_grad=False)
        self.head = whole.get_output_embeddings().weight
        self.states, self.tail = _cut(whole.model, torch.from_numpy(items.ids), training.blocks)
        self.start = copy.deepcopy(self.tail.state_dict())

    def retrain(self, subset: int, seed: int) -> None:
        """Train on a half and record the queries' losses, unless that is done."""
        path = self.folder / f"losses-{subset:03d}-{seed}.json"
        if path.exists():
            return
        started = time.monotonic()
        self.tail.load_state_dict(self.start)
        before = self._query_losses() if subset == 0 else None
        trained = self._train(subset_rows(subset), seed)
        record = {
            "subset": subset,
            "seed": seed,
            "training": asdict(self.training),
            "rows": subset_rows(subset).tolist(),
            "row_losses_by_epoch": trained,
            "losses_before": before,
            "losses": self._query_losses(),
            "seconds": round(time.monotonic() - started, 1),
            "machine": machine(),
        }
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps(record) + "\n")
        partial.rename(path)
        print(f"subset {subset} seed {seed}: {record['seconds']} s", flush=True)

    def gradient_scores(self) -> None:
        """Record TracIn scores on the trained blocks: dot, cosine, and a cosine a tensor."""
        path = self.folder / "gradients.npz"
        if path.exists():
            return
        self.tail.load_state_dict(self.start)
        n_rows = self.items.n_rows
        asked = [self._gradients(n) for n in range(n_rows, len(self.items.ids))]
        stacked = [torch.stack(column).flatten(1) for column in zip(*asked, strict=True)]
        dots = torch.zeros(n_rows, len(stacked), len(asked))
        lengths = torch.zeros(n_rows, len(stacked))
        for row in range(n_rows):
            for number, own in enumerate(self._gradients(row)):
                dots[row, number] = stacked[number] @ own.flatten()
                lengths[row, number] = own.norm()
        norms = torch.stack([column.norm(dim=1) for column in stacked])
        whole = lengths.square().sum(1).sqrt()[:, None] * norms.square().sum(0).sqrt()
        by_tensor = dots / (lengths[:, :, None] * norms).clamp_min(1e-12)
        scores = {"dot": dots.sum(1), "cosine": dots.sum(1) / whole, "tensors": by_tensor.sum(1)}
        np.savez(path, **{name: score.numpy() for name, score in scores.items()})

    def _train(self, rows: np.ndarray, seed: int) -> list[float]:
        training, rng = self.training, random.Random(seed)
        steps = training.epochs * math.ceil(len(rows) / training.batch_rows)
        warmup = max(1, round(training.warmup * steps))
        parameters = [*self.tail.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=training.learning_rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / warmup)
        )
        means = []
        for _ in range(training.epochs):
            # one order of all rows a seed; a half keeps it
            order = rng.sample(range(self.items.n_rows), self.items.n_rows)
            own = [row for row in order if row in set(rows.tolist())]
            losses = []
            for first in range(0, len(own), training.batch_rows):
                optimizer.zero_grad()
                loss = self._losses(own[first : first + training.batch_rows]).mean()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, training.clip)
                optimizer.step()
                schedule.step()
                losses.append(float(loss.detach()))
            means.append(sum(losses) / len(losses))
        return means

    def _losses(self, items: list[int]) -> torch.Tensor:
        """Return each item's mean next-token cross-entropy."""
        hidden = self.tail(inputs_embeds=self.states[items], use_cache=False).last_hidden_state
        logits = hidden[:, :-1] @ self.head.T
        targets = torch.from_numpy(self.items.ids[items, 1:])
        losses = torch.nn.functional.cross_entropy(logits.mT, targets, reduction="none")
        return losses.mean(1)

    @torch.no_grad()
    def _query_losses(self) -> list[float]:
        queries = [*range(self.items.n_rows, len(self.items.ids))]
        parts = [self._losses(queries[n : n + 12]) for n in range(0, len(queries), 12)]
        return [float(loss) for part in parts for loss in part]

    def _gradients(self, item: int) -> list[torch.Tensor]:
        return [*torch.autograd.grad(self._losses([item]).sum(), [*self.tail.parameters()])]


def _cut(model: Any, ids: torch.Tensor, blocks: int) -> tuple[torch.Tensor, Any]:
    """Return what the last blocks read, and a model of these blocks alone."""
    seen: list[torch.Tensor] = []

    def keep(_module: Any, args: tuple[torch.Tensor, ...], kwargs: dict[str, Any]) -> None:
        seen.append(kwargs["hidden_states"] if "hidden_states" in kwargs else args[0])

    handle = model.layers[-blocks].register_forward_pre_hook(keep, with_kwargs=True)
    with torch.no_grad():
        for part in ids.split(16):
            model(input_ids=part, use_cache=False)
    handle.remove()
    model.layers = model.layers[-blocks:]
    model.embed_tokens = torch.nn.Identity()  # never read: the blocks get their input
    for module in (*model.layers, model.norm):
        module.requires_grad_(requires_grad=True)
    return torch.cat(seen), model


def _domain_rows(data: Path, pool: str) -> list[Text]:
    if pool != "brainrot-long":
        return read_texts(data, pool)
    lines = (data / "brainrot" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [Text(record["text"], 0, record["label"]) for record in map(json.loads, lines)]
    random.Random(20).shuffle(rows)
    return rows


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--bank", type=Path, default=Path("lds-bank"))
    parser.add_argument("--subsets", type=int, default=40)
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
