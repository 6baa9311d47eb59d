"""What lies in a release's folder, how it is found again, and what other programs make of it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scored_store import make_scored_store

from storage.errors import CorruptionError
from storage.files import file_sha256
from storage.refs import ReleaseRef
from storage.release_pointer import latest, moves, roll_back
from storage.releases import (
    ATTRIBUTES_SCHEMA,
    DROPPED_SCHEMA,
    RELEASE_SCHEMA,
    all_releases,
    open_release,
)
from tasks.config import RuntimeConfig, ScoreConfig
from tasks.release import release
from tasks.release_config import ReleaseConfig, TopK
from tasks.release_export import export_dataset, export_viewer
from tasks.scoring import score

THREADS = RuntimeConfig(workers=2)
TWELVE = ReleaseConfig(select=TopK(top_k=12), rows_per_shard=5, formats=("parquet", "jsonl"))
WITHOUT_NETWORK = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A store with scores; releases may be added under new names."""
    store = make_scored_store(str(tmp_path_factory.mktemp("layout") / "store"))
    return store, score(store.index, store.queries, ScoreConfig(top_k=5), THREADS).ref


@pytest.fixture(scope="module")
def published(scored):
    """One release of the twelve best rows in both formats; do not change it."""
    return release(scored[1], "twelve", TWELVE)


def test_the_manifest_lists_every_file_with_its_sums(published):
    opened = open_release(published.ref)
    folder, manifest = opened.folder, opened.manifest
    listed = {entry["name"]: entry for entry in manifest["files"]}
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    extra = {name for name in there - set(listed) if not name.startswith("quality/")}
    assert extra <= {"manifest.json", "environment.json", "report.html", "cost.json"}
    for name, entry in listed.items():
        assert entry["bytes"] == (folder / name).stat().st_size
        assert entry["sha256"] == file_sha256(folder / name)
    data = [entry for name, entry in listed.items() if name.startswith("data/")]
    assert [entry["rows"] for entry in data] == [5, 5, 2]
    assert sum(entry["tokens"] for entry in data) == manifest["n_tokens"] == published.n_tokens
    assert sum(entry["bytes"] for entry in data) == manifest["bytes"] == published.n_bytes
    assert manifest["n_shards"] == 3
    assert manifest["n_rows"] == 12


def test_the_manifest_names_parents_and_versions(scored, published):
    store, scores = scored
    manifest = open_release(published.ref).manifest
    kinds = [(parent["kind"], parent["id"]) for parent in manifest["parents"]]
    assert kinds[0] == ("scores", scores.scores_id)
    assert kinds[1] == ("query set", store.queries.version)
    assert [id_ for kind, id_ in kinds if kind == "batch"] == ["b1", "b2"]
    assert manifest["versions"]["format"] == 1
    assert "report" not in manifest["lineage"]["release"]["config"]


def test_attributes_lie_by_id_and_lead_to_the_rows(published):
    opened = open_release(published.ref)
    attributes, rows = opened.attributes(), opened.rows()
    assert attributes.schema.equals(ATTRIBUTES_SCHEMA)
    ids = attributes["row_id"].to_pylist()
    assert ids == sorted(rows["row_id"].to_pylist())
    shared = ["row_id", "rank", "score", "n_tokens", "source", "source_line", "lineage_id"]
    assert attributes.sort_by("rank").select(shared).equals(rows.select(shared))
    for row in rows.to_pylist():
        assert opened.find(row["row_id"]) == row
    assert opened.find("row-that-is-not-there") is None


def test_statistics_of_row_groups_hold_no_text(published):
    file = pq.ParquetFile(open_release(published.ref).data_files[0])
    columns = [file.metadata.row_group(0).column(i) for i in range(len(RELEASE_SCHEMA))]
    about = {column.path_in_schema: column.statistics for column in columns}
    assert (about["rank"].min, about["rank"].max) == (1, 5)
    assert about["row_id"].has_min_max
    assert not any(about[name] for name in ("text", "prompt", "completion"))


def test_lines_are_the_rows(published):
    opened = open_release(published.ref)
    files = sorted(opened.folder.glob("jsonl/*.jsonl"))
    assert files[0].name == "train-00000-of-00003.jsonl"
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert lines == opened.rows().to_pylist()


def test_statistics_tell_before_from_after(scored, published):
    store, _ = scored
    found = open_release(published.ref).statistics()
    n_able = int((store.n_positions > 0).sum())
    assert found["rows"] == {"before": n_able, "after": 12}
    assert found["tokens"]["after"] == published.n_tokens
    for when, n_rows in found["rows"].items():
        assert sum(found["length"][when]) == n_rows
        for field in ("source", "label"):
            assert sum(entry[when] for entry in found[field]["values"]) == n_rows
        assert sum(entry[when] for entry in found["language"]["values"]) == n_rows
    labels = {entry["value"]: entry["after"] for entry in found["label"]["values"]}
    assert labels.keys() == {"even", None}


def test_what_was_dropped_has_no_text(published):
    assert open_release(published.ref).dropped().schema.equals(DROPPED_SCHEMA)
    assert not {"text", "prompt", "completion"} & set(DROPPED_SCHEMA.names)


