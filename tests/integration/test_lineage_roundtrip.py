"""Every released row leads back to its source line, and every source line forward to releases."""

import numpy as np
import pytest
from scored_store import make_scored_store

from storage.errors import NotFoundError
from storage.lineage import walk_back, walk_forward
from storage.releases import open_release
from storage.signatures import SignatureIndex
from tasks.config import RuntimeConfig, ScoreConfig
from tasks.release import release
from tasks.release_config import ReleaseConfig, TopK
from tasks.scoring import score

KINDS = ["source", "row", "batch", "index", "scores", "release"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    store = make_scored_store(str(tmp_path_factory.mktemp("lineage") / "store"))
    scores = score(store.index, store.queries, ScoreConfig(top_k=5), RuntimeConfig(workers=2))
    config = ReleaseConfig(select=TopK(top_k=20), rows_per_shard=8)
    return store, scores.ref, release(scores.ref, "main", config).ref


def test_every_released_row_leads_back_to_its_source_line(world):
    store, scores, published = world
    index = SignatureIndex.open(store.index)
    for row in open_release(published).rows().to_pylist():
        steps = {step.kind: step for step in walk_back(store.root, row["row_id"])}
        assert list(steps) == KINDS
        assert steps["source"].id == f"{row['source']}:{row['source_line']}"
        batch_id, position = row["lineage_id"].split(":")
        assert steps["batch"].id == batch_id
        assert steps["batch"].detail["position_in_batch"] == int(position)
        assert steps["scores"].id == scores.scores_id
        assert steps["scores"].detail["value"] == row["score"]
        assert steps["release"].id == published.release_id
        assert steps["release"].detail["rank"] == row["rank"]
        # the block and place that lineage names hold the signature that was scored
        assert steps["index"].id == index.index_id
        signatures, _ = index.read_block(steps["index"].detail["block"])
        expected = store.signatures[store.row_ids.index(row["row_id"])]
        found = signatures[steps["index"].detail["position_in_block"]]
        assert np.array_equal(found, expected)


def test_every_source_line_leads_forward(world):
    store, _, published = world
    released = {row["source_line"]: row for row in open_release(published).rows().to_pylist()}
    for line in range(1, 71):
        steps = walk_forward(store.root, source="data/train.jsonl", line=line)
        assert [step.kind for step in steps] == (KINDS if line in released else KINDS[:-1])
        if line in released:
            assert steps[1].id == released[line]["row_id"]
    with pytest.raises(NotFoundError):
        walk_forward(store.root, source="data/train.jsonl", line=71)


def test_a_row_of_another_release_is_told_apart(world):
    store, scores, published = world
    small = release(scores, "small", ReleaseConfig(select=TopK(top_k=1))).ref
    best, second = store.best(store.values(), 2)
    both = [step.id for step in walk_back(store.root, best) if step.kind == "release"]
    assert sorted(both) == sorted([small.release_id, published.release_id])
    only = [step.id for step in walk_back(store.root, best, release=small)]
    assert small.release_id in only
    assert published.release_id not in only
    with pytest.raises(NotFoundError, match="does not hold"):
        walk_back(store.root, second, release=small)
