"""Which scores foretell what training really does? The linear datamodeling score (LDS).

    python benchmarks/lds_bank.py DATA --bank lds-bank             # retrainings, once
    python benchmarks/lds.py DATA --bank lds-bank --evidence evidence-work --output lds.json

For every retrained half of the rows a method foretells a query's loss by the sum of its rows'
scores (higher = lower loss). LDS: rank correlation over the halves of what was foretold and what
came, mean over queries. --evidence has the cached pools of evidence.py, for the calibration. Scores
are kept in the bank's folder; delete scores.npz there to make them anew.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evidence_cache import Readout, load_cache, read_out
from evidence_estimators import (
    COMPACT,
    DAMPING,
    DAMPINGS,
    MASSES,
    PAPER,
    SIZES,
    SMALL,
    TEMPERATURES,
    Estimator,
    Separable,
    Tensor,
    principal,
)
from evidence_machine import machine, with_records
from evidence_signatures import (
    Residuals,
    calibrate,
    code_bytes,
    coded,
    make_tables,
    signatures,
)
from evidence_texts import POOLS
from lds_bank import Items, read_items, subset_rows
from lds_controls import tfidf_scores
from lds_kernels import exact_scores

from rise_ops.baselines.bm25 import bm25_scores
from rise_ops.calibration import Moments, principal_basis
from rise_ops.lds import rank_correlations
from rise_ops.principal import PrincipalSettings
from rise_ops.readout import ReadoutHead
from rise_ops.signature import SignatureSettings
from tasks.backbone import load_backbone
from tasks.config import ModelConfig
from tasks.models import resolve_model

CALIBRATION_TOKENS = 20_000
SEEDS = (0, 1, 2)
RESAMPLES = 1_000

Named = Iterator[tuple[str, int | None, np.ndarray]]
"""Name, bytes a row, scores [rows, queries]."""


def main() -> None:
    arguments = _arguments()
    torch.set_grad_enabled(False)
    torch.set_num_threads(arguments.threads)
    model = ModelConfig(name=arguments.model, dtype=arguments.dtype)
    backbone = load_backbone(model, device="cpu")
    items = read_items(arguments.data, resolve_model(model).path)
    bank = _bank(arguments.bank)
    kept = arguments.bank / "scores.npz"
    if not kept.exists():
        readout = read_out(items.token_rows(), backbone)
        signed = Signed(readout, items, backbone.head, arguments.evidence)
        _keep(kept, _methods(items, signed), signed)
    records = [
        {"name": name, "bytes": size} | lds(scores, bank["subsets"], bank["losses"])
        for name, size, scores in (*_kept(kept), *_gradients(arguments.bank))
    ]
    with np.load(kept) as stored:
        calibration = int(stored["calibration_positions"])
    result = {
        "command": "python benchmarks/lds.py DATA",
        "machine": machine(),
        "model": {
            "name": Path(backbone.name).name,
            "dtype": backbone.dtype,
            "id": backbone.fingerprint,
        },
        "items": {"rows": items.n_rows, "queries": len(items.ids) - items.n_rows, "tokens": 48},
        "calibration_positions": calibration,
        **bank["facts"],
    }
    arguments.output.write_text(with_records(result, records))
    for record in records:
        print(f"{record['name']:62s} {record['bytes'] or '':>6} {record['lds']:.3f}")


def lds(scores: np.ndarray, subsets: np.ndarray, losses: np.ndarray) -> dict[str, Any]:
    """Return the LDS of scores with its spread.

    Args:
        scores: [rows, queries].
        subsets: Whether a row is in a half, bool [halves, rows].
        losses: After training on a half, [halves, queries].
    """
    foretold = subsets.astype(np.float64) @ scores
    by_query = rank_correlations(foretold, -losses)
    rng = np.random.default_rng(0)
    drawn = by_query[rng.integers(0, len(by_query), (RESAMPLES, len(by_query)))].mean(1)
    halves = [rng.integers(0, len(losses), len(losses)) for _ in range(200)]
    resampled = [rank_correlations(foretold[own], -losses[own]).mean() for own in halves]
    return {
        "lds": float(by_query.mean()),
        "interval": [float(end) for end in np.percentile(drawn, [2.5, 97.5])],
        "deviation_over_halves": float(np.std(resampled)),
        "by_query": [round(float(value), 4) for value in by_query],
    }


class Signed:
    """Scores of estimators on the items of the bank."""

    def __init__(self, readout: Readout, items: Items, head: ReadoutHead, evidence: Path) -> None:
        self.readout, self.items, self.head = readout, items, head
        self.pools = [
            load_cache(evidence / "cache" / pool, 600)
            for pool in POOLS
            if (evidence / "cache" / pool).exists()
        ]
        self.pools_positions = 0
        self.rows = readout.kept(readout.text_index < items.n_rows)
        self._moments: dict[Any, Moments] = {}

    def scores(self, estimator: Estimator) -> tuple[int, np.ndarray]:
        """Return bytes a row and scores [rows, queries]."""
        own = isinstance(estimator.projection, PrincipalSettings) or estimator.projection.whiten
        moments = self.moments(estimator) if own else None
        tables = make_tables(estimator, self.head.weight, moments)
        residuals = Residuals(self.readout, estimator.settings, self.head.weight)
        made = signatures(residuals, estimator.settings, self.head, tables).numpy()
        rotate = estimator.code != "float16" and isinstance(estimator.projection, Separable)
        n = self.items.n_rows
        size = code_bytes(made.shape[1], estimator.code, rotate=rotate)
        return size, coded(made[:n], made[n:], estimator.code, rotate=rotate)

    def moments(self, estimator: Estimator) -> Moments:
        """Return the moments of all pools, or of the rows of the bank alone."""
        settings, seed = estimator.settings, estimator.seed
        key = (estimator.calibration, settings, seed)
        if key not in self._moments:
            texts = [self.rows] if estimator.calibration == "rows" else self.pools
            found = Moments()
            for readout in texts:
                more = calibrate(
                    readout, settings, self.head.weight, n_tokens=CALIBRATION_TOKENS, seed=seed
                )
                found = found.merge(more)
            self._moments[key] = found
            if estimator.calibration != "rows":
                self.pools_positions = found.n_positions
        return self._moments[key]

    def exact(self, settings: SignatureSettings, **options: Any) -> np.ndarray:
        """Return unsketched scores."""
        n_rows = self.items.n_rows
        return exact_scores(self.readout, settings, self.head.weight, n_rows, **options).numpy()

    def whitening(self) -> torch.Tensor:
        """Return the full whitening of the hidden state, damping 1."""
        base = Estimator("", "", COMPACT, principal(64, 64))
        second = self.moments(base).second_moment("hidden")
        return principal_basis(second, n_directions=len(second), whiten=True, damping=1.0).matrix


def _methods(items: Items, signed: Signed) -> Named:
    yield from _controls(items, signed)
    yield from _exact(signed)
    for estimator in _estimators():
        size, scores = signed.scores(estimator)
        yield f"{estimator.name}, seed {estimator.seed}", size, scores


def _keep(path: Path, methods: Named, signed: Signed) -> None:
    names, sizes, scores = zip(*methods, strict=True)
    np.savez(
        path,
        names=np.array(names),
        sizes=np.array([size or 0 for size in sizes]),
        scores=np.array([np.asarray(own, dtype=np.float64) for own in scores]),
        calibration_positions=signed.pools_positions,
    )


def _kept(path: Path) -> Named:
    with np.load(path) as stored:
        names, sizes, scores = (stored[name] for name in ("names", "sizes", "scores"))
    for name, size, own in zip(names, sizes, scores, strict=True):
        yield str(name), int(size) or None, own


def _gradients(bank: Path) -> Named:
    with np.load(bank / "gradients.npz") as stored:
        yield "TracIn, trained blocks, inner product", None, stored["dot"]
        yield "TracIn, trained blocks, cosine", None, stored["cosine"]
        yield "RapidIn's score, trained blocks (a cosine a tensor)", None, stored["tensors"]


def _controls(items: Items, signed: Signed) -> Named:
    n = items.n_rows
    rows, queries = items.texts[:n], items.texts[n:]
    rng = np.random.default_rng(0)
    _, best = signed.scores(Estimator("", "", COMPACT, principal(64, 64), code="sign"))
    yield "shuffled scores (of 512 B)", None, best[rng.permutation(n)]
    for seed in SEEDS:
        yield f"random, seed {seed}", None, np.random.default_rng(seed).random(best.shape)
    same = items.domains[:n, None] == items.domains[None, n:]
    yield "same domain", None, same.astype(np.float32)
    yield "BM25", None, bm25_scores(rows, queries)
    yield "TF-IDF cosine", None, tfidf_scores(rows, queries)
    sums = torch.zeros(len(items.ids), signed.readout.hidden.shape[1])
    sums.index_add_(0, signed.readout.text_index, signed.readout.hidden.float())
    means = torch.nn.functional.normalize(sums, dim=-1).numpy()
    yield "mean hidden state cosine", None, means[:n] @ means[n:].T


def _exact(signed: Signed) -> Named:
    true = replace(PAPER, temperature=1.0, mass=1.0, weighting="gradient", projected_weight=0.0)
    both = replace(true, projected_weight=1.0)
    unit1 = replace(PAPER, temperature=1.0, mass=1.0)
    yield "unsketched: paper kernel, temperature 0.1", None, signed.exact(PAPER)
    yield "unsketched: paper kernel, temperature 1", None, signed.exact(unit1)
    yield "unsketched: read-out gradient, inner product", None, signed.exact(true, normalized=False)
    yield "unsketched: read-out gradient, cosine", None, signed.exact(true)
    errors = replace(both, residual_weight=0.0)
    yield "unsketched: GH, temperature 1", None, signed.exact(errors)
    whitening = signed.whitening()
    yield "unsketched: GH, h whitened", None, signed.exact(errors, whitening=whitening)
    yield "unsketched: RH, h whitened", None, signed.exact(true, whitening=whitening)
    yield "unsketched: RH + GH, h whitened", None, signed.exact(both, whitening=whitening)


def _estimators() -> Iterator[Estimator]:
    yield from _random_ones()
    yield from _calibrated_twice()
    yield from _around_compact()
    yield from _other_principal()


def _base(
    name: str, projection: Any, code: Any = "float16", settings: SignatureSettings = COMPACT
) -> Estimator:
    return Estimator(name, "lds", settings, projection, code=code)


def _random_ones() -> Iterator[Estimator]:
    for name, projection, settings in (
        ("paper, 24,576 numbers", Separable(), PAPER),
        ("paper, 4,096 numbers", Separable(48, 64, 16), SMALL),
        ("paper, 352 numbers", Separable(16, 8, 28), SMALL),
        ("paper, temperature 0.5", Separable(), replace(PAPER, temperature=0.5)),
        ("paper, temperature 1", Separable(), replace(PAPER, temperature=1.0)),
        ("tensor sketch of the paper's, 4,096 numbers", Tensor(3_072, 1_024), SMALL),
    ):
        for seed in SEEDS:
            yield replace(_base(name, projection, settings=settings), seed=seed)


def _calibrated_twice() -> Iterator[Estimator]:
    for calibration, note in (("own", ""), ("rows", ", calibrated on the 96 rows")):
        for name, projection, code in SIZES:
            made = _base(f"compact, {name}{note}", projection, code)
            for seed in SEEDS if calibration == "own" else SEEDS[:1]:
                yield replace(made, calibration=calibration, seed=seed)


def _around_compact() -> Iterator[Estimator]:
    sizes = {name: (projection, code) for name, projection, code in SIZES}
    for name, (projection, code) in sizes.items():
        for temperature in TEMPERATURES if name != "256 B" else ():
            settings = replace(COMPACT, temperature=temperature)
            yield _base(f"compact, {name}, temperature {temperature:g}", projection, code, settings)
    for size in ("512 B", "16 KiB"):
        projection, code = sizes[size]
        for mass in MASSES:
            settings = replace(COMPACT, mass=mass)
            yield _base(f"compact, {size}, mass {mass:g}", projection, code, settings)
        for damping in DAMPINGS:
            other = replace(projection, damping=damping)
            yield _base(f"compact, {size}, damping {damping:g}", other, code)
    wide = replace(COMPACT, top_k=256)
    for size, (projection, code) in sizes.items():
        for seed in SEEDS:
            yield replace(_base(f"compact, {size}, support 256", projection, code, wide), seed=seed)
    projection, code = sizes["512 B"]
    whole = replace(wide, mass=1.0)
    yield _base("compact, 512 B, support 256, mass 1", projection, code, whole)


def _other_principal() -> Iterator[Estimator]:
    for errors, hidden, whiten, code in (
        (32, 128, "hidden", "sign"),
        (128, 32, "hidden", "sign"),
        (256, 64, "hidden", "sign"),
        (64, 64, "both", "sign"),
        (64, 64, "none", "sign"),
        (64, 64, "both", "int8"),
        (64, 64, "none", "int8"),
        (64, 64, "hidden", "int8"),
        (128, 32, "both", "int8"),
        (64, 128, "both", "int8"),
        (128, 128, "both", "int8"),
        (256, 64, "hidden", "int8"),
    ):
        name = f"{errors} x {hidden}, whitened: {whiten}, {code}"
        yield _base(name, principal(errors, hidden, whiten), code)
    unit = replace(COMPACT, weighting="unit")
    yield _base("compact, 512 B, unit weighting", principal(64, 64), "sign", unit)
    with_rh = replace(COMPACT, residual_weight=1.0)
    bases = PrincipalSettings(64, 64, 64, whiten="both", damping=DAMPING)
    for code in ("sign", "int8"):
        yield _base(f"GH + RH, 64 x 64 each, both whitened, {code}", bases, code, with_rh)


def _bank(folder: Path) -> dict[str, Any]:
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("losses-*.json"))]
    first = {one["subset"]: one for one in found if one["seed"] == 0}
    again = {one["subset"]: one for one in found if one["seed"] == 1 and one["subset"] in first}
    losses = np.array([one["losses"] for one in first.values()])
    subsets = np.zeros((len(first), 96), dtype=bool)
    for line, subset in enumerate(first):
        subsets[line, subset_rows(subset)] = True
    if not again:
        raise ValueError(f"{folder} holds no half that was trained twice; let the bank finish.")
    pairs = np.array([[first[subset]["losses"], one["losses"]] for subset, one in again.items()])
    facts = {
        "halves": len(first),
        "training": found[0]["training"],
        "seconds_a_retraining": float(np.median([one["seconds"] for one in found])),
        "loss_before": float(np.mean(first[0]["losses_before"])),
        "loss_after": float(losses.mean()),
        "noise": _noise(losses, pairs[:, 0], pairs[:, 1]),
    }
    return {"losses": losses, "subsets": subsets, "facts": facts}


def _noise(losses: np.ndarray, first: np.ndarray, again: np.ndarray) -> dict[str, Any]:
    """Return how far trainings of equal halves differ; a shift of all halves alike counts too.

    `rise_ops.lds.noise_of` leaves that shift out, and so finds a little less noise.
    """
    noise = ((first - again) ** 2 / 2).mean(0)
    total = losses.var(0, ddof=1)
    return {
        "halves": len(first),
        "deviation_between_seeds": float(np.sqrt(noise.mean())),
        "deviation_between_halves": float(np.sqrt(total.mean())),
        "best_correlation": float(np.sqrt(np.clip(1 - noise / total, 0, 1)).mean()),
        "seed_to_seed_lds": float(rank_correlations(first, again).mean()),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--bank", type=Path, default=Path("lds-bank"))
    parser.add_argument("--evidence", type=Path, default=Path("evidence-work"))
    parser.add_argument("--output", type=Path, default=Path("lds.json"))
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
