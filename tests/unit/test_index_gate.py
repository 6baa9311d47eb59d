"""The index gate measures what is stored, keeps what it refuses, and knows the run before."""

from pathlib import Path
from typing import Any

import numpy as np
import planted_faults as faults
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scored_store import write_index
from suite_samples import edit
from tiny_rows import tiny_texts, write_texts

from rise_ops.codes import encode
from storage.errors import IncompleteError
from storage.index_quality import IndexQuality
from storage.refs import CorpusRef, IndexRef
from storage.signatures import SignatureIndex
from tasks import index_gate
from tasks.index_gate import IndexRefused, check_index
from tasks.index_statistics import block_statistics, drift, index_statistics
from tasks.signatures import build_index
from tasks.suite_files import write_suites

N_NUMBERS = 64


def unit_rows(n_rows: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n_rows, N_NUMBERS))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def positions(n_rows: int, n_empty: int = 0) -> np.ndarray:
    counts = np.arange(1, n_rows + 1, dtype=np.int32)
    counts[:n_empty] = 0
    return counts


def stored(root: Path, rows: np.ndarray, counts: np.ndarray, **kind: Any) -> SignatureIndex:
    ref = IndexRef(str(root), "main")
    return write_index(ref, rows, counts, block_rows=16, batches=["b1"], **kind)


# --------------------------------------------------------------------------------- measuring


@pytest.mark.parametrize(("code", "tolerance"), [("float16", 1e-3), ("int8", 2e-3), ("sign", 1e-4)])
def test_rows_of_length_one_have_length_one_in_every_code(tmp_path, code, tolerance) -> None:
    index = stored(tmp_path, unit_rows(40), positions(40), code=code, commit=False)
    lines = [block_statistics(index, block) for block in range(3)]
    assert [line["n_rows"] for line in lines] == [16, 16, 8]
    assert [line["first_row"] for line in lines] == [0, 16, 32]
    for line in lines:
        assert line["norm_min"] == pytest.approx(1, abs=tolerance)
        assert line["norm_max"] == pytest.approx(1, abs=tolerance)
        assert (line["n_empty"], line["n_nonfinite"], line["n_zero"]) == (0, 0, 0)


def test_empty_rows_and_lost_rows_are_told_apart(tmp_path) -> None:
    rows, counts = unit_rows(16), positions(16, n_empty=3)
    rows[:3] = 0
    rows[[7, 11]] = 0
    rows[15] *= 2
    line = block_statistics(stored(tmp_path, rows, counts, commit=False), 0)
    assert (line["n_empty"], line["n_zero"], line["first_zero"]) == (3, 2, 7)
    assert line["empty_share"] == 3 / 16
    assert line["norm_max"] == pytest.approx(2, abs=2e-3)
    assert line["norm_median"] == pytest.approx(1, abs=1e-3)


def test_numbers_are_noted_for_the_bytes_that_they_are_of(tmp_path, monkeypatch) -> None:
    index = stored(tmp_path, unit_rows(16), positions(16), commit=False)
    first = block_statistics(index, 0)
    monkeypatch.setattr(IndexQuality, "recorded_rows", lambda *_: pytest.fail("read again"))
    assert block_statistics(index, 0) == first
    monkeypatch.undo()
    codes = encode(unit_rows(16, seed=1).astype(np.float32) * 3, "float16")
    index.write_block(0, codes.values, positions(16), rows_digest="other", n_tokens=16)
    assert block_statistics(index, 0)["norm_mean"] == pytest.approx(3, rel=1e-3)
    (index.folder / "statistics" / "00000000.json").write_text("{")
    assert block_statistics(index, 0)["norm_mean"] == pytest.approx(3, rel=1e-3)


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.floats(0.5, 2, width=16)).filter(lambda row: row[0] != 1),
        min_size=2,
        max_size=40,
    ),
    st.data(),
)
def test_drift_is_that_of_the_new_rows_alone(rows, data) -> None:
    """Rows are (positions, length); where a run ends within a block changes nothing."""
    n_old = data.draw(st.integers(1, len(rows) - 1))

    def measured(part):
        lines = []
        for start in range(0, len(part), 7):
            block = part[start : start + 7]
            live = [length for n, length in block if n]
            lines.append(
                {
                    "n_rows": len(block),
                    "n_empty": sum(n == 0 for n, _ in block),
                    "n_nonfinite": 0,
                    "n_zero": 0,
                    "n_live": len(live),
                    "positions_sum": sum(n for n, _ in block),
                    "norm_sum": sum(live),
                    "norm_square_sum": sum(length**2 for length in live),
                    "norm_min": min(live, default=None),
                    "norm_max": max(live, default=None),
                }
            )
        return index_statistics(lines)

    old, new = rows[:n_old], rows[n_old:]
    found = drift(measured(rows), measured(old))
    assert found["n_new"] == len(new)
    share = [np.mean([n == 0 for n, _ in part]) for part in (old, new)]
    assert found["empty_share_change"] == pytest.approx(share[1] - share[0])
    lengths = [[length for n, length in part if n] for part in (old, new)]
    if all(lengths):
        change = np.mean(lengths[1]) - np.mean(lengths[0])
        assert found["norm_mean_change"] == pytest.approx(change, abs=1e-9)
        counts = [np.mean([n for n, _ in part if n]) for part in (old, new)]
        assert found["positions_mean_ratio"] == pytest.approx(counts[1] / counts[0])
    else:
        assert found["norm_mean_change"] is None


