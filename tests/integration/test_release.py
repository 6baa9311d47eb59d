"""Publishing a release: joined, gated, loadable, atomic, reproducible."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scored_store import make_scored_store
from store_samples import tree_bytes

from storage.corpus import Corpus
from storage.errors import CorruptionError, MismatchError
from storage.files import digest
from storage.refs import CorpusRef, ReleaseRef, ScoresRef
from storage.release_pointer import latest
from storage.release_writer import ReleaseWriter
from storage.releases import RELEASE_SCHEMA, all_releases, open_release
from storage.rows import write_table
from storage.scores import Scores
from tasks.catalog import list_store
from tasks.config import RuntimeConfig, ScoreConfig
from tasks.release import release
from tasks.release_config import ReleaseConfig, Threshold, TopK
from tasks.release_gate import ReleaseRefused, StagedFile, StagedRelease, check_release
from tasks.scoring import score

THREADS = RuntimeConfig(workers=2)
BEST_12 = ReleaseConfig(select=TopK(top_k=12), rows_per_shard=5)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A store with scores; releases may be added under new names."""
    store = make_scored_store(str(tmp_path_factory.mktemp("release") / "store"))
    return store, score(store.index, store.queries, ScoreConfig(top_k=5), THREADS).ref


@pytest.fixture(scope="module")
def published(scored):
    """One release of the twelve best rows; do not change it."""
    return release(scored[1], "twelve", BEST_12)


def test_the_best_rows_are_released_in_order_with_their_texts(scored, published):
    store, _ = scored
    rows = open_release(published.ref).rows().to_pylist()
    assert [row["row_id"] for row in rows] == store.best(store.values(), 12)
    assert [row["rank"] for row in rows] == list(range(1, 13))
    values = dict(zip(store.row_ids, store.values().astype(np.float32), strict=True))
    corpus = Corpus(CorpusRef(store.root, "main"))
    for row in rows:
        place = corpus.locate(row["row_id"])
        assert row["score"] == values[row["row_id"]]
        assert row["lineage_id"] == f"{place.batch_id}:{place.position_in_batch}"
        assert (row["text"], row["source"]) == (place.row.text, place.row.source)
        assert row["source_line"] == place.row.source_line
        assert row["prompt"] == place.row.text[: place.row.prompt_chars]
        assert row["prompt"] + row["completion"] == row["text"]
    assert published.n_tokens == sum(row["n_tokens"] for row in rows)


def test_a_threshold_releases_every_row_that_reaches_it(scored):
    store, scores = scored
    limit = float(np.sort(store.values()[store.n_positions > 0])[-7])
    config = ReleaseConfig(select=Threshold(min_score=limit))
    rows = open_release(release(scores, "above", config).ref).rows()
    above = [value for value in store.values()[store.n_positions > 0] if value >= limit]
    assert rows["row_id"].to_pylist() == store.best(store.values(), len(above))


def test_a_selection_that_cannot_be_made_publishes_nothing(scored):
    store, scores = scored
    with pytest.raises(ValueError, match=r"top_k is 69 but 68 of 70 rows"):
        release(scores, "never", ReleaseConfig(select=TopK(top_k=69)))
    with pytest.raises(ValueError, match=r"min_score is 1000\.0"):
        release(scores, "never", ReleaseConfig(select=Threshold(min_score=1000.0)))
    assert not (Path(store.root) / "releases/never").exists()


