"""The fast path against the literal float64 reference, over every option."""

import itertools

import numpy as np
import pytest
import torch
from parity.reference import Space, row_signature

from rise_ops.readout import ReadoutHead
from rise_ops.signature import RowMean, SignatureSettings, Sketcher
from rise_ops.sketch import SketchTables, TableSizes, draw_tables

VOCAB, HIDDEN, EMBEDDING = 61, 12, 10
DIMS = TableSizes(residual=16, hidden=8, projected=6)

SETTINGS = {
    "paper": SignatureSettings(top_k=20),
    "paper, three channels": SignatureSettings(top_k=20, cross_weight=0.5),
    "true gradient": SignatureSettings(
        temperature=1.0, top_k=VOCAB, mass=1.0, weighting="gradient", cross_weight=0.7
    ),
    "one token of support": SignatureSettings(temperature=1.0, top_k=2, min_tokens=1, mass=0.5),
    "cut at half the mass": SignatureSettings(temperature=1.0, top_k=30, mass=0.5, min_tokens=1),
    "no residual channel": SignatureSettings(top_k=20, residual_weight=0.0),
    "cross channel only": SignatureSettings(
        top_k=20, residual_weight=0.0, projected_weight=0.0, cross_weight=2.0
    ),
}
HEADS = {
    "plain": (False, 1.0, None),
    "bias": (True, 1.0, None),
    "scale": (False, 0.25, None),
    "cap": (False, 1.0, 3.0),
    "everything": (True, 1.7, 2.5),
}


def _float64(x: torch.Tensor) -> np.ndarray:
    return x.double().numpy()


def _space(
    head: ReadoutHead, embedding: torch.Tensor, tables: SketchTables, settings: SignatureSettings
) -> Space:
    sketches = {"residual": tables.residual, "hidden": tables.hidden, "projected": tables.projected}
    return Space(
        W=_float64(head.weight),
        E=_float64(embedding),
        bias=None if head.bias is None else _float64(head.bias),
        scale=head.logit_scale,
        cap=head.soft_cap,
        buckets={name: sketch.buckets.numpy() for name, sketch in sketches.items()},
        signs={name: _float64(sketch.signs) for name, sketch in sketches.items()},
        dims={name: sketch.dim for name, sketch in sketches.items()},
        tau=settings.temperature,
        top_k=settings.top_k,
        mass=settings.mass,
        min_tokens=settings.min_tokens,
        weights=(settings.residual_weight, settings.projected_weight, settings.cross_weight),
        weighting=settings.weighting,
    )


def _compare(head_name: str, settings_name: str, *, device: str = "cpu", spread: float = 1.0):
    g = torch.Generator().manual_seed(7)
    has_bias, scale, cap = HEADS[head_name]
    weight = torch.randn(VOCAB, HIDDEN, generator=g) * spread
    bias = torch.randn(VOCAB, generator=g) if has_bias else None
    head = ReadoutHead(weight, bias, scale, cap)
    embedding = torch.randn(VOCAB, EMBEDDING, generator=g)
    tables = draw_tables(TableSizes(VOCAB, HIDDEN, EMBEDDING), DIMS, seed=3)
    settings = SETTINGS[settings_name]
    # rows of 3, 2 and 1 windows; window lengths differ
    lengths, rows = [5, 1, 7, 4, 6, 3], [0, 0, 0, 1, 1, 2]
    hidden = torch.randn(sum(lengths), HIDDEN, generator=g)
    targets = torch.randint(VOCAB, (sum(lengths),), generator=g)

    sketcher = Sketcher(head.to(device), embedding.to(device), tables, settings)
    features = sketcher.position_features(
        hidden.to(device), targets.to(device), max_logit_bytes=4 * VOCAB * 4
    )
    index = torch.repeat_interleave(torch.arange(6), torch.tensor(lengths)).to(device)
    windows = sketcher.window_signatures(features, index, 6, max_positions=7)
    mean = RowMean(3, sketcher.n_numbers, device)
    mean.add(windows, torch.tensor(rows, device=device))
    found = mean.finish().cpu().numpy()

    space = _space(head, embedding, tables, settings)
    cuts = np.cumsum([0, *lengths])
    parts = [(_float64(hidden[a:b]), targets[a:b].numpy()) for a, b in itertools.pairwise(cuts)]
    for row in range(3):
        own = [part for part, of in zip(parts, rows, strict=True) if of == row]
        np.testing.assert_allclose(found[row], row_signature(space, own), atol=5e-5, rtol=0)


@pytest.mark.parametrize("settings_name", SETTINGS)
def test_rows_equal_the_reference_for_every_setting(settings_name):
    _compare("plain", settings_name)


@pytest.mark.parametrize("settings_name", ["paper, three channels", "true gradient"])
@pytest.mark.parametrize("head_name", HEADS)
def test_rows_equal_the_reference_for_every_head(head_name, settings_name):
    _compare(head_name, settings_name)


def test_rows_equal_the_reference_when_the_model_is_certain():
    # probabilities next to 0 and 1: float32 loses p - 1 unless it is summed from the other side
    _compare("plain", "paper", spread=1.3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_rows_equal_the_reference_on_a_gpu():
    _compare("everything", "paper, three channels", device="cuda")
