"""Calibrated indexes: the sample, the frozen tables, what is refused, and drift."""

from pathlib import Path

import numpy as np
import pytest
from tiny_rows import tiny_texts, write_texts

from storage.corpus import Corpus
from storage.guards import corpus_guard
from storage.refs import CorpusRef, IndexRef
from storage.signatures import SignatureIndex
from tasks.attribution import attribute_text
from tasks.calibration import choose_rows
from tasks.config import DriftLimits, IndexConfig, ModelConfig, RuntimeConfig
from tasks.inbox_file import give_tombstones
from tasks.living_ledger import LivingLedger
from tasks.queries import query_signatures
from tasks.signature_config import (
    PrincipalProjection,
    ResidualConfig,
    SignatureConfig,
    TensorSketch,
    WindowConfig,
)
from tasks.signatures import IndexReport, build_index, calibrate_index, writing_index

CPU = RuntimeConfig(device="cpu", batch_tokens=200)
GH = PrincipalProjection(hidden_dim=6, projected_dim=4, calibration_tokens=600)
RH_GH = PrincipalProjection(
    hidden_dim=6,
    projected_dim=4,
    residual_dim=3,
    residual_buckets=16,
    residual_weight=0.5,
    whiten="both",
    calibration_tokens=600,
)
TENSOR = TensorSketch(residual_hidden_dim=40, projected_hidden_dim=56)
WHITENED = TENSOR.model_copy(update={"whiten": "hidden"})


def _config(model: Path, sketch: object = GH, **changes: object) -> IndexConfig:
    signature = SignatureConfig(
        residual=ResidualConfig(temperature=1.0, top_k=64, mass=1.0),
        sketch=sketch,
        window=WindowConfig(tokens=24, overlap=6),
    )
    fields = {
        "model": ModelConfig(name=str(model), dtype="float32"),
        "signature": signature,
        "block_rows": 16,
    }
    return IndexConfig(**(fields | changes))


def _refs(tmp_path: Path, name: str = "main") -> tuple[CorpusRef, IndexRef]:
    return CorpusRef(str(tmp_path), "main"), IndexRef(str(tmp_path), name)


def _space(ref: IndexRef) -> dict[str, object]:
    return SignatureIndex.open(ref).identity["space"]


def _sample(root: Path, batches: list[list[str]], *, seed: int = 0) -> list[str]:
    corpus = CorpusRef(str(root), "main")
    first = 0
    for number, texts in enumerate(batches):
        write_texts(corpus, f"b{number}", texts, first=first)
        first += len(texts)
    names = [batch.batch_id for batch in Corpus.batches(corpus)]
    return choose_rows(Corpus(corpus), names, n_tokens=500, seed=seed)


