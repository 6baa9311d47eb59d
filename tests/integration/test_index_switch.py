"""Another model or signature: a new index beside the old one, and a name that is switched."""

from pathlib import Path

import pytest
from tiny_rows import tiny_texts, write_texts

from storage.catalog import list_artifacts
from storage.corpus import Corpus
from storage.errors import MismatchError, NotFoundError
from storage.index_names import exact_ref, index_place, switch_index
from storage.refs import CorpusRef, IndexRef
from storage.signatures import SignatureIndex
from tasks.config import IndexConfig, ModelConfig, RuntimeConfig
from tasks.index_generation import index_for, make_current
from tasks.signature_config import ResidualConfig, SeparableSketch, SignatureConfig, WindowConfig
from tasks.signatures import build_index

RUNTIME = RuntimeConfig(device="cpu", batch_tokens=64)


def settings_of(model: Path, residual_dim: int) -> IndexConfig:
    return IndexConfig(
        model=ModelConfig(name=str(model), dtype="float32"),
        signature=SignatureConfig(
            residual=ResidualConfig(temperature=1.0, top_k=64),
            sketch=SeparableSketch(residual_dim=residual_dim, hidden_dim=8, projected_dim=4),
            window=WindowConfig(tokens=24, overlap=6),
        ),
        block_rows=8,
    )


def test_a_name_is_switched_when_the_new_index_is_whole_and_back(tmp_path: Path, tiny_llama: Path):
    root = str(tmp_path / "store")
    corpus, name = CorpusRef(root, "main"), IndexRef(root, "main")
    write_texts(corpus, "b1", tiny_texts(10))
    one, two = settings_of(tiny_llama, 8), settings_of(tiny_llama, 16)

    def refreshed(config: IndexConfig):
        built = index_for(name, corpus, config, RUNTIME)
        report = build_index(built, corpus, config, RUNTIME)
        return built, report, make_current(name, built)

    built, report, old = refreshed(one)
    assert (built, report.n_sketched, old) == (name, 10, "")
    first = SignatureIndex.open(name)
    block = first.read_block(0)

    aside = index_for(name, corpus, two, RUNTIME)
    assert aside != name
    assert index_for(name, corpus, two, RUNTIME) == aside  # a stopped run goes on with the same
    assert SignatureIndex.open(name).index_id == first.index_id
    built, report, old = refreshed(two)
    assert (built, report.n_sketched) == (aside, 10)
    second = SignatureIndex.open(name)
    assert (first.n_numbers, second.n_numbers) == (96, 160)
    assert second.index_id != first.index_id

    # who reads the old one goes on, and finds it by a name that stays
    assert (first.read_block(0)[0] == block[0]).all()
    assert SignatureIndex.open(IndexRef(root, old)).index_id == first.index_id
    assert exact_ref(root, first.folder).index == old
    assert {(one.name, one.id) for one in list_artifacts(root) if one.kind == "index"} == {
        ("main", second.index_id),
        (old, first.index_id),
    }

    # rows that come go to what the name means; the way back costs only those
    write_texts(corpus, "b2", tiny_texts(12)[10:], first=10)
    assert refreshed(two)[1].n_sketched == 4
    built, report, _ = refreshed(one)
    assert report.n_sketched == 4
    assert SignatureIndex.open(name).index_id == first.index_id
    assert Corpus(corpus).n_rows == SignatureIndex.open(name).n_rows

    write_texts(CorpusRef(root, "other"), "b1", tiny_texts(3))
    with pytest.raises(MismatchError, match=r"of another corpus"):
        index_for(name, CorpusRef(root, "other"), one, RUNTIME)


def test_names_that_mean_nothing(tmp_path: Path):
    root = str(tmp_path)
    (tmp_path / "indexes").mkdir()
    assert index_place(IndexRef(root, "main")).name == "main"
    assert index_place(IndexRef(root, "main.0123abcd")).name == "main.0123abcd"
    with pytest.raises(NotFoundError, match=r"could mean"):
        switch_index(IndexRef(root, "main"), IndexRef(root, "main.0123abcd"))
    for bad in ("../x", "a/b.01234567", "A.01234567", "x" * 65):
        with pytest.raises(ValueError, match=r"not a valid name"):
            index_place(IndexRef(root, bad))