def test_the_manifest_describes_files_and_the_whole_lineage(scored, published):
    store, scores = scored
    folder = Path(published.path)
    manifest = open_release(published.ref).manifest
    data = [entry for entry in manifest["files"] if entry["name"].startswith("data/")]
    assert [entry["rows"] for entry in data] == [5, 5, 2]
    assert [entry["name"] for entry in data] == [
        f"data/train-0000{n}-of-00003.parquet" for n in range(3)
    ]
    assert published.n_bytes == sum((folder / entry["name"]).stat().st_size for entry in data)
    assert sum(entry["tokens"] for entry in data) == published.n_tokens == manifest["n_tokens"]
    lineage = manifest["lineage"]
    assert lineage["scores"]["id"] == scores.scores_id
    assert [batch["id"] for batch in lineage["batches"]] == ["b1", "b2"]
    assert sum(batch["n_released"] for batch in lineage["batches"]) == 12
    assert lineage["sources"] == [{"source": "data/train.jsonl", "n_released": 12}]
    assert lineage["index"]["name"] == "main"
    assert lineage["index"]["id"] == digest(lineage["index"]["identity"])[:16]
    assert lineage["model"]["model"] == "model-a"
    assert (lineage["query_set"]["name"], lineage["query_set"]["version"]) == ("main", "v1")
    assert lineage["release"]["config"]["rows_per_shard"] == 5
    assert store.root not in json.dumps(manifest)
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["libraries"]["pyarrow"] == pa.__version__


def test_the_gate_leaves_a_report(published):
    page = Path(published.data_docs)
    assert page.is_file()
    verdict = json.loads((page.parent / "validation.json").read_text())
    assert verdict["success"]
    assert len(verdict["runs"][0]["checks"]) >= 13


def test_datasets_opens_it_without_a_network(published, tmp_path):
    code = (
        "import sys, json, datasets\n"
        "rows = datasets.load_dataset(sys.argv[1], split='train')\n"
        "print(json.dumps([rows['row_id'][:], rows['rank'][:], str(rows.features['score'])]))\n"
    )
    environment = {
        **os.environ,
        "HF_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    }
    ran = subprocess.run(
        [sys.executable, "-c", code, published.path],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    row_ids, ranks, kind = json.loads(ran.stdout.splitlines()[-1])
    assert row_ids == open_release(published.ref).rows()["row_id"].to_pylist()
    assert ranks == list(range(1, 13))
    assert "float32" in kind


def test_same_inputs_give_the_same_bytes(scored, published, tmp_path):
    other = make_scored_store(str(tmp_path / "elsewhere"))
    scores = score(other.index, other.queries, ScoreConfig(top_k=5), THREADS).ref
    again = release(scores, "twelve", BEST_12)
    assert again.ref.release_id == published.ref.release_id

    def compared(path):
        return {
            name: data
            for name, data in tree_bytes(Path(path)).items()
            if not name.startswith(("quality/", "environment.json"))
        }

    assert compared(again.path) == compared(published.path)
    assert {"README.md", "manifest.json"} <= set(compared(again.path))


def test_latest_moves_and_an_earlier_release_can_be_made_latest_again(scored):
    _, scores = scored
    first = release(scores, "moving", ReleaseConfig(select=TopK(top_k=3)))
    second = release(scores, "moving", ReleaseConfig(select=TopK(top_k=4)))
    assert latest(scores.root, "moving") == second.ref
    before = tree_bytes(Path(first.path))
    again = release(scores, "moving", ReleaseConfig(select=TopK(top_k=3)))
    assert (again.already, again.ref, again.n_rows) == (True, first.ref, 3)
    assert latest(scores.root, "moving") == first.ref
    assert tree_bytes(Path(first.path)) == before


def test_a_release_that_lost_a_file_is_not_reported_as_there(scored):
    _, scores = scored
    done = release(scores, "losing", ReleaseConfig(select=TopK(top_k=3)))
    next(Path(done.path).glob("data/*.parquet")).unlink()
    with pytest.raises(CorruptionError, match="is missing"):
        release(scores, "losing", ReleaseConfig(select=TopK(top_k=3)))


# ---------------------------------------------------------------------------- planted faults


def good_rows(published) -> list[dict]:
    return open_release(published.ref).rows().to_pylist()


def check_rows(scored, folder: Path, parts: list[list[dict]], *, n_rows: list[int], n_tokens: int):
    """Write ``parts`` as staged files and hold them against a manifest with these numbers."""
    store, _ = scored
    corpus = Corpus(CorpusRef(store.root, "main"))
    files = []
    for number, (rows, claimed) in enumerate(zip(parts, n_rows, strict=True)):
        path = folder / "data" / f"train-{number:05d}.parquet"
        write_table(path, pa.Table.from_pylist(rows, schema=RELEASE_SCHEMA))
        files.append(StagedFile(path, claimed))
    batches = [(batch, corpus.row_ids([batch])["row_id"]) for batch in ("b1", "b2")]
    check_release(
        StagedRelease("planted", files, n_tokens), batches=batches, docs=folder / "quality"
    )


def shuffled_rank(rows):
    rows[3]["rank"], rows[4]["rank"] = rows[4]["rank"], rows[3]["rank"]


def score_out_of_order(rows):
    rows[6]["score"] = rows[0]["score"] + 1


def not_a_number(rows):
    rows[2]["score"] = float("nan")


def infinite(rows):
    rows[0]["score"] = float("inf")


def foreign_row(rows):
    rows[5]["row_id"] = "row-from-elsewhere"


def wrong_lineage(rows):
    rows[5]["lineage_id"] = "b1:0"


def duplicate(rows):
    rows[8]["row_id"] = rows[7]["row_id"]


def empty_text(rows):
    rows[1].update(text="", prompt="", completion="")


def broken_split(rows):
    rows[1]["completion"] += "!"


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        (shuffled_rank, r"row 4: rank 5 at place 4"),
        (score_out_of_order, r"row 7: score .* below a row that scored"),
        (not_a_number, r"row 3: the score is not a number"),
        (infinite, r"row 1: the score inf is not finite"),
        (foreign_row, r"row 6: 'row-from-elsewhere' is not in the corpus"),
        (wrong_lineage, r"row 6: lineage b1:0, but the corpus has the row at b"),
        (duplicate, r"row 8: 'row-.*' occurs more than once"),
        (empty_text, r"row 2: the text is empty"),
        (broken_split, r"row 2: prompt and completion do not make the text"),
    ],
)
def test_the_gate_names_a_planted_fault(scored, published, tmp_path, plant, said):
    rows = good_rows(published)
    n_tokens = sum(row["n_tokens"] for row in rows)
    plant(rows)
    with pytest.raises(ReleaseRefused, match=said):
        check_rows(scored, tmp_path, [rows], n_rows=[12], n_tokens=n_tokens)