def run_python(code: str, *arguments: str, home: Path) -> str:
    environment = {**os.environ, **WITHOUT_NETWORK, "HF_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


LOADERS = """
import json, sys, datasets
folder, exported = sys.argv[1:]
rows = datasets.load_dataset(folder, split='train')
attributes = datasets.load_dataset(folder, 'attributes', split='train')
copied = datasets.load_from_disk(exported)
print(json.dumps([rows['row_id'][:], attributes['row_id'][:], copied['row_id'][:],
                  copied['text'][:] == rows['text'][:], rows.column_names]))
"""


def test_datasets_opens_rows_attributes_and_the_exported_folder(published, tmp_path):
    """The folder jsonl/ beside data/ must not be taken for rows of their own."""
    exported = export_dataset(published.ref, tmp_path / "exported")
    said = run_python(LOADERS, published.path, str(exported), home=tmp_path / "home")
    ids, sorted_ids, copied, texts_equal, columns = json.loads(said)
    assert ids == copied == open_release(published.ref).rows()["row_id"].to_pylist()
    assert sorted_ids == sorted(ids)
    assert texts_equal
    assert columns == RELEASE_SCHEMA.names
    with pytest.raises(FileExistsError, match="Choose a folder"):
        export_dataset(published.ref, tmp_path / "exported")


def test_the_viewers_lines_are_the_scores(scored, published, tmp_path):
    store, _ = scored
    file = export_viewer(published.ref, tmp_path / "viewer")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    released = set(open_release(published.ref).rows()["row_id"].to_pylist())
    assert [line["example_id"] for line in lines] == [f"row-{n:06d}" for n in range(1000, 1004)]
    for number, line in enumerate(lines):
        exact = store.scores()[:, number]
        assert line["proponent_ids"] == store.best(exact, 5)
        assert line["opponent_ids"] == store.best(-exact, 5)
        assert line["opponent_scores"] == sorted(line["opponent_scores"])
        assert line["opponent_scores"][0] == exact[store.n_positions > 0].min()
        assert line["proponents"][0].startswith("question ")
        assert len(line["opponents"]) == 5
        assert line["proponent_released"] == [i in released for i in line["proponent_ids"]]
        assert line["inputs_plaintext"] + line["targets_plaintext"] == (
            f"question {1000 + number} answer {(1000 + number) ** 2}"
        )
        assert line["query_set"] == "main"


def test_an_export_of_a_damaged_release_leaves_nothing(scored, tmp_path):
    done = release(scored[1], "damaged", ReleaseConfig(select=TopK(top_k=3)))
    path = open_release(done.ref).data_files[0]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptionError, match="the manifest says"):
        export_viewer(done.ref, tmp_path / "viewer")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_release_is_not_made_latest_again(scored):
    _, scores = scored
    first = release(scores, "kept", ReleaseConfig(select=TopK(top_k=3)))
    second = release(scores, "kept", ReleaseConfig(select=TopK(top_k=4)))
    (Path(first.path) / "dropped.parquet").unlink()
    with pytest.raises(CorruptionError, match=r"dropped.parquet is missing"):
        release(scores, "kept", ReleaseConfig(select=TopK(top_k=3)))
    with pytest.raises(CorruptionError, match="was not moved"):
        roll_back(scores.root, "kept")
    assert latest(scores.root, "kept") == second.ref


def test_tokens_of_the_target_are_counted(scored, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    _, scores = scored
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = ReleaseConfig(select=TopK(top_k=7), rows_per_shard=4, target_tokenizer=str(tmp_path))
    opened = open_release(release(scores, "counted", config).ref)
    attributes = opened.attributes().sort_by("rank")
    words = [len(text.split()) for text in opened.rows()["text"].to_pylist()]
    assert attributes["target_tokens"].to_pylist() == words
    assert opened.manifest["target_tokens"]["n_tokens"] == sum(words)
    data = [e for e in opened.manifest["files"] if e["name"].startswith("data/")]
    assert [entry["target_tokens"] for entry in data] == [sum(words[:4]), sum(words[4:])]
    # another tokenizer in the same folder is another release
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert release(scores, "counted", config).ref != opened.ref
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"target_tokenizer .* cannot be read"):
        release(scores, "counted", config)


STOPPED_BEFORE_THE_POINTER = """
import os, signal, sys
sys.path[:0] = sys.argv[4:]
import tasks.release
from storage.refs import ScoresRef
from tasks.release import release
from tasks.release_config import ReleaseConfig, TopK

def stop(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

tasks.release.mark_latest = stop
release(ScoresRef(sys.argv[1], sys.argv[2]), sys.argv[3], ReleaseConfig(select=TopK(top_k=4)))
"""


def test_a_kill_between_publication_and_pointer_is_made_good(scored):
    _, scores = scored
    old = release(scores, "between", ReleaseConfig(select=TopK(top_k=3)))
    arguments = [scores.root, scores.scores_id, "between", *sys.path]
    child = subprocess.run([sys.executable, "-c", STOPPED_BEFORE_THE_POINTER, *arguments])
    assert child.returncode == -signal.SIGKILL
    (new,) = [ref for ref in all_releases(scores.root) if ref.name == "between" and ref != old.ref]
    assert open_release(new).verify() == []
    assert latest(scores.root, "between") == old.ref
    again = release(scores, "between", ReleaseConfig(select=TopK(top_k=4)))
    assert (again.already, again.ref) == (True, new)
    assert latest(scores.root, "between") == new
    assert [move.to for move in moves(scores.root, "between")] == [
        old.ref.release_id,
        new.release_id,
    ]
    assert roll_back(scores.root, "between") == old.ref


def test_an_old_release_without_attributes_is_still_read(scored, published, tmp_path):
    """Releases of before there were attributes: their manifests list data files alone."""
    opened = open_release(published.ref)
    opened.manifest["files"] = [
        entry for entry in opened.manifest["files"] if entry["name"].startswith("data/")
    ]
    row = opened.rows().to_pylist()[7]
    assert opened.find(row["row_id"]) == row
    assert opened.find("nobody") is None
    assert len(opened.attributes()) == len(opened.dropped()) == len(opened.leakage()) == 0
    assert isinstance(opened.ref, ReleaseRef)
    assert np.all(opened.rows()["rank"].to_numpy() > 0)
