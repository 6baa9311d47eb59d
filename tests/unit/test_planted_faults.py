"""Every gate catches its planted fault, and what it says stands word for word in the docs."""

import re
from pathlib import Path

import planted_faults as faults
import pytest

from storage.errors import IncompleteError
from storage.index_quality import IndexQuality
from storage.refs import IndexRef
from storage.scores import last_scores
from storage.signatures import SignatureIndex
from tasks.backbone import RowTokenizer

DOCS = Path("docs/quality.md").read_text("utf-8")


def require_documented(message: str) -> None:
    """Every line that has no path or id in it stands in the documentation, word for word."""
    lines = [line.strip() for line in message.splitlines()]
    plain = [line for line in lines if "/" not in line and not re.search(r"[0-9a-f]{16}", line)]
    missing = [line for line in plain if line not in DOCS]
    assert plain
    assert missing == []


def test_ingest(tmp_path: Path, row_tokenizer: RowTokenizer) -> None:
    caught = faults.refused_batch(tmp_path, row_tokenizer)
    assert "3 of 40 records were rejected (7.50%)" in str(caught)
    assert Path(caught.data_docs).is_file()
    require_documented(str(caught))
    assert not list((tmp_path / "store/corpora/main/batches").iterdir())


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (faults.lose_a_row, "block 1: 1 of 16 rows predict something but are all zero"),
        (faults.break_two_rows, "block 1: 2 of 16 rows are not finite"),
        (faults.forget_to_scale, "block 1: the longest signature has length 30"),
    ],
)
def test_index(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, spoil, said: str
) -> None:
    caught = faults.refused_index(tmp_path, tiny_llama, monkeypatch, spoil)
    assert said in str(caught)
    assert Path(caught.data_docs).is_file()
    require_documented(str(caught))
    index = SignatureIndex.open(IndexRef(str(tmp_path), "main"))
    with pytest.raises(IncompleteError):
        _ = index.n_rows  # readers see nothing of it
    assert all(index.block_record(block) for block in range(3))  # and nothing is lost


def test_drift_of_an_index_warns(tmp_path: Path, tiny_llama: Path) -> None:
    warnings = faults.index_that_drifts(tmp_path, tiny_llama)
    assert len(warnings) == 2
    assert "40.0% of the 10 new rows predict nothing" in warnings[0]
    assert "predict 0.03 times as many positions as the rows before" in warnings[1]
    assert [text for text in warnings if text not in DOCS] == []
    noted = IndexQuality(SignatureIndex.open(IndexRef(str(tmp_path), "main"))).verdict()
    assert noted is not None
    assert (noted["last"]["n_rows"], noted["statistics"]["n_rows"]) == (40, 50)


def test_scores(tmp_path: Path) -> None:
    caught = faults.scores_without_a_query(tmp_path)
    assert "all 68 live rows have the value 0" in str(caught)
    assert Path(caught.data_docs).is_file()
    require_documented(str(caught))
    root = str(tmp_path / "store")
    assert last_scores(root, index="main", query_set="main", but="-") is None


def test_drift_of_scores_warns(tmp_path: Path) -> None:
    report = faults.scores_turned_round(tmp_path)
    assert len(report.warnings) == 1
    assert "correlation -1.000 with scores" in report.warnings[0]
    assert re.sub(r"[0-9a-f]{16}", "<id>", report.warnings[0]) in DOCS
    assert Path(report.data_docs).is_file()


def test_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    caught = faults.refused_release(tmp_path, monkeypatch)
    assert "row 5: prompt and completion do not make the text" in str(caught)
    require_documented(str(caught))
    kept = [path.name for path in (tmp_path / "store/releases/main").iterdir()]
    assert kept == ["refused"]  # its report, and no release