def test_the_gate_passes_what_has_no_fault(scored, published, tmp_path):
    rows = good_rows(published)
    n_tokens = sum(row["n_tokens"] for row in rows)
    check_rows(scored, tmp_path, [rows[:7], rows[7:]], n_rows=[7, 5], n_tokens=n_tokens)


@pytest.mark.parametrize(
    ("n_rows", "more_tokens", "said"),
    [
        ([7, 4], 0, "its file has 5 rows, the manifest says 4"),
        ([6, 6], 0, "its file has 7 rows, the manifest says 6"),
        ([7, 5], 1, "tokens together"),
    ],
)
def test_the_gate_counts(scored, published, tmp_path, n_rows, more_tokens, said):
    rows = good_rows(published)
    n_tokens = sum(row["n_tokens"] for row in rows) + more_tokens
    with pytest.raises(ReleaseRefused, match=said):
        check_rows(scored, tmp_path, [rows[:7], rows[7:]], n_rows=n_rows, n_tokens=n_tokens)


def test_the_gate_refuses_other_columns(scored, published, tmp_path):
    rows = pa.Table.from_pylist(good_rows(published), schema=RELEASE_SCHEMA).drop(["label"])
    path = tmp_path / "data/train-00000.parquet"
    write_table(path, rows)
    staged = StagedRelease("planted", [StagedFile(path, 12)], 1)
    with pytest.raises(ReleaseRefused, match=r"expected the columns .*label: string"):
        check_release(staged, batches=[], docs=tmp_path / "quality")


def rewritten_scores(scores: ScoresRef, scores_id: str, change) -> ScoresRef:
    """Publish scores with changed values, as a faulty program would have written them."""
    opened = Scores.open(scores)
    manifest = {key: value for key, value in opened.manifest.items() if key != "files"}
    return Scores.write(
        scores.root,
        scores_id,
        values=change(opened.values()),
        top_rows=opened.top_rows(),
        manifest={**manifest, **({"index_id": "replaced"} if change is keep else {})},
    )


