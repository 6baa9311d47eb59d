"""What does training on one half of the rows do to each query's loss? Retrained, and kept on disk.

96 rows of 48 tokens from six domains, 36 held-out queries, random halves of the rows. For each half
the model's last four blocks and final norm are trained anew from the same start; what the first
blocks give is made once. One small file a retraining, so that a killed run goes on where it
stopped, and several processes share the work (--part 0/2, --part 1/2). Trainings are the product's
(`tasks.trainer`); `rise evaluate` has a bank for any task.

    python benchmarks/lds_bank.py DATA --bank lds-bank --subsets 40
"""

import argparse
import json
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
from tasks.config import ModelConfig, RuntimeConfig
from tasks.models import resolve_model
from tasks.trainer import Fit, ReadRows, Trainer
from tasks.training_batches import planned_batches
from tasks.training_config import BlocksTraining, TrainingConfig

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
        self.folder, self.items, self.training = folder, items, training
        folder.mkdir(parents=True, exist_ok=True)
        config = TrainingConfig(
            trained=BlocksTraining(blocks=training.blocks),
            epochs=training.epochs,
            batch_rows=training.batch_rows,
            learning_rate=training.learning_rate,
            warmup=training.warmup,
            clip=training.clip,
            max_tokens=TOKENS,
        )
        self.trainer = Trainer(ModelConfig(name=str(model)), config, RuntimeConfig(device="cpu"))
        tokens = [*torch.from_numpy(items.ids)]
        self.rows = self.trainer.read_ids(tokens, [1] * len(tokens))
        n, states = items.n_rows, self.rows.states or []
        self.queries = ReadRows(tokens[n:], [1] * (len(tokens) - n), states[n:])

    def retrain(self, subset: int, seed: int) -> None:
        """Train on a half and record the queries' losses, unless that is done."""
        path = self.folder / f"losses-{subset:03d}-{seed}.json"
        if path.exists():
            return
        started = time.monotonic()
        self.trainer.reset()
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
        self.trainer.reset()
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
        n_rows = self.items.n_rows
        batches = planned_batches(n_rows, rows.tolist(), self.trainer.config, seed=seed)
        fit = Fit(self.trainer, self.rows, batches)
        while fit.step < fit.n_steps:
            fit.advance()
        return [*fit.epoch_losses()]

    def _query_losses(self) -> list[float]:
        return self.trainer.losses(self.queries).tolist()

    def _gradients(self, item: int) -> list[torch.Tensor]:
        loss = self.trainer.batch_losses(self.rows, [item]).sum()
        return [*torch.autograd.grad(loss, [*self.trainer.trained().values()])]


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
