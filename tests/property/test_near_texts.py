"""Near duplicates against all pairs, block by block."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rise_ops import near_signatures
from rise_ops.near_signatures import NearSignatures, Shortener, threshold_of_code
from rise_ops.near_texts import MISSED, NearTexts, band_width
from rise_ops.shingles import shingle_hashes
from tasks.text_digests import N_NUMBERS, text_digests


def taken_by(index, digests, block_rows):
    taken, said = [], {}
    for start in range(0, len(digests), block_rows):
        rows = np.arange(start, min(start + block_rows, len(digests)))
        index.start_block(rows, digests[rows])
        for row in rows.tolist():
            found = index.like(row)
            if found is None:
                index.take(row)
                taken.append(row)
            else:
                said[row] = found
    return taken, said


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.sampled_from([0.5, 0.8, 1.0]))
def test_blocks_and_bands_find_what_all_pairs_find(seed, block_rows, threshold):
    rng = np.random.default_rng(seed)
    digests = rng.integers(0, 2**32, (40, N_NUMBERS), dtype=np.uint32)
    for row in range(5, 40):  # most are copies of an earlier one, more or less changed
        digests[row] = digests[rng.integers(row)]
        changed = rng.random(N_NUMBERS) < rng.choice([0.0, 0.05, 0.15, 0.6])
        digests[row, changed] = rng.integers(0, 2**32, changed.sum(), dtype=np.uint32)
    taken, said = taken_by(NearTexts(threshold, N_NUMBERS), digests, block_rows)
    plain: list[int] = []
    for row in range(40):
        agree = {one: (digests[one] == digests[row]).mean() for one in plain}
        if agree and max(agree.values()) >= threshold:
            best = max(agree.values())
            assert said[row] == (min(k for k in agree if agree[k] == best), best)
        else:
            plain.append(row)
    assert taken == plain


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.95])
def test_bands_miss_few_pairs_at_the_threshold(threshold):
    width = band_width(threshold, N_NUMBERS)
    assert (1 - threshold**width) ** (N_NUMBERS // width) <= MISSED


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 5), max_size=9), min_size=1, max_size=6),
    st.integers(1, 4),
)
def test_shingles_equal_exactly_where_words_do(texts, n_words):
    words = np.array([w for text in texts for w in text], np.uint64) * 7919 + 1
    offsets = np.cumsum([0, *map(len, texts)])
    hashes, starts = shingle_hashes(words, offsets, n_words=n_words)
    for number, text in enumerate(texts):
        ours = hashes[starts[number] : starts[number + 1]].tolist()
        runs = [tuple(text[i : i + n_words]) for i in range(max(1, len(text) - n_words + 1))]
        assert len(ours) == len(runs)
        assert len(set(ours)) == len(set(runs))


def test_digests_estimate_the_share_of_common_shingles():
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(60):
        words = [f"w{n}" for n in rng.integers(0, 10**6, 150)]
        changed = list(words)
        for place in rng.integers(0, 150, 4):
            changed[place] = "changed"
        grams = [{tuple(w[i : i + 5]) for i in range(146)} for w in (words, changed)]
        exact = len(grams[0] & grams[1]) / len(grams[0] | grams[1])
        ours = text_digests([" ".join(words), " ".join(changed)])
        errors.append((ours[0] == ours[1]).mean() - exact)
    assert abs(np.mean(errors)) < 0.02
    assert np.std(errors) < 0.06


def test_digests_do_not_see_case_punctuation_or_the_company_of_other_texts():
    text = "The quick brown fox, it jumps; over the lazy dog."
    both = text_digests(
        [text, "  the QUICK brown fox it jumps over -- the lazy dog", "!!", "??", ""]
    )
    assert (both[0] == both[1]).all()
    assert not (both[2] == both[3]).any()
    assert (text_digests([text]) == both[:1]).all()
    assert text_digests([]).shape == (0, N_NUMBERS)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.sampled_from([64, 700]))
def test_signatures_are_compared_with_all_taken_ones(seed, looked, n_numbers):
    rng = np.random.default_rng(seed)
    signatures = rng.standard_normal((30, n_numbers)).astype(np.float32)
    for row in range(4, 30, 2):
        signatures[row] = signatures[rng.integers(row)] + 0.05 * rng.standard_normal(n_numbers)
    vectors = Shortener(n_numbers).shorten(signatures)
    index, taken = NearSignatures(0.9, vectors.shape[1]), np.zeros(30, bool)
    for start in range(0, 30, looked):
        rows = np.arange(start, min(start + looked, 30))
        index.look(rows, vectors[rows])
        for row in rows.tolist():
            if index.like(row, taken) is None:
                index.take(row)
                taken[row] = True
    unit = signatures / np.linalg.norm(signatures, axis=1, keepdims=True)
    plain: list[int] = []
    for row in range(30):
        if not any(unit[one] @ unit[row] >= 0.9 for one in plain):
            plain.append(row)
    assert np.flatnonzero(taken).tolist() == plain


@pytest.mark.parametrize("many_close", [0.0, 2.0])
@pytest.mark.timeout(20)
def test_rows_that_are_all_alike_take_no_long_time(many_close, monkeypatch):
    n = 1_500 if many_close == 0 else 100
    monkeypatch.setattr(near_signatures, "MANY_CLOSE", many_close)
    rng = np.random.default_rng(3)
    base = rng.standard_normal(512)
    vectors = Shortener(512).shorten(
        (base + 0.1 * rng.standard_normal((n, 512))).astype(np.float32)
    )
    index, taken = NearSignatures(0.9, 512), np.zeros(n, bool)
    index.look(np.arange(n), vectors)
    assert index.like(n - 1, taken) is None
    taken[[5, 7]] = True
    cosines = vectors[[5, 7]].astype(np.float32) @ vectors[n - 1].astype(np.float32)
    other, cosine = index.like(n - 1, taken)
    assert other == [5, 7][int(cosines.argmax())]
    assert cosine == pytest.approx(float(cosines.max()), abs=1e-6)


def test_cosines_of_sign_codes_stand_for_cosines_of_signatures():
    rng = np.random.default_rng(1)
    left = rng.standard_normal((200, 2048))
    right = 0.9 * left + np.sqrt(1 - 0.81) * rng.standard_normal((200, 2048))
    of_signs = (np.sign(left) * np.sign(right)).mean()
    assert threshold_of_code(0.9, "sign") == pytest.approx(of_signs, abs=0.005)
    assert threshold_of_code(0.9, "int8") == 0.9


def test_shortened_signatures_keep_their_cosines():
    rng = np.random.default_rng(2)
    left = rng.standard_normal((300, 3000)).astype(np.float32)
    right = left + 0.3 * rng.standard_normal((300, 3000)).astype(np.float32)
    shortener = Shortener(3000)
    short = np.einsum(
        "rk,rk->r", shortener.shorten(left).astype(float), shortener.shorten(right).astype(float)
    )
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    exact = np.einsum("rk,rk->r", left, right) / lengths
    assert np.abs((short - exact).mean()) < 0.002
    assert np.std(short - exact) < 2 * (1 - exact.mean() ** 2) / np.sqrt(512)
    assert not shortener.shorten(np.zeros((1, 3000), np.float32)).any()
