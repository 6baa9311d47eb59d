"""`latest`: where it points, how it got there, and the way back."""

import fcntl
import json
import os
from pathlib import Path

import pytest
from store_samples import add_release, tree_bytes

from storage import release_pointer
from storage.errors import CorruptionError, NotFoundError
from storage.refs import ReleaseRef
from storage.release_pointer import latest, mark_latest, moves, roll_back
from storage.releases import open_release


def publish(root: Path, *ids: str) -> list[ReleaseRef]:
    return [add_release(str(root), release_id) for release_id in ids]


def test_every_move_is_logged_with_where_from_and_why(tmp_path: Path) -> None:
    first, _ = publish(tmp_path, "r1", "r2")
    mark_latest(first)
    mark_latest(first)  # there already: no move
    roll_back(str(tmp_path), "picked", to="r2")
    logged = [(move.left, move.to, move.why) for move in moves(str(tmp_path), "picked")]
    assert logged == [
        (None, "r1", "published"),
        ("r1", "r2", "published"),
        ("r2", "r1", "asked again"),
        ("r1", "r2", "rolled back"),
    ]
    assert all(move.time.endswith("Z") for move in moves(str(tmp_path), "picked"))


def test_rolling_back_goes_further_back_each_time(tmp_path: Path) -> None:
    root = str(tmp_path)
    first, second, _ = publish(tmp_path, "r1", "r2", "r3")
    before = {name: data for name, data in tree_bytes(tmp_path).items() if "latest" not in name}
    assert roll_back(root, "picked") == second == latest(root, "picked")
    assert roll_back(root, "picked") == first == latest(root, "picked")
    with pytest.raises(NotFoundError, match=r"no release of 'picked' came before r1"):
        roll_back(root, "picked")
    after = {name: data for name, data in tree_bytes(tmp_path).items() if "latest" not in name}
    assert after == before
    (fourth,) = publish(tmp_path, "r4")
    assert latest(root, "picked") == fourth
    assert roll_back(root, "picked") == first


def test_a_writer_that_starts_does_not_clear_the_log_away(tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "releases" / "picked"
    held = []

    def watched(path: Path, data: bytes) -> None:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.append(path.name)
        finally:
            os.close(descriptor)

    monkeypatch.setattr(release_pointer, "write_bytes", watched)
    publish(tmp_path, "r1")
    assert len(held) == 1


def test_rolling_back_reads_the_release_first(tmp_path: Path) -> None:
    root = str(tmp_path)
    first, second = publish(tmp_path, "r1", "r2")
    path = open_release(first).data_files[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptionError, match=r"does not match .* `latest` was not moved"):
        roll_back(root, "picked")
    assert latest(root, "picked") == second


def test_rolling_back_to_what_is_not_there(tmp_path: Path) -> None:
    publish(tmp_path, "r1")
    with pytest.raises(NotFoundError, match=r"no release 'r9' of 'picked'"):
        roll_back(str(tmp_path), "picked", to="r9")
    with pytest.raises(ValueError, match="not a valid name"):
        roll_back(str(tmp_path), "picked", to="../r1")


@pytest.mark.parametrize("why", ["published", "rolled back"])
def test_a_move_that_was_logged_and_not_made_does_no_harm(tmp_path: Path, why: str) -> None:
    root = str(tmp_path)
    _, second, third = publish(tmp_path, "r1", "r2", "r3")
    log = tmp_path / "releases/picked/moves.jsonl"
    line = {"time": "2026-01-01T00:00:00Z", "left": "r3", "to": "r1", "why": why}
    log.write_text(f"{log.read_text()}{json.dumps(line)}\n")
    assert latest(root, "picked") == third
    assert roll_back(root, "picked") == second
    publish(tmp_path, "r4")
    assert roll_back(root, "picked") == second


def test_a_log_that_was_lost_or_damaged_names_the_way_out(tmp_path: Path) -> None:
    root = str(tmp_path)
    first, _ = publish(tmp_path, "r1", "r2")
    log = tmp_path / "releases/picked/moves.jsonl"
    log.write_text('{"time": "x"}\nnot JSON\n')
    assert moves(root, "picked") == []
    with pytest.raises(NotFoundError, match="--to"):
        roll_back(root, "picked")
    assert roll_back(root, "picked", to="r1") == first
    publish(tmp_path, "r3")
    assert roll_back(root, "picked") == first
