"""An inbox over several refreshes: only news is read, and the end is that of one clean run."""

from pathlib import Path

import pytest
from refresh_samples import Refreshed, refresh, refresh_settings, rows, write_inbox_file

from storage.refs import CorpusRef
from storage.releases import open_release
from storage.tombstones import Tombstones
from tasks.catalog import trace, verify_store
from tasks.config import PipelineConfig
from tasks.refresh import FilesRefused, look, require_no_refusal, take_inbox
from tasks.takedown import require_not_taken_down, take_down


@pytest.fixture(name="config")
def inbox_config(tmp_path: Path, tiny_llama: Path) -> PipelineConfig:
    return refresh_settings(tmp_path, tiny_llama)


@pytest.fixture(name="inbox")
def inbox_folder(tmp_path: Path) -> Path:
    return tmp_path / "inbox"


def released(report: Refreshed):
    assert report.release is not None
    return open_release(report.release.ref)


def test_the_end_is_that_of_one_clean_run(config, inbox, tmp_path):
    write_inbox_file(inbox / "b.jsonl", rows(10, 22))
    first = refresh(config)
    assert (first.index.n_rows, first.index.n_sketched) == (12, 12)
    assert refresh(config).outlook.nothing

    write_inbox_file(inbox / "a.jsonl", rows(0, 10) | rows(12, 14, version=1))  # late, and older
    write_inbox_file(inbox / "c.jsonl", rows(22, 30) | rows(20, 21, version=2))  # changes row 20
    second = refresh(config)
    # blocks of 8: the full block is kept, the half one is made again
    assert (second.index.n_rows, second.index.n_sketched) == (12 + 10 + 9, 31 - 8)

    write_inbox_file(inbox / "b.jsonl", rows(10, 12) | rows(15, 22) | rows(30, 33))
    (inbox / "d.jsonl").write_bytes((inbox / "c.jsonl").read_bytes())
    last = refresh(config)
    # d has the bytes of c and is read in its place, without a new row; rows 12 to 14 went from b,
    # and of 12 and 13 the versions of a, that b's had replaced, came in
    taken = [(Path(one.name).name, one.n_rows) for one in last.intake.taken]
    assert taken == [("b.jsonl", 3), ("d.jsonl", 0), ("a.jsonl", 2)]
    records = Tombstones(CorpusRef(config.store, "main")).records
    assert [(one.kind, one.n_rows) for one in records] == [("changed", 1), ("withdrawn", 3)]
    assert refresh(config).outlook.nothing
    assert verify_store(config.store) == []

    clean = config.model_copy(update={"store": str(tmp_path / "clean")})
    whole = refresh(clean)
    same = ["row_id", "text", "prompt", "completion", "score", "rank", "label", "n_tokens"]
    assert released(last).rows().select(same).equals(released(whole).rows().select(same))
    calibrated = ["row_id", "rank", "score", "percentile", "z", "false_discovery"]
    found = [released(one).attributes().select(calibrated) for one in (last, whole)]
    assert found[0].equals(found[1])
    # row 20 is what c says of it, and its newest place is the one that lineage shows
    assert trace(config.store, "row-020")[0]["id"].endswith("c.jsonl:9")
    require_not_taken_down(CorpusRef(config.store, "main"), "row-020")


def test_a_changed_row_that_is_taken_down_stays_down(config, inbox):
    ref = CorpusRef(config.store, "main")
    write_inbox_file(inbox / "a.jsonl", rows(0, 8))
    take_inbox(config)
    write_inbox_file(inbox / "a.jsonl", rows(0, 8, version=1))
    take_inbox(config)
    take_down(ref, row_ids=["row-003"], reason="asked for")
    with pytest.raises(FileNotFoundError, match=r"asked for"):
        require_not_taken_down(ref, "row-003")
    write_inbox_file(inbox / "a.jsonl", rows(0, 8, version=2))
    (taken,) = take_inbox(config).taken
    assert (taken.n_rows, taken.n_changed) == (7, 7)


def test_a_refused_file_stops_nothing_and_is_read_again_when_it_changes(config, inbox):
    write_inbox_file(inbox / "a.jsonl", rows(0, 3))
    take_inbox(config)
    (inbox / "b.jsonl").write_text('{"id": "x", "body": "of other fields"}\n' * 3)
    (inbox / "c.jsonl.gz").write_bytes(b"\x1f\x8b cut off")
    gz = config.rows.source.model_copy(update={"paths": (str(inbox),)})
    config = config.model_copy(update={"rows": config.rows.model_copy(update={"source": gz})})
    write_inbox_file(inbox / "d.jsonl", rows(3, 6))
    report = take_inbox(config)
    assert [Path(one.name).name for one in report.taken] == ["d.jsonl"]
    drifted, cut = report.refused
    assert "missing field" in drifted.reason
    assert "rows.fields" in drifted.reason
    assert Path(drifted.report).is_file()
    assert "cut off" in cut.reason
    assert all(text.split(" ")[1:3] == ["is", "refused:"] for text in report.warnings)
    strict = config.refresh.model_copy(update={"fail_on_refused": True})
    with pytest.raises(FilesRefused, match=r"2 files of the inbox are refused"):
        require_no_refusal(config.model_copy(update={"refresh": strict}), report)
    require_no_refusal(config, report)

    again = take_inbox(config)
    assert again.taken == ()
    assert [one.now for one in again.refused] == [False, False]
    assert look(config).news.readings == ()
    write_inbox_file(inbox / "b.jsonl", rows(6, 8))
    assert [one.n_rows for one in take_inbox(config).taken] == [2]


def test_a_dataset_is_read_again_when_it_has_other_bytes(config, inbox):
    write_inbox_file(inbox / "train.jsonl", rows(0, 4))
    source = {"kind": "dataset", "path": str(inbox)}
    changes = {"rows": {**config.rows.model_dump(), "source": source}}
    config = PipelineConfig.model_validate({**config.model_dump(), **changes})
    assert [one.n_rows for one in take_inbox(config).taken] == [4]
    assert take_inbox(config).taken == ()
    write_inbox_file(inbox / "train.jsonl", rows(1, 4) | rows(3, 5, version=1))
    (taken,) = take_inbox(config).taken
    assert (taken.n_rows, taken.n_known, taken.n_changed, taken.n_withdrawn) == (2, 2, 1, 1)
