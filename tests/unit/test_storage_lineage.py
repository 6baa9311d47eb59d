import shutil
from pathlib import Path

import pytest
from store_samples import (
    SOURCE,
    add_batch,
    add_query_set,
    add_release,
    add_scores,
    build,
    make_rejected,
    make_rows,
)

from storage.catalog import list_artifacts
from storage.corpus import BatchWriter
from storage.errors import NotFoundError
from storage.lineage import walk_back, walk_forward
from storage.refs import CorpusRef, IndexRef, ReleaseRef


@pytest.fixture(name="root")
def filled_store(tmp_path: Path) -> str:
    root = str(tmp_path / "store")
    corpus = CorpusRef(root, "main")
    add_batch(corpus, "b1", 0, 6)
    with BatchWriter(corpus, "b2") as writer:
        writer.add(make_rows(6, 9))
        writer.reject(make_rejected(77))
        writer.commit({})
    index = build(IndexRef(root, "main"), 9, ["b1", "b2"])
    add_query_set(root)
    add_scores(root, index)
    add_release(root)
    return root


def test_a_row_is_followed_from_its_line_to_the_release(root: str) -> None:
    steps = walk_back(root, "row-000003")
    assert [step.kind for step in steps] == [
        "source",
        "row",
        "batch",
        "index",
        "scores",
        "release",
    ]
    details = {step.kind: step.detail for step in steps}
    assert steps[0].id == f"{SOURCE}:4"
    assert details["batch"]["position_in_batch"] == 3
    assert details["index"] == {"index": "main", "block": 0, "position_in_block": 3}
    assert details["scores"]["value"] == pytest.approx(0.03)
    assert details["release"]["rank"] == 4
    assert details["release"]["lineage_id"] == "b1:3"


def test_a_row_of_a_later_batch_keeps_both_positions(root: str) -> None:
    steps = {step.kind: step.detail for step in walk_back(root, "row-000007")}
    assert steps["batch"]["position_in_batch"] == 1
    assert steps["batch"]["position"] == 7
    assert steps["index"]["block"] == 1
    assert "release" not in steps


def test_one_release_shows_only_the_way_into_it(root: str) -> None:
    add_release(root, "r2", n_rows=2)
    ids = [
        step.id for step in walk_back(root, "row-000001", release=ReleaseRef(root, "picked", "r2"))
    ]
    assert "r2" in ids
    assert "r1" not in ids
    with pytest.raises(NotFoundError, match="does not hold row"):
        walk_back(root, "row-000004", release=ReleaseRef(root, "picked", "r2"))


def test_forward_from_a_line_is_the_way_back_from_its_row(root: str) -> None:
    assert walk_forward(root, source=SOURCE, line=4) == walk_back(root, "row-000003")


def test_forward_from_a_rejected_line_gives_the_reason(root: str) -> None:
    (step,) = walk_forward(root, source=SOURCE, line=77)
    assert step.kind == "rejected"
    assert step.detail == {"reason": "not JSON", "batch_id": "b2"}


def test_a_row_that_changed_leads_to_the_releases_of_each_version(root: str) -> None:
    """A release that holds the version of before is found, under that version alone."""
    with BatchWriter(CorpusRef(root, "main"), "b3") as writer:
        again = make_rows(3, 4, source="data/later.jsonl")
        writer.add(again)
        writer.commit({})
    steps = walk_back(root, "row-000003")
    starts = [place for place, step in enumerate(steps) if step.kind == "source"]
    newest, before = steps[: starts[1]], steps[starts[1] :]
    assert newest[0].id == "data/later.jsonl:4"
    assert [step.kind for step in newest] == ["source", "row", "batch"]
    assert [step.kind for step in before] == [
        "source", "row", "batch", "index", "scores", "release",
    ]  # fmt: skip
    assert before[-1].id == "r1"


def test_of_the_rows_that_a_line_has_had_the_newest_comes_first(root: str) -> None:
    with BatchWriter(CorpusRef(root, "main"), "b3") as writer:
        writer.add(make_rows(3, 4))
        writer.commit({})
    assert walk_forward(root, source=SOURCE, line=4) == walk_back(root, "row-000003")


@pytest.mark.parametrize("gone", ["scores/s1", "indexes/main"])
def test_a_release_is_found_even_when_what_it_was_made_from_is_gone(root: str, gone: str) -> None:
    shutil.rmtree(Path(root, gone))
    kinds = [step.kind for step in walk_back(root, "row-000003")]
    lost = {"scores/s1": "scores", "indexes/main": "index"}[gone]
    assert "release" in kinds
    assert lost not in kinds


def test_a_record_of_a_refused_file_gives_the_reason(root: str) -> None:
    with BatchWriter(CorpusRef(root, "main"), "bad") as writer:
        writer.reject(make_rejected(5000))
        writer.refuse({})
    (step,) = walk_forward(root, source=SOURCE, line=5000)
    assert step.detail == {"reason": "not JSON", "refused_batch": "bad"}


def test_unknown_rows_and_lines_say_so(root: str) -> None:
    with pytest.raises(NotFoundError, match="no corpus in"):
        walk_back(root, "row-999999")
    with pytest.raises(NotFoundError, match="nothing in"):
        walk_forward(root, source=SOURCE, line=10_000)


def test_listing_names_every_artifact(root: str) -> None:
    listed = [(item.kind, item.name, item.id) for item in list_artifacts(root)]
    assert [kind for kind, _, _ in listed] == [
        "batch",
        "batch",
        "index",
        "query set",
        "scores",
        "release",
    ]
    assert listed[0] == ("batch", "main", "b1")
    assert listed[-1] == ("release", "picked", "r1")
    assert all(item.created is not None for item in list_artifacts(root))
