"""What RapidIn and TracIn compute of gradients, against sums written out."""

import numpy as np
import pytest
import torch

from rise_ops.baselines.count_sketch import BinnedSketch
from rise_ops.baselines.rapidin import (
    CompressedGradients,
    compressed,
    rapidin_scores,
    unit_tensors,
)
from rise_ops.baselines.tracin import laid_out

SHAPES = [(3, 4), (5,), (2, 2, 2)]


def _gradients(seed: int, *, zero: int | None = None) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(shape, generator=generator) * 10.0**seed for shape in SHAPES]
    if zero is not None:
        made[zero] = torch.zeros(SHAPES[zero])
    return made


def _cosine(x: torch.Tensor, y: torch.Tensor) -> float:
    return float((x * y).sum() / (x.norm() * y.norm()))


def test_the_uncompressed_score_is_a_sum_of_cosines():
    first, second = _gradients(0), _gradients(3)
    found = unit_tensors(first) @ unit_tensors(second)
    expected = sum(_cosine(x, y) for x, y in zip(first, second, strict=True))
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("zero", [None, 1])
@pytest.mark.parametrize("kind", ["uniform", "published"])
def test_the_score_with_itself_counts_the_tensors_that_are_not_zero(zero, kind):
    sketch = BinnedSketch(25, dim=25, kind=kind, seed=3)
    line = compressed(_gradients(2, zero=zero), sketch)
    assert line.dtype == np.float16
    kept = CompressedGradients(line[None], sketch.tables)
    score = rapidin_scores(kept, kept)
    assert score.dtype == np.float32
    assert score[0, 0] == pytest.approx(3 if zero is None else 2, rel=2e-3)


def test_a_zero_gradient_scores_zero():
    sketch = BinnedSketch(25, dim=8, kind="uniform", seed=3)
    nothing = compressed([torch.zeros(shape) for shape in SHAPES], sketch)
    some = compressed(_gradients(1), sketch)
    rows = CompressedGradients(np.stack([nothing, some]), sketch.tables)
    scores = rapidin_scores(rows, rows)
    assert np.isfinite(scores).all()
    assert not scores[0].any()
    assert scores[1, 1] > 0


@pytest.mark.parametrize("change", [{"seed": 4}, {"kind": "published"}, {"dim": 9}, {"n": 26}])
def test_rows_and_queries_of_different_tables_are_refused(change):
    rows, queries = (
        CompressedGradients(np.zeros((1, 8), dtype=np.float16), sketch.tables)
        for sketch in (
            BinnedSketch(**{"n": 25, "dim": 8, "kind": "uniform", "seed": 3}),
            BinnedSketch(**{"n": 25, "dim": 8, "kind": "uniform", "seed": 3} | change),
        )
    )
    with pytest.raises(ValueError, match="do not compare"):
        rapidin_scores(rows, queries)


def test_products_weigh_tensors_as_they_say():
    first, second = _gradients(0), _gradients(1, zero=2)
    whole = [torch.cat([own.flatten() for own in side]) for side in (first, second)]
    expected = {
        "dot": float(whole[0] @ whole[1]),
        "cosine": _cosine(*whole),
        "tensors": _cosine(first[0], second[0]) + _cosine(first[1], second[1]),
    }
    for product, value in expected.items():
        found = laid_out(first, product) @ laid_out(second, product)
        assert float(found) == pytest.approx(value, rel=1e-5)
    assert not laid_out([torch.zeros(3)], "cosine").any()
