"""A consumer reads whole releases while others are being published."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from store_samples import add_release

from examples.consumer_flow import choose_release, done_before, open_verified
from storage.errors import CorruptionError
from storage.files import write_json
from storage.refs import ReleaseRef

PUBLISHER = """
import sys
from store_samples import add_release
for number in range(1, 41):
    add_release(sys.argv[1], f"r{number:02d}", n_rows=number)
"""


def test_every_read_is_of_one_release_while_forty_are_published(tmp_path: Path) -> None:
    root = str(tmp_path / "store")
    add_release(root, "r00", n_rows=1)
    seen: list[str] = []
    paths = [str(Path(__file__).parents[1]), str(Path.cwd())]
    environment = {"PYTHONPATH": ":".join(paths), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, "-c", PUBLISHER, root], env=environment) as publisher:
        while not seen or seen[-1] != "r40":
            assert publisher.poll() in (None, 0)
            ref = choose_release(root, "picked")
            rows = open_verified(ref).rows()
            # release number n has n rows, ranks 1 to n: halves of two would not
            wanted = max(1, int(ref.release_id[1:]))
            assert rows.column("rank").to_pylist() == list(range(1, wanted + 1))
            seen.append(ref.release_id)
            time.sleep(0.001)
    assert seen == sorted(seen)
    assert len(set(seen)) > 3, "nothing was read while releases were published"


def test_a_release_that_was_chosen_stays_whole_when_latest_moves_on(tmp_path: Path) -> None:
    root = str(tmp_path)
    add_release(root, "r1", n_rows=4)
    chosen = choose_release(root, "picked")
    add_release(root, "r2", n_rows=2)
    assert open_verified(chosen).rows().num_rows == 4
    assert choose_release(root, "picked").release_id == "r2"
    assert choose_release(root, "picked", "r1") == chosen


def test_damage_and_another_manifest_are_refused(tmp_path: Path) -> None:
    ref = add_release(str(tmp_path), "r1")
    with pytest.raises(ValueError, match="the event said 1234"):
        open_verified(ref, "1234")
    path = open_verified(ref).data_files[-1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptionError, match="does not match"):
        open_verified(ref)


def test_a_release_is_used_once(tmp_path: Path) -> None:
    ref = ReleaseRef("store", "main", "r1")
    assert not done_before(tmp_path, ref)
    write_json(tmp_path / "main.json", {"release_id": "r1"})
    assert done_before(tmp_path, ref)
    assert not done_before(tmp_path, ReleaseRef("store", "main", "r2"))
