"""The arithmetic behind docs/evidence.md, held against small oracles."""

import math
import re
from itertools import product

import numpy as np
import pytest
import torch
from evidence_cache import Readout
from evidence_estimators import CALIBRATION_TOKENS, COMPACT, SIZES
from evidence_tables import filled
from evidence_texts import TRIGGER, Text, moved_trigger, positives
from lds import lds
from lds_bank import subset_rows
from lds_controls import tfidf_scores
from lds_kernels import exact_scores
from scipy.stats import spearmanr

from rise_ops.residual import sparse_residual
from rise_ops.signature import SignatureSettings
from tasks.signature_config import PRESETS
from tasks.space import sketch_settings

VOCAB = 300
MEASURED = {
    "256 B": "compact-256",
    "512 B": "compact",
    "2 KiB": "compact-2k",
    "8 KiB": "compact-8k",
    "16 KiB": "compact-16k",
}


def test_lds_is_the_mean_rank_correlation_with_what_training_did():
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((12, 3)).round(1)  # some sums tie
    subsets = rng.random((9, 12)) < 0.5
    losses = rng.standard_normal((9, 3)).round(1)
    expected = [
        spearmanr(subsets @ scores[:, query], -losses[:, query]).statistic for query in range(3)
    ]
    found = lds(scores, subsets, losses)
    assert found["lds"] == pytest.approx(np.mean(expected))
    assert found["by_query"] == pytest.approx(expected, abs=1e-4)
    low, high = found["interval"]
    assert min(expected) - 1e-9 <= low <= found["lds"] <= high <= max(expected) + 1e-9


def test_lds_of_losses_foretold_is_one_and_of_a_constant_nothing():
    subsets = np.eye(5, dtype=bool)
    scores = np.arange(10.0).reshape(5, 2)
    assert lds(scores, subsets, -scores)["lds"] == pytest.approx(1.0)
    assert lds(scores, subsets, scores)["lds"] == pytest.approx(-1.0)
    assert lds(np.ones((5, 2)), subsets, scores)["lds"] == 0.0


def test_halves_are_halves_and_always_the_same():
    first, again, other = subset_rows(3), subset_rows(3), subset_rows(4)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len(np.unique(first)) == len(first) == len(other)
    assert (np.diff(first) > 0).all()


def test_tfidf_equals_its_formula():
    rows = ["a red fox", "red red wine", "blue sky Sky"]
    queries = ["Red sky", "nothing shared", ""]

    def weights(text):
        words = re.findall(r"\w\w+", text.lower())
        in_rows = {w: sum(w in re.findall(r"\w\w+", row.lower()) for row in rows) for w in words}
        return {w: words.count(w) * (math.log(4 / (1 + in_rows[w])) + 1) for w in words}

    def cosine(left, right):
        lengths = [math.sqrt(sum(x * x for x in side.values())) for side in (left, right)]
        shared = sum(left[w] * right[w] for w in left.keys() & right.keys())
        return shared / (lengths[0] * lengths[1]) if all(lengths) else 0.0

    expected = [[cosine(weights(row), weights(query)) for query in queries] for row in rows]
    np.testing.assert_allclose(tfidf_scores(rows, queries), expected, atol=1e-12)


def test_positives_share_a_label():
    rows = [Text("r", 0, label) for label in ("x", "y")]
    queries = [Text("q", 0, label) for label in ("y", "z", "x")]
    assert positives(rows, queries).tolist() == [[False, False, True], [True, False, False]]


def test_a_moved_trigger_keeps_every_word_and_leaves_the_front():
    query = Text(f"{TRIGGER} what is the time now?", 0, "planted")
    for seed in range(5):
        moved = moved_trigger(query, seed)
        assert sorted(moved.text.split()) == sorted(query.text.split())
        assert not moved.text.startswith(TRIGGER)
    with pytest.raises(ValueError, match="begins with"):
        moved_trigger(Text("no trigger", 0, ""), 0)


def test_only_what_is_between_a_names_markers_changes():
    text = "a\n<!-- t:begin -->\nold\n<!-- t:end -->\n<!-- u:begin --><!-- u:end -->\n"
    assert filled(text, "t", r"n\1w") == text.replace("old", r"n\1w")
    with pytest.raises(ValueError, match="lacks the markers"):
        filled(text, "v", "new")


