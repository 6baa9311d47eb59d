import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from tiny import tiny_model
from tiny_rows import tiny_texts, write_texts

from rise_ops.codes import RowCodes, decode
from rise_ops.integer_scoring import code_scores, integer_panel
from storage.errors import BusyError, IncompleteError, MismatchError, NotFoundError
from storage.refs import CorpusRef, IndexRef
from storage.signatures import SignatureIndex
from tasks import memory
from tasks.backbone import load_tokenizer
from tasks.block_work import sketch_block
from tasks.codes import index_panel, stored_rotation
from tasks.config import IndexConfig, ModelConfig, RuntimeConfig
from tasks.index_identity import index_space
from tasks.signature_config import ResidualConfig, SeparableSketch, SignatureConfig, WindowConfig
from tasks.signatures import (
    build_index,
    calibrate_index,
    commit_index,
    plan_index,
    writing_index,
)

SIGNATURE = SignatureConfig(
    residual=ResidualConfig(temperature=1.0, top_k=64, mass=0.95),
    sketch=SeparableSketch(residual_dim=8, hidden_dim=8, projected_dim=4),
    window=WindowConfig(tokens=24, overlap=6),
)
BROKEN_TOKEN = 254
"""A byte of letters that no other text of these tests has."""

CPU = RuntimeConfig(device="cpu", batch_tokens=200)


def _config(folder: Path, **changes: object) -> IndexConfig:
    fields = {
        "model": ModelConfig(name=str(folder), dtype="float32"),
        "signature": SIGNATURE,
        "block_rows": 16,
    }
    return IndexConfig(**(fields | changes))


def _store(tmp_path: Path, n_rows: int = 40) -> tuple[CorpusRef, IndexRef]:
    corpus = CorpusRef(str(tmp_path), "main")
    write_texts(corpus, "b1", tiny_texts(n_rows))
    return corpus, IndexRef(str(tmp_path), "main")


def _read(ref: IndexRef) -> tuple[np.ndarray, np.ndarray]:
    index = SignatureIndex.open(ref)
    blocks = [index.read_block(block) for block in range(index.n_blocks)]
    return np.concatenate([b[0] for b in blocks]), np.concatenate([b[1] for b in blocks])


def _bytes(ref: IndexRef) -> dict[str, str]:
    """Digest of every file that counts; the quality report has times in it."""
    folder = SignatureIndex.open(ref).folder
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not str(file.relative_to(folder)).startswith("quality")
    }


def test_block_size_and_appending_do_not_change_signatures(tiny_llama: Path, tmp_path: Path):
    corpus, ref = _store(tmp_path)
    report = build_index(ref, corpus, _config(tiny_llama), CPU)
    assert (report.n_rows, report.n_sketched) == (40, 40)
    assert report.tokens_per_second > 0
    assert report.n_bytes > 40 * 96 * 2
    signatures, n_positions = _read(ref)
    assert signatures.shape == (40, 96)
    assert (n_positions > 0).all()

    other = IndexRef(str(tmp_path), "other")
    build_index(other, corpus, _config(tiny_llama, block_rows=7), CPU)
    np.testing.assert_allclose(_read(other)[0], signatures, atol=1e-3)  # float16 of 1e-5
    assert (_read(other)[1] == n_positions).all()


@pytest.mark.parametrize("head", ["float32", "two_pass"])
def test_batches_of_any_size_give_the_same_signatures_in_bfloat16(
    tiny_llama: Path, tmp_path: Path, head: str
):
    corpus, ref = _store(tmp_path)
    config = _config(
        tiny_llama,
        model=ModelConfig(name=str(tiny_llama), dtype="bfloat16"),
        signature=SIGNATURE.model_copy(update={"head": head}),
    )
    build_index(ref, corpus, config, CPU)
    whole = _read(ref)[0].astype(np.float64)
    for batch_tokens in (30, 4096):
        other = IndexRef(str(tmp_path), f"other-{batch_tokens}")
        build_index(other, corpus, config, RuntimeConfig(device="cpu", batch_tokens=batch_tokens))
        again = _read(other)[0].astype(np.float64)
        lengths = np.linalg.norm(again, axis=1) * np.linalg.norm(whole, axis=1)
        assert ((again * whole).sum(axis=1) >= 0.9999 * lengths).all()