def test_sample_depends_on_the_rows_and_the_seed_alone(tmp_path: Path):
    texts = tiny_texts(60)
    whole = _sample(tmp_path / "one", [texts])
    assert whole == _sample(tmp_path / "two", [texts[:13], texts[13:]])
    assert whole != _sample(tmp_path / "three", [texts], seed=1)
    n_tokens = [max(1, len(texts[int(name[1:])]) // 3) for name in whole]
    assert sum(n_tokens[:-1]) < 500 <= sum(n_tokens)
    assert len(set(whole)) == len(whole) < 60


def test_dead_rows_are_not_sampled_and_a_row_with_two_places_is_sampled_once(tmp_path: Path):
    corpus = CorpusRef(str(tmp_path), "main")
    texts = tiny_texts(6)
    write_texts(corpus, "b0", texts)
    ledger = LivingLedger(corpus)
    with corpus_guard(corpus).hold():
        old = [row for row in ledger.find(["r1", "r2"]) if row is not None]
        give_tombstones(corpus, old, kind="changed", where="a file")
    write_texts(corpus, "b1", ["row 1: said in another way"], first=1)
    chosen = choose_rows(Corpus(corpus), ["b0", "b1"], n_tokens=10**6, seed=0)
    assert sorted(chosen) == ["r0", "r1", "r3", "r4", "r5"]
    row = Corpus(corpus).rows_by_id(["r1"], batches=["b0", "b1"])["r1"]
    assert row.text == "row 1: said in another way"
    assert Corpus(corpus).rows_by_id(["r1"], batches=["b0"])["r1"].text == texts[1]


@pytest.mark.parametrize("sketch", [GH, RH_GH, WHITENED], ids=["gh", "rh-gh", "tensor"])
def test_tables_follow_from_rows_and_settings_alone(
    tiny_llama: Path, tmp_path: Path, sketch: object
):
    """Neither speed settings nor batches nor block sizes move a table."""
    texts = tiny_texts(40)
    first, second = tmp_path / "one", tmp_path / "two"
    write_texts(CorpusRef(str(first), "main"), "b1", texts)
    write_texts(CorpusRef(str(second), "main"), "b1", texts[:7])
    write_texts(CorpusRef(str(second), "main"), "b2", texts[7:], first=7)
    spaces = []
    for root, batch_tokens, block_rows in ((first, 24, 16), (second, 4096, 7)):
        corpus, ref = _refs(root)
        config = _config(tiny_llama, sketch, block_rows=block_rows)
        build_index(ref, corpus, config, RuntimeConfig(device="cpu", batch_tokens=batch_tokens))
        spaces.append(_space(ref))
    assert spaces[0] == spaces[1]


def test_calibration_is_recorded_reported_and_frozen(tiny_llama: Path, tmp_path: Path):
    corpus, ref = _refs(tmp_path)
    write_texts(corpus, "b1", tiny_texts(40))
    with writing_index(ref):
        made = calibrate_index(ref, corpus, _config(tiny_llama), CPU)
        again = calibrate_index(ref, corpus, _config(tiny_llama), CPU)
    assert (made.already, again.already) == (False, True)
    assert (made.index_id, made.energy) == (again.index_id, again.energy)
    assert SignatureIndex.open(ref).committed_rows == 0
    record = SignatureIndex.open(ref).identity["calibration"]
    assert record["batches"] == ["b1"]
    assert (record["seed"], record["n_rows"]) == (0, made.n_rows)
    assert record["n_positions"] > made.n_rows
    assert record["n_tokens"] == made.n_tokens > 600
    assert made.energy.keys() == {"hidden", "projected"}
    for factor, energy in made.energy.items():
        assert 0.0 < record["held_out_energy"][factor] < energy < 1.0

    first = build_index(ref, corpus, _config(tiny_llama), CPU)
    assert (first.energy, first.drift) == (made.energy, None)
    before, space = SignatureIndex.open(ref).read_block(0), _space(ref)
    write_texts(corpus, "b2", tiny_texts(60)[40:], first=40)
    second = build_index(ref, corpus, _config(tiny_llama), CPU)
    assert (second.n_rows, second.energy) == (60, made.energy)
    assert second.drift is not None
    assert second.drift.n_rows == 20 or second.drift.n_positions > 500
    assert _space(ref) == space
    np.testing.assert_array_equal(SignatureIndex.open(ref).read_block(0)[0], before[0])


@pytest.mark.parametrize(
    "sketch", [GH, RH_GH, TENSOR, WHITENED], ids=["gh", "rh-gh", "tensor", "whitened"]
)
def test_queries_use_the_tables_of_the_index(tiny_llama: Path, tmp_path: Path, sketch: object):
    corpus, ref = _refs(tmp_path)
    texts = tiny_texts(40)
    write_texts(corpus, "b1", texts)
    report = build_index(ref, corpus, _config(tiny_llama, sketch), CPU)
    index = SignatureIndex.open(ref)
    assert index.n_numbers == sketch.n_numbers
    assert bool(report.energy) == (sketch.kind == "principal")
    rows = index.read_block(1)[0]
    found = query_signatures(ref, texts[16:32], [0] * 16, CPU)
    np.testing.assert_allclose(found, rows, atol=2e-3)  # float16


@pytest.mark.parametrize("sketch", [GH, TENSOR], ids=["gh", "tensor"])
def test_two_passes_give_the_signatures_of_one(tiny_llama: Path, tmp_path: Path, sketch: object):
    corpus, _ = _refs(tmp_path)
    texts = tiny_texts(20)
    write_texts(corpus, "b1", texts)
    found = []
    for head in ("float32", "two_pass"):
        ref = IndexRef(str(tmp_path), head.replace("_", "-"))
        config = _config(tiny_llama, sketch)
        signature = config.signature.model_copy(update={"head": head})
        build_index(ref, corpus, config.model_copy(update={"signature": signature}), CPU)
        found.append(query_signatures(ref, texts, [0] * 20, CPU))
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


def _appended(model: Path, root: Path, texts: list[str], limits: DriftLimits) -> IndexReport:
    corpus, ref = _refs(root)
    write_texts(corpus, "b1", tiny_texts(40))
    config = _config(model, GH, drift=limits)
    build_index(ref, corpus, config, CPU)
    write_texts(corpus, "b2", texts, first=40)
    return build_index(ref, corpus, config, CPU)


FOREIGN = [f"{number} " + "ÆØÅ ß#~|{}§ Ω≈ç√∫ " * 6 for number in range(12)]


def test_like_rows_do_not_drift_and_foreign_ones_do(tiny_llama: Path, tmp_path: Path):
    limits = DriftLimits(warn_below=0.9, refuse_below=0.0)
    alike = _appended(tiny_llama, tmp_path / "alike", tiny_texts(80)[40:], limits).drift
    foreign = _appended(tiny_llama, tmp_path / "foreign", FOREIGN, limits).drift
    assert alike is not None
    assert foreign is not None
    assert alike.warning is None
    assert min(alike.ratios.values()) > 0.95
    assert min(foreign.ratios.values()) < 0.7
    assert foreign.warning is not None
    assert "less than drift.warn_below = 0.9. Build an index under another name" in foreign.warning


def test_far_drift_is_refused_and_the_index_stays(tiny_llama: Path, tmp_path: Path):
    limits = DriftLimits(warn_below=1.0, refuse_below=0.9)
    with pytest.raises(ValueError, match=r"below drift.refuse_below = 0.9 rows are not appended"):
        _appended(tiny_llama, tmp_path, FOREIGN, limits)
    corpus, ref = _refs(tmp_path)
    assert SignatureIndex.open(ref).n_rows == 40
    # the limits are no part of the identity: raising them is enough
    lenient = _config(tiny_llama, GH, drift=DriftLimits(warn_below=0.1, refuse_below=0.1))
    assert build_index(ref, corpus, lenient, CPU).n_rows == 52


def test_few_positions_are_no_reason_to_refuse(tiny_llama: Path, tmp_path: Path):
    limits = DriftLimits(warn_below=1.0, refuse_below=1.0)
    report = _appended(tiny_llama, tmp_path, ["ÆØÅ ß#"], limits)
    assert report.n_rows == 41
    assert report.drift is not None
    assert report.drift.warning is not None


@pytest.mark.parametrize(
    ("sketch", "texts", "message"),
    [
        ({"hidden_dim": 33}, ["a b"], r"is 33, but .* has 32 directions there. Lower it.*'paper'"),
        ({}, [""], r"\(1 rows\) predicts no token.*preset 'paper'"),
    ],
)
def test_what_cannot_be_calibrated_leaves_no_index(
    tiny_llama: Path, tmp_path: Path, sketch: dict[str, int], texts: list[str], message: str
):
    corpus, ref = _refs(tmp_path)
    write_texts(corpus, "b1", texts)
    with pytest.raises(ValueError, match=message):
        build_index(ref, corpus, _config(tiny_llama, GH.model_copy(update=sketch)), CPU)
    assert not (tmp_path / "indexes" / "main").exists()


def test_a_corpus_with_fewer_positions_than_directions_works_and_says_so(
    tiny_llama: Path, tmp_path: Path
):
    corpus, ref = _refs(tmp_path)
    texts = ["the quick brown fox", "over a lazy dog", "Paris is Paris"]
    write_texts(corpus, "b1", texts)
    sketch = GH.model_copy(update={"hidden_dim": 32, "projected_dim": 32})
    config = _config(tiny_llama, sketch)
    config = config.model_copy(
        update={"signature": config.signature.model_copy(update={"code": "sign"})}
    )
    report = build_index(ref, corpus, config, CPU)
    assert report.calibration_warning is not None
    assert "fewer than 2,000" in report.calibration_warning
    assert build_index(ref, corpus, config, CPU).calibration_warning == report.calibration_warning
    # directions that the rows say nothing about add nothing, however a query lies in them
    queries = query_signatures(ref, [*texts, "ÆØÅ ß#~|{}§"], [0] * 4, CPU)
    record = SignatureIndex.open(ref).identity["calibration"]
    matrix = SignatureIndex.open(ref).tables()["hidden_matrix"]
    n_known = int((np.abs(matrix).max(axis=0) > 0.0).sum())
    assert 0 < n_known <= record["n_positions"] < 32
    assert (np.abs(queries).reshape(4, 32, 32).max(axis=(0, 1)) > 0.0).sum() == n_known
    assert [attributed(ref, text) for text in texts] == ["r0", "r1", "r2"]


def attributed(ref: IndexRef, text: str) -> str:
    return attribute_text(ref, prompt="", completion=text, top_k=1, runtime=CPU)[0].row_id
