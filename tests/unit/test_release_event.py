"""The event of a release: what it says, and that each latest release is told of until it was."""

import hashlib
from pathlib import Path

from store_samples import add_release

from storage.release_pointer import roll_back
from tasks.release_event import is_news, note_announced, release_event


def test_it_says_what_to_open_and_how_to_check_it(tmp_path: Path) -> None:
    ref = add_release(str(tmp_path), "r1", n_rows=3)
    event = release_event(ref)
    assert event.name == "rise.release.published"
    assert event.resource == f"rise://{tmp_path}/releases/picked"
    manifest = Path(str(event.payload["path"])) / "manifest.json"
    assert event.payload["manifest_sha256"] == hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert (event.payload["release_id"], event.payload["n_rows"]) == ("r1", 3)


def test_a_release_is_news_until_it_was_told_and_only_while_it_is_the_latest(
    tmp_path: Path,
) -> None:
    first = add_release(str(tmp_path), "r1")
    assert is_news(first)
    assert is_news(first)  # a kill before the note: told again
    note_announced(first)
    assert not is_news(first)
    second = add_release(str(tmp_path), "r2")
    assert is_news(second)
    assert not is_news(first)
    note_announced(second)
    roll_back(str(tmp_path), "picked")
    assert is_news(first)
    assert not is_news(second)