def test_append_in_two_batches_gives_the_bytes_of_one_build(tiny_llama: Path, tmp_path: Path):
    texts = tiny_texts(40)
    corpus, ref = CorpusRef(str(tmp_path), "main"), IndexRef(str(tmp_path), "grown")
    write_texts(corpus, "b1", texts[:21])
    first = build_index(ref, corpus, _config(tiny_llama), CPU)
    assert (first.n_rows, first.n_sketched) == (21, 21)
    write_texts(corpus, "b2", texts[21:], first=21)
    second = build_index(ref, corpus, _config(tiny_llama), CPU)
    assert (second.n_rows, second.n_sketched) == (40, 24)  # blocks 1 (half full before) and 2
    whole = IndexRef(str(tmp_path), "whole")
    build_index(whole, corpus, _config(tiny_llama), CPU)
    assert _bytes(ref) == _bytes(whole)


def test_complete_index_is_left_alone_without_loading_the_model(tiny_llama: Path, tmp_path: Path):
    corpus, ref = _store(tmp_path)
    build_index(ref, corpus, _config(tiny_llama), CPU)
    before = _bytes(ref)
    code = f"""
from storage.refs import CorpusRef, IndexRef
from tasks.backbone import model_is_loaded
from tasks.config import IndexConfig, RuntimeConfig
from tasks.signatures import build_index
config = IndexConfig.model_validate_json({_config(tiny_llama).model_dump_json()!r})
report = build_index(IndexRef({str(tmp_path)!r}, "main"), CorpusRef({str(tmp_path)!r}, "main"),
                     config, RuntimeConfig(device="cpu"))
print(report.n_sketched, report.n_tokens, report.tokens_per_second, model_is_loaded())
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["0", "0", "0.0", "False"]
    assert out.stderr == ""
    assert _bytes(ref) == before


def test_lost_shard_is_made_again(tiny_llama: Path, tmp_path: Path):
    corpus, ref = _store(tmp_path)
    build_index(ref, corpus, _config(tiny_llama), CPU)
    before = _bytes(ref)
    shard = next(f for f in before if "signatures.zarr/signatures/c/1" in f)
    (SignatureIndex.open(ref).folder / shard).unlink()
    assert build_index(ref, corpus, _config(tiny_llama), CPU).n_sketched == 16
    assert _bytes(ref) == before


def test_moved_model_is_the_same_model(tiny_llama: Path, tmp_path: Path):
    corpus, ref = _store(tmp_path)
    build_index(ref, corpus, _config(tiny_llama), CPU)
    moved = tmp_path / "moved"
    shutil.copytree(tiny_llama, moved)
    assert build_index(ref, corpus, _config(moved), CPU).n_sketched == 0
    remembered = SignatureIndex.open(ref).remembered_model()
    assert remembered is not None
    assert remembered["name"] == str(moved)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("space.model", {"model": "other"}),
        ("space.dtype", {"model": "bfloat16"}),
        ("space.signature.sketch.seed", {"signature": SeparableSketch(
            residual_dim=8, hidden_dim=8, projected_dim=4, seed=1)}),
        ("space.signature.residual.temperature", {"signature": ResidualConfig(top_k=64)}),
        ("positions", {"positions": "completion"}),
        ("block_rows", {"block_rows": 8}),
    ],
)  # fmt: skip
def test_other_settings_are_refused_by_field(
    tiny_llama: Path, tmp_path: Path, field: str, change: dict[str, object]
):
    corpus, ref = _store(tmp_path, 5)
    build_index(ref, corpus, _config(tiny_llama), CPU)
    if change.get("model") == "other":
        change = {
            "model": ModelConfig(name=str(tiny_model(tmp_path / "n", seed=1)), dtype="float32")
        }
    elif change.get("model") == "bfloat16":
        change = {"model": ModelConfig(name=str(tiny_llama), dtype="bfloat16")}
    elif isinstance(sketch := change.get("signature"), SeparableSketch):
        change = {"signature": SIGNATURE.model_copy(update={"sketch": sketch})}
    elif isinstance(residual := change.get("signature"), ResidualConfig):
        change = {"signature": SIGNATURE.model_copy(update={"residual": residual})}
    with pytest.raises(MismatchError) as caught:
        build_index(ref, corpus, _config(tiny_llama, **change), CPU)
    assert field in [name for name, _, _ in caught.value.differences]


def test_other_tokenizer_is_refused(tiny_llama: Path, tmp_path: Path):
    corpus, ref = _store(tmp_path, 5)
    build_index(ref, corpus, _config(tiny_llama), CPU)
    other = tiny_model(tmp_path / "bos", bos=True)
    with pytest.raises(MismatchError) as caught:
        build_index(ref, corpus, _config(other), CPU)
    assert [name for name, _, _ in caught.value.differences] == ["space.tokenizer"]


def test_completion_only_masks_the_prompts(tiny_llama: Path, tmp_path: Path):
    corpus, ref = _store(tmp_path)
    build_index(ref, corpus, _config(tiny_llama), CPU)
    completion = IndexRef(str(tmp_path), "completion")
    report = build_index(completion, corpus, _config(tiny_llama, positions="completion"), CPU)
    assert report.n_empty == 0
    assert (_read(completion)[1] < _read(ref)[1]).all()
    assert np.abs(_read(completion)[0].astype(np.float32) - _read(ref)[0]).max() > 0.01


def test_rows_without_a_predicted_token_are_counted_and_zero(tiny_llama: Path, tmp_path: Path):
    corpus, ref = CorpusRef(str(tmp_path), "main"), IndexRef(str(tmp_path), "main")
    write_texts(corpus, "b1", ["The fox", "prompt and nothing else", "a"], prompt_chars=23)
    report = build_index(ref, corpus, _config(tiny_llama, positions="completion"), CPU)
    signatures, n_positions = _read(ref)
    assert report.n_empty == 3
    assert n_positions.tolist() == [0, 0, 0]
    assert not signatures.any()


def test_bad_row_is_named_and_its_block_not_stored(tmp_path: Path):
    model = tiny_model(tmp_path / "m", "llama-untied")
    weights = load_file(model / "model.safetensors")
    weights["model.embed_tokens.weight"][BROKEN_TOKEN] = float("nan")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    tokenizer = load_tokenizer(ModelConfig(name=str(model)))
    letters = (chr(code) for code in range(0x100, 0x3000))
    text = next(one for one in letters if BROKEN_TOKEN in tokenizer.encode([one], [0])[0].ids)
    corpus, ref = CorpusRef(str(tmp_path), "main"), IndexRef(str(tmp_path), "main")
    texts = tiny_texts(40)
    texts[21] = f"fine until {text} and after"
    write_texts(corpus, "b1", texts)
    with pytest.raises(ValueError, match=r"block 1: .*not finite.*1 row\(s\): 'r21'"):
        build_index(ref, corpus, _config(model), CPU)
    index = SignatureIndex.open(ref)
    assert index.block_record(0) is not None
    assert index.block_record(1) is None
    with pytest.raises(IncompleteError):
        _ = index.n_rows


def test_tokens_beyond_the_model_are_refused_by_row(tmp_path: Path):
    model = tiny_model(tmp_path / "m")
    file = model / "tokenizer.json"
    settings = json.loads(file.read_text())
    settings["added_tokens"].append(
        {"id": 900, "content": "<|odd|>", "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
    )  # fmt: skip
    file.write_text(json.dumps(settings))
    corpus, ref = CorpusRef(str(tmp_path), "main"), IndexRef(str(tmp_path), "main")
    write_texts(corpus, "b1", ["good", "an <|odd|> one"])
    with pytest.raises(
        ValueError, match=r"row 'r1' has token id \d+, but the model knows ids 0 to"
    ):
        build_index(ref, corpus, _config(model), CPU)


def test_window_longer_than_the_model_is_refused(tiny_llama: Path, tmp_path: Path):
    corpus, ref = _store(tmp_path, 3)
    long = SIGNATURE.model_copy(update={"window": WindowConfig(tokens=513, overlap=2)})
    with pytest.raises(ValueError, match=r"513.*at most 512"):
        build_index(ref, corpus, _config(tiny_llama, signature=long), CPU)
    with pytest.raises(NotFoundError):
        SignatureIndex.open(ref)


def test_work_that_does_not_fit_is_refused_with_numbers(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    corpus, ref = _store(tmp_path, 3)
    monkeypatch.setattr(memory, "available_bytes", lambda _: 100_000_000)
    huge = _config(tiny_llama, block_rows=1_000_000)
    with pytest.raises(MemoryError, match=r"signatures 1\.34 GB.*0\.10 GB.*Lower block_rows"):
        build_index(ref, corpus, huge, CPU)
    assert build_index(ref, corpus, _config(tiny_llama), CPU).predicted_bytes > 1_000_000


def test_corpus_without_rows_is_not_found(tiny_llama: Path, tmp_path: Path):
    with pytest.raises(NotFoundError):
        build_index(
            IndexRef(str(tmp_path), "main"),
            CorpusRef(str(tmp_path), "no"),
            _config(tiny_llama),
            CPU,
        )


def test_a_misspelt_store_is_not_made(tiny_llama: Path, tmp_path: Path):
    root = tmp_path / "misspelt"
    with pytest.raises(NotFoundError, match="is not a RISE store"):
        build_index(IndexRef(str(root), "main"), CorpusRef(str(root), "main"),
                    _config(tiny_llama), CPU)  # fmt: skip
    assert not root.exists()


def test_second_builder_is_turned_away(tiny_llama: Path, tmp_path: Path):
    corpus, ref = _store(tmp_path, 3)
    with writing_index(ref), pytest.raises(BusyError):
        build_index(ref, corpus, _config(tiny_llama), CPU)


def test_parts_of_a_build_in_any_order(tiny_llama: Path, tmp_path: Path):
    corpus, ref = _store(tmp_path)
    whole = IndexRef(str(tmp_path), "whole")
    build_index(whole, corpus, _config(tiny_llama), CPU)
    with writing_index(ref):
        with pytest.raises(NotFoundError):
            plan_index(ref, corpus, _config(tiny_llama), CPU)
        calibrate_index(ref, corpus, _config(tiny_llama), CPU)
        plan = plan_index(ref, corpus, _config(tiny_llama), CPU)
        assert (plan.blocks, plan.n_blocks, plan.n_rows) == ((0, 1, 2), 3, 40)
        reports = [sketch_block(plan, block) for block in (2, 0)]
        with pytest.raises(IncompleteError):
            commit_index(plan, reports)
        assert plan_index(ref, corpus, _config(tiny_llama), CPU).blocks == (1,)
        reports.append(sketch_block(plan, 1))
        commit_index(plan, reports)
    assert _bytes(ref) == _bytes(whole)


def test_progress_counts_rows_batch_by_batch(tiny_llama: Path, tmp_path: Path):
    class Counter:
        total, done, steps = 0, 0, 0

        def start(self, *, total: int, unit: str) -> None:
            self.total, self.unit = total, unit

        def advance(self, n_units: int) -> None:
            self.done += n_units
            self.steps += n_units > 0

    corpus, ref = _store(tmp_path)
    counter = Counter()
    build_index(ref, corpus, _config(tiny_llama), CPU, progress=counter)
    assert (counter.total, counter.done, counter.unit) == (40, 40, "rows")
    assert counter.steps > 3  # more often than once a block


def test_space_of_an_index_refuses_another_model(tiny_llama: Path, tmp_path: Path):
    corpus, ref = _store(tmp_path, 3)
    build_index(ref, corpus, _config(tiny_llama), CPU)
    other = ModelConfig(name=str(tiny_model(tmp_path / "n", seed=1)), dtype="float32")
    with pytest.raises(MismatchError, match=r"space\.model"):
        index_space(SignatureIndex.open(ref), other, device="cpu")


# ---------------------------------------------------------------------------------------- codes


def _decoded(ref: IndexRef) -> np.ndarray:
    index = SignatureIndex.open(ref)
    blocks = range(index.n_blocks)
    return np.concatenate(
        [decode(RowCodes(index.read_block(b)[0], index.read_scales(b))) for b in blocks]
    )


@pytest.mark.parametrize("code", ["int8", "sign"])
def test_codes_stand_for_the_rotated_rows(tiny_llama: Path, tmp_path: Path, code: str):
    corpus, floats = _store(tmp_path)
    build_index(floats, corpus, _config(tiny_llama), CPU)
    coded = IndexRef(str(tmp_path), code)
    signature = SIGNATURE.model_copy(update={"code": code})
    report = build_index(coded, corpus, _config(tiny_llama, signature=signature), CPU)
    assert (report.n_rows, report.n_sketched) == (40, 40)
    index = SignatureIndex.open(coded)
    assert (index.code, index.n_numbers) == (code, 128)  # 96 filled up
    assert index.identity["space"] == SignatureIndex.open(floats).identity["space"]
    rotation = stored_rotation(index)
    assert rotation is not None
    rows = rotation.apply(_read(floats)[0].astype(np.float32))
    decoded = _decoded(coded)
    if code == "int8":
        np.testing.assert_allclose(decoded, rows, atol=3e-3)
    else:
        assert (np.sign(decoded) == np.sign(rows))[np.abs(rows) > 1e-3].all()
    # queries and rows of the same text meet
    panel = index_panel(index, _read(floats)[0].astype(np.float32))
    scores = code_scores(RowCodes(*_codes_of(index)), integer_panel(panel))[:-1]
    assert scores.argmax(axis=1).tolist() == list(range(40))


def _codes_of(index: SignatureIndex) -> tuple[np.ndarray, np.ndarray]:
    parts = [(index.read_block(b)[0], index.read_scales(b)) for b in range(index.n_blocks)]
    values, scales = zip(*parts, strict=True)
    return np.concatenate(values), np.concatenate(scales)


def test_coded_index_grows_and_repairs_to_the_bytes_of_one_build(tiny_llama: Path, tmp_path: Path):
    texts = tiny_texts(40)
    corpus, ref = CorpusRef(str(tmp_path), "main"), IndexRef(str(tmp_path), "grown")
    config = _config(tiny_llama, signature=SIGNATURE.model_copy(update={"code": "sign"}))
    write_texts(corpus, "b1", texts[:21])
    build_index(ref, corpus, config, CPU)
    write_texts(corpus, "b2", texts[21:], first=21)
    build_index(ref, corpus, config, CPU)
    whole = IndexRef(str(tmp_path), "whole")
    build_index(whole, corpus, config, CPU)
    assert _bytes(ref) == _bytes(whole)
    scales = next(f for f in _bytes(ref) if "signatures.zarr/scales/c/1" in f)
    (SignatureIndex.open(ref).folder / scales).unlink()
    assert build_index(ref, corpus, config, CPU).n_sketched == 16
    assert _bytes(ref) == _bytes(whole)


def test_floats_beside_codes_are_the_rows_of_a_float_index(tiny_llama: Path, tmp_path: Path):
    corpus, floats = _store(tmp_path)
    build_index(floats, corpus, _config(tiny_llama), CPU)
    ref = IndexRef(str(tmp_path), "both")
    signature = SIGNATURE.model_copy(update={"code": "int8", "keep_floats": True})
    report = build_index(ref, corpus, _config(tiny_llama, signature=signature), CPU)
    index = SignatureIndex.open(ref)
    kept = np.concatenate(
        [
            index.read_floats(block, np.arange(len(index.read_block(block)[0])))
            for block in range(index.n_blocks)
        ]
    )
    np.testing.assert_array_equal(kept, _read(floats)[0])
    assert index.identity["space"] == SignatureIndex.open(floats).identity["space"]
    assert index.verify() == []
    assert report.n_bytes > 40 * (128 + 2 * 96)
    alone = _config(tiny_llama, signature=SIGNATURE.model_copy(update={"code": "int8"}))
    with pytest.raises(MismatchError) as caught:
        build_index(ref, corpus, alone, CPU)
    assert caught.value.differences == [("code.floats", "float16", None)]


def test_another_code_is_refused_by_field(tiny_llama: Path, tmp_path: Path):
    corpus, ref = _store(tmp_path, 5)
    build_index(ref, corpus, _config(tiny_llama), CPU)
    config = _config(tiny_llama, signature=SIGNATURE.model_copy(update={"code": "sign"}))
    with pytest.raises(MismatchError) as caught:
        build_index(ref, corpus, config, CPU)
    assert [name for name, _, _ in caught.value.differences] == ["code"]
