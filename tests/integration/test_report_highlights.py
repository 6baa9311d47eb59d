"""Token highlights of a real, tiny model, from a release made the usual way."""

import re
import shutil
from pathlib import Path

import pytest
from tiny_rows import tiny_texts, write_texts

from storage.refs import CorpusRef, IndexRef, ReleaseRef
from storage.releases import open_release
from tasks.config import (
    FilesSource,
    IndexConfig,
    ModelConfig,
    PromptCompletionFields,
    RowsConfig,
    RuntimeConfig,
    ScoreConfig,
)
from tasks.queries import make_query_set
from tasks.release import release
from tasks.release_config import Collapse, ReleaseConfig, ReportConfig, TopK
from tasks.report import write_report
from tasks.report_data import read_report_data
from tasks.report_examples import read_examples
from tasks.scoring import score
from tasks.signature_config import PrincipalProjection, ResidualConfig, SignatureConfig
from tasks.signatures import build_index

CPU = RuntimeConfig(device="cpu", batch_tokens=200)
QUERIES = """\
{"prompt": "row 3: the quick", "completion": " brown fox jumps over a dog"}
{"prompt": "", "completion": "the capital of France is a city"}
"""


@pytest.fixture(scope="module")
def model(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the model that a test may delete."""
    folder = tmp_path_factory.mktemp("models") / "model"
    shutil.copytree(tiny_llama, folder)
    return folder


@pytest.fixture(scope="module")
def released(model: Path, tmp_path_factory: pytest.TempPathFactory) -> ReleaseRef:
    root = tmp_path_factory.mktemp("store")
    store, index = str(root / "store"), IndexRef(str(root / "store"), "main")
    texts = [f"number {n}: {text}" for n, text in enumerate(tiny_texts(24))]
    write_texts(CorpusRef(store, "main"), "b1", texts)
    config = IndexConfig(
        model=ModelConfig(name=str(model), dtype="float32"),
        signature=SignatureConfig(
            residual=ResidualConfig(temperature=1.0, top_k=64),
            sketch=PrincipalProjection(hidden_dim=8, projected_dim=4, calibration_tokens=400),
        ),
    )
    build_index(index, CorpusRef(store, "main"), config, CPU)
    (root / "queries.jsonl").write_text(QUERIES)
    source = FilesSource(paths=(str(root / "queries.jsonl"),))
    rows = RowsConfig(source=source, fields=PromptCompletionFields())
    queries = make_query_set(store, "asked", index, rows, CPU).ref
    scores = score(index, queries, ScoreConfig(top_k=3), CPU).ref
    wanted = ReleaseConfig(select=TopK(top_k=6), collapse=Collapse(text=0.99))
    return release(scores, "picked", wanted).ref


def test_tokens_make_the_score_of_the_row_for_the_query_beside_it(released: ReleaseRef):
    data = read_report_data(open_release(released))
    found = read_examples(data, 2, highlights=True, runtime=CPU)
    assert found.no_highlights is None
    for example in found:
        assert example.tokens is not None
        assert example.answered is not None
        # signatures in the index are float16
        assert example.tokens.score == pytest.approx(example.answered.score, abs=2e-3)
        total = sum(one.contribution for one in example.tokens.row)
        assert total == pytest.approx(example.tokens.score, abs=1e-5)


def test_highlights_are_on_the_page_when_asked_for(released: ReleaseRef):
    plain = write_report(released, ReportConfig(examples=2), runtime=CPU)
    assert '<mark class="p' not in Path(plain.path).read_text()
    lit = write_report(released, ReportConfig(examples=2, highlights=True), runtime=CPU)
    html = Path(lit.path).read_text()
    assert lit.no_highlights is None
    assert len(re.findall(r'<mark class="[pn][1-6]" title="[^"]*% of the score">', html)) > 10
    assert "All " in html
    assert open_release(released).verify() == []


def test_a_model_that_is_gone_is_said_and_is_no_error(released: ReleaseRef, model: Path):
    away = model.with_name("away")
    model.rename(away)
    try:
        page = write_report(released, ReportConfig(examples=1, highlights=True), runtime=CPU)
    finally:
        away.rename(model)
    assert page.no_highlights is not None
    assert "No token highlights: " in Path(page.path).read_text()
