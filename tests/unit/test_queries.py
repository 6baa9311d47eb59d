import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_model
from tiny_rows import tiny_texts, write_texts

from storage.errors import MismatchError, NotFoundError
from storage.queries import QuerySet
from storage.refs import CorpusRef, IndexRef
from storage.signatures import SignatureIndex
from tasks.attribution import attribute_text
from tasks.config import (
    FilesSource,
    IndexConfig,
    ModelConfig,
    PromptCompletionFields,
    RowsConfig,
    RuntimeConfig,
)
from tasks.queries import index_model, latest_query_set, make_query_set, query_signatures
from tasks.signature_config import ResidualConfig, SeparableSketch, SignatureConfig
from tasks.signatures import build_index

CPU = RuntimeConfig(device="cpu")
QUERIES = [
    {"prompt": "the capital of France is", "completion": " Paris", "label": "fact"},
    {"prompt": "the quick brown", "completion": " fox jumps", "label": "fox"},
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store with a small index, and the folder of its model."""
    folder = tmp_path_factory.mktemp("queries")
    model, store = tiny_model(folder / "model"), folder / "store"
    write_texts(CorpusRef(str(store), "main"), "b1", tiny_texts(6))
    config = IndexConfig(
        model=ModelConfig(name=str(model), dtype="float32"),
        signature=SignatureConfig(
            residual=ResidualConfig(temperature=1.0, top_k=64),
            sketch=SeparableSketch(residual_dim=8, hidden_dim=8, projected_dim=4),
        ),
    )
    build_index(IndexRef(str(store), "main"), CorpusRef(str(store), "main"), config, CPU)
    return store, model


def _rows(folder: Path, queries: list[dict[str, str]], name: str = "queries.jsonl") -> RowsConfig:
    file = folder / name
    file.write_text("".join(json.dumps(query) + "\n" for query in queries))
    return RowsConfig(
        source=FilesSource(paths=(str(file),)),
        fields=PromptCompletionFields(),
        label_field="label",
    )


def test_queries_are_published_with_masked_signatures(built: tuple[Path, Path], tmp_path: Path):
    root, index = str(built[0]), IndexRef(str(built[0]), "main")
    report = make_query_set(root, "facts", index, _rows(tmp_path, QUERIES), CPU)
    published = QuerySet.open(latest_query_set(root, "facts"))
    assert published.ref == report.ref
    assert report.n_queries == 2
    assert published.manifest["space"] == SignatureIndex.open(index).identity["space"]
    assert published.queries().column("label").to_pylist() == ["fact", "fox"]
    assert report.n_positions == int(published.n_positions().sum())

    texts = [query["prompt"] + query["completion"] for query in QUERIES]
    prompts = [len(query["prompt"]) for query in QUERIES]
    masked = query_signatures(index, texts, prompts, CPU)
    assert masked.dtype == np.float32
    np.testing.assert_allclose(published.signatures(), masked, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(masked, axis=1), 1, atol=1e-5)
    assert np.abs(masked - query_signatures(index, texts, [0, 0], CPU)).max() > 0.01


def test_same_queries_are_the_same_version(built: tuple[Path, Path], tmp_path: Path):
    root, index = str(built[0]), IndexRef(str(built[0]), "main")
    first = make_query_set(root, "versions", index, _rows(tmp_path, QUERIES), CPU)
    other = make_query_set(root, "versions", index, _rows(tmp_path, QUERIES[:1]), CPU)
    assert first.ref.version != other.ref.version
    assert latest_query_set(root, "versions") == other.ref
    again = make_query_set(root, "versions", index, _rows(tmp_path, QUERIES), CPU)
    assert (first.already, again.already) == (False, True)
    assert (again.ref, again.n_positions) == (first.ref, first.n_positions)
    assert latest_query_set(root, "versions") == first.ref


def test_query_and_training_row_of_one_text_share_a_signature(built: tuple[Path, Path]):
    index = IndexRef(str(built[0]), "main")
    stored, _ = SignatureIndex.open(index).read_block(0)
    found = query_signatures(index, tiny_texts(6), [0] * 6, CPU)
    np.testing.assert_allclose(found, stored.astype(np.float32), atol=1e-3)


def test_query_without_completion_is_named(built: tuple[Path, Path], tmp_path: Path):
    index = IndexRef(str(built[0]), "main")
    with pytest.raises(ValueError, match="text 2"):
        query_signatures(index, ["The fox", "The fox"], [3, 7], CPU)
    with pytest.raises(ValueError, match=r"queries\.jsonl:2|no token to predict"):
        make_query_set(
            str(built[0]),
            "empty",
            index,
            _rows(tmp_path, [QUERIES[0], {"prompt": "The fox", "completion": "", "label": "x"}]),
            CPU,
        )


def test_moved_model_is_accepted_and_another_refused(built: tuple[Path, Path], tmp_path: Path):
    root, index = str(built[0]), IndexRef(str(built[0]), "main")
    rows = _rows(tmp_path, QUERIES)
    moved = tmp_path / "moved"
    shutil.copytree(built[1], moved)
    config = ModelConfig(name=str(moved), dtype="float32")
    assert make_query_set(root, "moved", index, rows, CPU, model=config).n_queries == 2

    for other, field in [
        (ModelConfig(name=str(tiny_model(tmp_path / "n", seed=1)), dtype="float32"), "space.model"),
        (ModelConfig(name=str(built[1]), dtype="bfloat16"), "space.dtype"),
        (ModelConfig(name=str(tiny_model(tmp_path / "b", bos=True)), dtype="float32"),
         "space.tokenizer"),
    ]:  # fmt: skip
        with pytest.raises(MismatchError) as caught:
            make_query_set(root, "moved", index, rows, CPU, model=other)
        assert [name for name, _, _ in caught.value.differences] == [field]


def test_model_of_an_index_has_its_resolved_number_format(built: tuple[Path, Path]):
    index = SignatureIndex.open(IndexRef(str(built[0]), "main"))
    assert index_model(index) == ModelConfig(name=str(built[1]), dtype="float32")


def test_a_model_given_by_a_relative_path_is_found_from_another_folder(
    built: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    store = tmp_path / "store"
    write_texts(CorpusRef(str(store), "main"), "b1", tiny_texts(3))
    index = IndexRef(str(store), "main")
    monkeypatch.chdir(built[1].parent)
    model = ModelConfig(name=built[1].name, dtype="float32")
    config = IndexConfig(model=model, signature="paper-352")
    build_index(index, CorpusRef(str(store), "main"), config, CPU)
    monkeypatch.chdir(tmp_path)
    assert query_signatures(index, ["a b"], [0], CPU).shape[0] == 1


def test_a_text_that_no_tokenizer_can_hold_is_refused(built: tuple[Path, Path]):
    index = IndexRef(str(built[0]), "main")
    with pytest.raises(ValueError, match="lone surrogate U\\+DCFF at character 4"):
        attribute_text(index, prompt="what", completion="\udcff", top_k=1, runtime=CPU)


def test_missing_index_and_query_set(tmp_path: Path, built: tuple[Path, Path]):
    with pytest.raises(NotFoundError):
        query_signatures(IndexRef(str(built[0]), "none"), ["a b"], [0], CPU)
    with pytest.raises(NotFoundError):
        latest_query_set(str(built[0]), "none")
