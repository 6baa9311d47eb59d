"""Two releases compared, and a release that is too far from the latest: held, then accepted."""

import shutil

import pytest
from scored_store import make_scored_store

from storage.errors import NotFoundError
from storage.lineage import walk_back
from storage.refs import CorpusRef, ReleaseRef, ScoresRef
from storage.release_pointer import latest
from storage.releases import open_release
from tasks.config import RuntimeConfig, ScoreConfig
from tasks.drift_config import NO_LIMITS, DriftConfig, Limit
from tasks.release import release
from tasks.release_config import LeakageConfig, Quota, ReleaseConfig, TopK
from tasks.release_diff import diff_releases, source_kind
from tasks.release_drift import ReleaseHeld, held_back, is_held, noted_drift, require_not_held
from tasks.release_history import accept_release, go_back, list_moves, list_releases
from tasks.scoring import score
from tasks.store_status import store_status
from tasks.takedown import take_down


@pytest.fixture(name="base", scope="module")
def scored_once(tmp_path_factory):
    store = make_scored_store(str(tmp_path_factory.mktemp("drift") / "store"))
    scores = score(store.index, store.queries, ScoreConfig(top_k=5), RuntimeConfig(workers=1))
    return scores.ref


@pytest.fixture(name="scores")
def scored_copy(base, tmp_path):
    root = shutil.copytree(base.root, tmp_path / "store", symlinks=True)
    return ScoresRef(str(root), base.scores_id)


def publish(scores, n_rows, *, drift=NO_LIMITS, prefer="highest"):
    config = ReleaseConfig(
        select=TopK(top_k=n_rows), prefer=prefer, leakage=LeakageConfig(action="off")
    )
    return release(scores, "main", config, drift=drift)


def test_rows_are_counted_by_plain_sets_and_scores_by_kept_rows(scores):
    first, second = publish(scores, 20), publish(scores, 30, prefer="lowest")
    old, new = ({*open_release(one.ref).rows()["row_id"].to_pylist()} for one in (first, second))
    found = diff_releases(first.ref, second.ref)
    assert found.rows == {
        "kept": len(old & new),
        "changed": 0,
        "came": len(new - old),
        "went": len(old - new),
    }
    assert found.measures["replaced"] == pytest.approx(len(new - old) / 30)
    assert found.measures["lost"] == pytest.approx(len(old - new) / 20)
    assert found.measures["size"] == pytest.approx(0.5)
    # the same rows of the same scores: nothing shifted, whatever came beside them
    kept = diff_releases(first.ref, publish(scores, 25).ref)
    assert kept.rows == {"kept": 20, "changed": 0, "came": 5, "went": 0}
    assert (kept.measures["score_shift"], kept.measures["score_order"]) == pytest.approx((0, 0))
    assert kept.measures["sources"] == pytest.approx(0)
    assert kept.came == {"there before": 5}
    assert [one["rank"] for one in kept.best["came"]] == [21, 22, 23, 24, 25]
    fields = {one["field"]: (one["before"], one["after"]) for one in kept.settings}
    assert fields == {"releasing.select.top_k": (20, 25)}
    assert second.drift.against == first.ref.release_id
    assert second.drift.diff == found


def test_why_rows_went_is_told(scores):
    first = publish(scores, 6)
    best = open_release(first.ref).rows()["row_id"].to_pylist()
    take_down(CorpusRef(scores.root, "main"), row_ids=best[:2], reason="asked for")
    assert diff_releases(first.ref, publish(scores, 3).ref).went == {
        "takedown": 2,
        "outranked": 1,
    }


def test_a_row_that_was_kept_out_says_why(scores):
    config = ReleaseConfig(
        select=TopK(top_k=9),
        quotas=(Quota(field="label", value="even", max_rows=2),),
        leakage=LeakageConfig(action="off"),
    )
    published = open_release(release(scores, "main", config).ref)
    dropped = published.dropped().to_pylist()
    steps = [
        step for step in walk_back(scores.root, dropped[0]["row_id"]) if step.kind == "dropped"
    ]
    assert [(step.id, step.detail["reason"]) for step in steps] == [
        (published.ref.release_id, dropped[0]["reason"])
    ]


