import json
import os
from pathlib import Path

import pytest

from storage.errors import CorruptionError, FormatVersionError, NotFoundError, StorageError
from storage.files import (
    canonical_json,
    point_to,
    publish,
    published_folder,
    read_json,
    remove_partials,
    short_id,
    staging_folder,
    write_bytes,
    write_json,
)
from storage.manifests import describe_file, file_problems, read_manifest, write_manifest


def test_canonical_json_is_one_spelling() -> None:
    assert canonical_json({"b": (1, 2), "a": "ä"}) == '{"a":"ä","b":[1,2]}'.encode()
    assert short_id({"a": 1, "b": 2}) == short_id({"b": 2, "a": 1})
    assert short_id({"a": 1}) != short_id({"a": 1.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": float("nan")})


def test_a_write_replaces_whole_and_leaves_no_litter(tmp_path: Path) -> None:
    path = tmp_path / "deeper" / "file"
    write_bytes(path, b"first")
    write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_write_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("inf")})
    assert read_json(path) == {"a": 1}


def test_a_write_below_a_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(StorageError, match=r"a file is in the way|a part of the path is a file"):
        write_bytes(tmp_path / "taken" / "file", b"")


def test_a_folder_is_published_whole_or_not_at_all(tmp_path: Path) -> None:
    final = tmp_path / "made"
    with pytest.raises(UnicodeEncodeError), published_folder(final) as staging:
        (staging / "file").write_text("half\ud800", encoding="utf-8")
    assert list(tmp_path.iterdir()) == []
    with published_folder(final) as staging:
        (staging / "file").write_text("whole")
        assert not final.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    with pytest.raises(FileExistsError, match="never overwritten"), published_folder(final):
        pass


def test_the_slower_of_two_publishers_does_not_overwrite(tmp_path: Path) -> None:
    final = tmp_path / "made"
    with published_folder(final) as quick:
        (quick / "file").write_text("quick")
        slow = staging_folder(final)
        slow_staging = slow.__enter__()
        (slow_staging / "file").write_text("slow")
    with pytest.raises(FileExistsError, match="never overwritten"):
        publish(slow_staging, final)
    slow.__exit__(None, None, None)
    assert (final / "file").read_text() == "quick"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_cleaning_spares_what_is_being_written(tmp_path: Path) -> None:
    dead = tmp_path / ".old.12345678.partial"
    dead.mkdir()
    (dead / "file").write_text("x")
    (tmp_path / ".file.12345678.partial").write_text("x")
    (tmp_path / ".link.12345678.partial").symlink_to("nowhere")
    with staging_folder(tmp_path / "new") as staging:
        (staging / "file").write_text("x")
        assert remove_partials(tmp_path) == 3
        assert list(tmp_path.iterdir()) == [staging]
        assert (staging / "file").read_text() == "x"
    assert remove_partials(tmp_path) == 0
    assert remove_partials(tmp_path / "absent") == 0


def test_a_link_moves_at_once_and_is_relative(tmp_path: Path) -> None:
    link = tmp_path / "latest"
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
        point_to(link, version)
        assert os.readlink(link) == version  # noqa: PTH115 (the text of the link is the point)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "v1", "v2"]


def test_reading_says_what_is_wrong_with_json(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="does not exist"):
        read_json(tmp_path / "absent.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(CorruptionError, match="expected a JSON object, found list"):
        read_json(tmp_path / "list.json")


def test_a_manifest_comes_back_as_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    value = {"n": 1, "share": 0.1, "names": ["ä"], "none": None, "deep": {"x": True}}
    write_manifest(path, "rise-test", value)
    first = path.read_bytes()
    assert read_manifest(path, "rise-test") == value
    write_manifest(path, "rise-test", dict(reversed(value.items())))
    assert path.read_bytes() == first
    with pytest.raises(FormatVersionError, match="expected format 'rise-other'"):
        read_manifest(path, "rise-other")
    with pytest.raises(ValueError, match="reserved"):
        write_manifest(path, "rise-test", {"version": 3})


def test_any_changed_value_of_a_manifest_is_found(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    write_manifest(path, "rise-test", {"n_rows": 1000, "name": "a"})
    sound = json.loads(path.read_text())
    for change in ({"n_rows": 1001}, {"name": "b"}, {"more": 1}, {"check": "0" * 64}):
        path.write_text(json.dumps({**sound, **change}))
        with pytest.raises(CorruptionError, match="checksum"):
            read_manifest(path, "rise-test")


def test_files_are_held_against_their_description(tmp_path: Path) -> None:
    path = tmp_path / "data" / "a.bin"
    write_bytes(path, b"abc")
    entries = [describe_file(path, folder=tmp_path)]
    assert entries[0]["name"] == "data/a.bin"
    assert file_problems(tmp_path, entries) == []
    path.write_bytes(b"abd")
    assert file_problems(tmp_path, entries, deep=False) == []
    assert "sha256" in file_problems(tmp_path, entries)[0]
    path.write_bytes(b"ab")
    assert "2 bytes" in file_problems(tmp_path, entries, deep=False)[0]
    path.unlink()
    assert "missing" in file_problems(tmp_path, entries, deep=False)[0]