def test_the_first_run_has_nothing_to_drift_from() -> None:
    found = drift({"n_rows": 5}, None)
    assert found.pop("n_new") == 5
    assert set(found.values()) == {None}


# ------------------------------------------------------------------------------------ judging


def test_a_sound_index_passes_and_is_not_judged_twice(tmp_path, monkeypatch) -> None:
    index = stored(tmp_path, unit_rows(40), positions(40), commit=False)
    report = check_index(index, 40)
    assert (report.success, report.warnings) == (True, ())
    assert Path(report.data_docs).is_file()
    monkeypatch.setattr(index_gate, "run_gate", lambda *_, **__: pytest.fail("judged again"))
    assert check_index(index, 40) == report


def test_an_unfinished_index_is_not_judged(tmp_path) -> None:
    index = stored(tmp_path, unit_rows(40), positions(40), commit=False)
    index.discard_block(1)
    with pytest.raises(IncompleteError, match="1 of 3 blocks are not finished"):
        check_index(index, 40)


def test_a_refused_index_is_kept_and_goes_on_when_the_suite_only_warns(
    tmp_path, tiny_llama, monkeypatch
) -> None:
    faults.refused_index(tmp_path, tiny_llama, monkeypatch, faults.lose_a_row)
    corpus, ref = CorpusRef(str(tmp_path), "main"), IndexRef(str(tmp_path), "main")
    config = faults.index_config(tiny_llama)
    with pytest.raises(IndexRefused, match="block 1: 1 of 16 rows predict something but"):
        build_index(ref, corpus, config, faults.THREADS)  # asked again, refused again
    write_suites(tmp_path / "quality")
    quality = edit(
        tmp_path / "quality",
        "index",
        "predicts something has a signature.\n      severity: fail",
        "predicts something has a signature.\n      severity: warn",
    )
    report = build_index(ref, corpus, config, faults.THREADS, quality=quality)
    assert (report.n_sketched, report.n_rows) == (0, 40)
    assert len(report.warnings) == 1
    assert "the first is row 19 of the index" in report.warnings[0]
    assert SignatureIndex.open(ref).n_rows == 40


def test_readers_keep_their_rows_when_new_ones_are_refused(tmp_path, tiny_llama) -> None:
    corpus, ref = CorpusRef(str(tmp_path), "main"), IndexRef(str(tmp_path), "main")
    config = faults.index_config(tiny_llama)
    write_texts(corpus, "b1", tiny_texts(20))
    build_index(ref, corpus, config, faults.THREADS)
    write_suites(tmp_path / "quality")
    strict = edit(tmp_path / "quality", "index", "n_rows, min_value: 1", "n_rows, max_value: 30")
    write_texts(corpus, "b2", tiny_texts(40)[20:], first=20)
    with pytest.raises(IndexRefused, match="readers keep the 20 rows that they had"):
        build_index(ref, corpus, config, faults.THREADS, quality=strict)
    assert SignatureIndex.open(ref).n_rows == 20
    assert build_index(ref, corpus, config, faults.THREADS).n_sketched == 0
    assert SignatureIndex.open(ref).n_rows == 40