def keep(values: pa.Table) -> pa.Table:
    return values


def with_nan(values: pa.Table) -> pa.Table:
    numbers = values["value"].to_numpy().copy()
    numbers[10] = np.nan
    return values.set_column(1, "value", pa.array(numbers))


def test_a_failing_gate_publishes_nothing_and_leaves_latest(scored):
    _, scores = scored
    before = release(scores, "gated", ReleaseConfig(select=TopK(top_k=3)))
    faulty = rewritten_scores(scores, "with-nan", with_nan)
    with pytest.raises(ReleaseRefused, match="not a number") as refusal:
        release(faulty, "gated", ReleaseConfig(select=TopK(top_k=68)))
    assert latest(scores.root, "gated") == before.ref
    named = [ref for ref in all_releases(scores.root) if ref.name == "gated"]
    assert named == [before.ref]
    # the Data Docs of the refusal are kept, and the message says where
    (page,) = Path(scores.root).glob("releases/gated/refused/*/quality/index.html")
    assert str(page) in str(refusal.value)
    assert not json.loads((page.parent / "validation.json").read_text())["success"]
    assert [path.name for path in page.parents[1].iterdir()] == ["quality"]
    assert "problem" not in str(list_store(scores.root))
    with pytest.raises(ReleaseRefused):  # refused again: the report is replaced
        release(faulty, "gated", ReleaseConfig(select=TopK(top_k=68)))


def test_an_index_that_was_replaced_is_noticed(scored):
    _, scores = scored
    stale = rewritten_scores(scores, "stale", keep)
    with pytest.raises(MismatchError, match="replaced since it was scored"):
        release(stale, "stale", BEST_12)


# --------------------------------------------------------------------------------------- kills

CHILD = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[4:]
from storage.refs import ScoresRef
from tasks.release_config import ReleaseConfig, TopK
from tasks.release import release
from tasks.release_config import ReleaseConfig, TopK

class Announce:
    def start(self, *, total, unit):
        pass
    def advance(self, n_units):
        print("written", flush=True)

release(ScoresRef(sys.argv[1], sys.argv[2]), sys.argv[3],
        ReleaseConfig(select=TopK(top_k=12), rows_per_shard=5), progress=Announce())
print("published", flush=True)
"""


@pytest.mark.parametrize(("lines", "wait"), [(1, 0.0), (3, 0.0), (3, 1.0)])
def test_a_killed_release_leaves_nothing_half_published(scored, lines, wait):
    _, scores = scored
    name = f"killed-{lines}-{wait:.0f}"
    old = release(scores, name, ReleaseConfig(select=TopK(top_k=2)))
    arguments = [scores.root, scores.scores_id, name, *sys.path]
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments], stdout=subprocess.PIPE, text=True
    ) as child:
        for _ in range(lines):
            assert child.stdout.readline() == "written\n"
        time.sleep(wait)
        child.send_signal(signal.SIGKILL)
        said = child.stdout.read()
    folder = Path(old.path).parent
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    new = names - {"latest", "moves.jsonl", old.ref.release_id}
    if not new:
        assert "published" not in said
        assert latest(scores.root, name) == old.ref
    for release_id in new:
        assert open_release(ReleaseRef(scores.root, name, release_id)).verify() == []
    done = release(scores, name, BEST_12)
    assert done.n_rows == 12
    assert latest(scores.root, name) == done.ref
    assert not list(folder.glob(".*.partial"))


def test_a_writer_that_is_left_publishes_nothing(scored):
    _, scores = scored
    ref = ReleaseRef(scores.root, "left", "0123")

    def leave():
        with ReleaseWriter(ref) as writer:
            writer.add(open_release(latest(scores.root, "twelve")).rows())
            raise KeyboardInterrupt

    release(scores, "twelve", BEST_12)
    with pytest.raises(KeyboardInterrupt):
        leave()
    assert list((Path(scores.root) / "releases/left").iterdir()) == []