@pytest.mark.parametrize(("size", "preset"), MEASURED.items())
def test_what_was_measured_is_what_the_preset_makes(size, preset):
    signature = PRESETS[preset]
    projection, code = {name: (projection, code) for name, projection, code in SIZES}[size]
    assert sketch_settings(signature, vocabulary=49_152) == COMPACT
    assert signature.code == code
    made = vars(signature.sketch)
    assert {name: made[name] for name in vars(projection)} == vars(projection)
    assert signature.sketch.calibration_tokens == CALIBRATION_TOKENS


@pytest.mark.parametrize("weighting", ["unit", "gradient"])
def test_exact_scores_equal_loops_over_pairs_of_positions(weighting):
    texts, n_rows = torch.tensor([0, 0, 1, 2, 2]), 2
    readout, settings, embedding = small_readout(texts, weighting)
    residual = readout.residual(slice(None), settings)
    dense = torch.zeros(len(texts), VOCAB, dtype=torch.float64)
    dense.scatter_add_(1, residual.tokens.long(), residual.values.double())
    hidden = readout.hidden.double()
    errors = dense @ embedding.double()
    if weighting == "unit":
        dense, hidden, errors = (x / x.norm(dim=1, keepdim=True) for x in (dense, hidden, errors))
    channels = {"residual_hidden": dense, "projected_hidden": errors}

    def kernel(left, i, j):
        pairs = product(*[(texts == text).nonzero()[:, 0].tolist() for text in (i, j)])
        return sum(float((left[t] @ left[s]) * (hidden[t] @ hidden[s])) for t, s in pairs)

    def channel(left, i, j):
        scale = math.sqrt(kernel(left, i, i) * kernel(left, j, j))
        return kernel(left, i, j) / (scale if weighting == "gradient" else 1.0)

    def whole(i, j):
        return sum(settings.channels[n] ** 2 * channel(x, i, j) for n, x in channels.items())

    expected = [[whole(i, 2) / math.sqrt(whole(i, i) * whole(2, 2))] for i in range(n_rows)]
    found = exact_scores(readout, settings, embedding, n_rows)
    np.testing.assert_allclose(found.numpy(), expected, rtol=2e-4, atol=2e-5)


def test_a_readout_gives_the_residuals_of_all_logits():
    settings = SignatureSettings(temperature=0.5, top_k=20, mass=0.9, min_tokens=2)
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(6, VOCAB, generator=g) * 3
    targets = torch.randint(VOCAB, (6,), generator=g)
    found = readout_of(logits, targets, torch.zeros(6, 4), torch.zeros(6, dtype=torch.long))
    residual = found.residual(slice(None), settings)
    expected = sparse_residual(logits, targets, temperature=0.5, top_k=20, mass=0.9, min_tokens=2)
    assert torch.equal(residual.tokens.long(), expected.tokens)
    torch.testing.assert_close(residual.values, expected.values)


def small_readout(texts, weighting):
    g = torch.Generator().manual_seed(1)
    logits = torch.randn(len(texts), VOCAB, generator=g)
    targets = torch.randint(VOCAB, (len(texts),), generator=g)
    hidden = torch.randn(len(texts), 4, generator=g)
    settings = SignatureSettings(temperature=1.0, top_k=30, mass=1.0, weighting=weighting)
    embedding = torch.randn(VOCAB, 4, generator=g)
    return readout_of(logits, targets, hidden, texts), settings, embedding


def readout_of(logits, targets, hidden, texts):
    """Keep what the cache keeps: the 256 largest logits, the target forced in."""
    forced = logits.clone().scatter_(1, targets[:, None], torch.inf)
    tokens = forced.topk(256).indices.sort(dim=1).values
    return Readout(
        hidden=hidden.bfloat16(),
        tokens=tokens.int(),
        logits=logits.gather(1, tokens),
        target_place=(tokens == targets[:, None]).int().argmax(1).to(torch.uint8),
        text_index=texts,
        window_index=texts,
        completion=torch.ones(len(texts), dtype=torch.bool),
        n_texts=int(texts.max()) + 1,
    )