def test_a_release_beyond_a_limit_is_held_until_it_is_accepted(scores):
    first = publish(scores, 20)
    assert first.drift is None  # nothing to compare with
    limits = DriftConfig(replaced=Limit(warn=0.1, fail=0.2), size=Limit(warn=0.1))
    near = publish(scores, 23, drift=limits)
    assert not near.drift.held
    assert [text for text in near.warnings if text.startswith("drift:")] == [
        "drift: rows that the release before has not, as share of the new one: 0.13, limit 0.1 "
        "(drift.replaced.warn)",
        "drift: change of the number of rows, as share of the number before: 0.15, limit 0.1 "
        "(drift.size.warn)",
    ]
    require_not_held(near.drift)
    assert latest(scores.root, "main") == near.ref

    far = publish(scores, 50, drift=limits)
    assert latest(scores.root, "main") == near.ref
    assert open_release(far.ref).verify() == []
    with pytest.raises(ReleaseHeld) as held:
        require_not_held(far.drift)
    message = str(held.value)
    assert "0.54, limit 0.2 (drift.replaced.fail)" in message
    assert f"rise diff {near.ref.release_id} {far.ref.release_id}" in message
    assert f"rise release accept main --id {far.ref.release_id}" in message
    # asking again changes nothing, and says the same
    assert publish(scores, 50, drift=limits).drift.held
    states = {one["id"]: (one["latest"], one["held"]) for one in list_releases(scores.root)}
    assert states == {
        first.ref.release_id: (False, False),
        near.ref.release_id: (True, False),
        far.ref.release_id: (False, True),
    }
    assert noted_drift(far.ref)["against"] == near.ref.release_id

    assert accept_release(scores.root, "main") == (near.ref, far.ref)
    assert [move["why"] for move in list_moves(scores.root)][-1] == "accepted"
    assert publish(scores, 50, drift=limits).drift is None  # it is the latest
    # once it was the latest, it is history as any other
    go_back(scores.root, "main")
    assert latest(scores.root, "main") == near.ref
    assert not is_held(far.ref)
    with pytest.raises(NotFoundError, match="held, found none"):
        accept_release(scores.root, "main")
    with pytest.raises(ValueError, match=r"is not held.*rollback main --to"):
        accept_release(scores.root, "main", far.ref.release_id)
    with pytest.raises(ReleaseHeld, match=f"rollback main --to {far.ref.release_id}"):
        require_not_held(publish(scores, 50, drift=limits).drift)
    # of several that are held, those count that are held back from the latest there is
    for number in (60, 66):
        publish(scores, number, drift=limits)
    with pytest.raises(
        NotFoundError, match=r"one release of 'main' that is held, found [0-9a-f]+, "
    ):
        accept_release(scores.root, "main")
    farthest = publish(scores, 66, drift=limits).ref
    accept_release(scores.root, "main", farthest.release_id)
    assert held_back(scores.root, "main") == []
    assert store_status(scores.root)["releases"][0]["held"] == []


def test_without_limits_every_release_becomes_the_latest_even_over_a_damaged_one(scores):
    first = publish(scores, 20)
    for path in first.ref.root, *open_release(first.ref).folder.glob("attributes/*"):
        if path != first.ref.root:
            path.unlink()
    limits = DriftConfig(lost=Limit(fail=0.5))
    with pytest.raises(Exception, match="is missing"):
        publish(scores, 21, drift=limits)
    assert latest(scores.root, "main") == first.ref
    second = publish(scores, 21)
    assert latest(scores.root, "main") == second.ref
    assert any("cannot be compared" in text for text in second.warnings)
    assert is_held(ReleaseRef(scores.root, "main", "nobody")) is False


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("inbox/day-2026-05-01.jsonl", "inbox/day-#-#-#.jsonl"),
        ("part-00000-3f2a9cde-of-2.parquet", "part-#-#-of-#.parquet"),
        ("cafebabe/deed.jsonl", "cafebabe/deed.jsonl"),
        ("web/en.jsonl", "web/en.jsonl"),
    ],
)
def test_files_of_one_kind_count_as_one_source(source, kind):
    assert source_kind(source) == kind
