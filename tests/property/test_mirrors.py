"""Whatever two machines do to a store in turns, both mirrors become what the store is."""

import tempfile
import uuid
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from storage.mirror import Mirror
from storage.objects import Objects

FOLDERS = ("queries/q/v1", "queries/q/v2", "scores/s1")
MANIFEST = {"queries/q/v1": "query_set.json", "queries/q/v2": "query_set.json"}

steps = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.sampled_from(["publish", "point", "block", "remove", "look", "forget"]),
        st.integers(0, 2),
        st.binary(max_size=6),
    ),
    max_size=8,
)


@settings(max_examples=20, deadline=None)
@given(steps=steps)
def test_mirrors_follow_the_store(steps: list[tuple[int, str, int, bytes]]) -> None:
    url = f"memory://{uuid.uuid4().hex}"
    with tempfile.TemporaryDirectory() as place:
        places = [Path(place) / "one", Path(place) / "two"]
        mirrors = [Mirror(url, path) for path in places]
        for who, what, which, data in steps:
            mirrors[who].look(at_once=True)
            if what == "forget":  # another process of that machine
                mirrors[who] = Mirror(url, places[who])
            else:
                _do(mirrors[who], what, FOLDERS[which], data)
        for mirror in mirrors:
            mirror.look(at_once=True)
            mirror.fetch(mirror.folder)
            assert _on_disk(mirror.folder) == _in_store(url)


def _do(mirror: Mirror, what: str, folder: str, data: bytes) -> None:
    final = mirror.folder / folder
    if what == "publish" and not final.exists():
        staging = final.with_name(f".{final.name}.partial")
        staging.mkdir(parents=True)
        (staging / "data.bin").write_bytes(data)
        (staging / MANIFEST.get(folder, "scores.json")).write_bytes(b"{}")
        with mirror.put_folder(staging, final):
            staging.rename(final)
    elif what == "point":
        _put(mirror, mirror.folder / "indexes" / "main" / "rows.json", data)
    elif what == "block":
        _put(mirror, mirror.folder / "indexes" / "main" / "blocks" / "0.json", data)
    elif what == "remove" and final.exists():
        mirror.remove(final)
        for path in final.iterdir():
            path.unlink()
        final.rmdir()


def _put(mirror: Mirror, final: Path, data: bytes) -> None:
    final.parent.mkdir(parents=True, exist_ok=True)
    written = final.with_name(f".{final.name}.partial")
    written.write_bytes(data)
    mirror.put_file(written, final)
    written.rename(final)


def _on_disk(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _in_store(url: str) -> dict[str, bytes]:
    objects = Objects(url)
    return {key: objects.read(key) or b"" for key in objects.listing()}
