"""SIGKILL before the file operations of taking an inbox; taken again, it is the same inbox."""

import shutil
from pathlib import Path

import pytest
from inbox_samples import hash_of, inbox_config, living, put_file, take
from storage_victim import storage_victim
from store_samples import tree_bytes

from storage.corpus import Corpus
from storage.refs import CorpusRef

FIRST = {"a": {"r1": "one", "r2": "two", "r3": "three"}, "b": {"r4": "four"}}
REWRITTEN = {"a": {"r1": "uno", "r3": "three", "r5": "five"}, "c": {"r6": "six"}}

# here the later file drops its version of a row, so that the earlier file is wanted again
ABOVE = {"a": {"r1": "one", "r3": "three"}, "b": {"r3": "drei", "r4": "four"}}
DROPPED = {"b": {"r4": "four"}}


@pytest.mark.parametrize(
    ("first", "then", "same_bytes"), [(FIRST, REWRITTEN, True), (ABOVE, DROPPED, False)]
)
def test_a_kill_at_any_moment_of_an_intake_changes_nothing(
    first: dict, then: dict, *, same_bytes: bool, tmp_path: Path
) -> None:
    inbox, before, undisturbed = (tmp_path / name for name in ("inbox", "before", "undisturbed"))
    for tick, (name, content) in enumerate(first.items(), start=1):
        put_file(inbox / f"{name}.jsonl", content, tick=tick)
    take(inbox_config(before, inbox))
    for tick, (name, content) in enumerate(then.items(), start=11):
        put_file(inbox / f"{name}.jsonl", content, tick=tick)
    shutil.copytree(before, undisturbed)
    files = {**first, **then}
    rows = {row_id: hash_of(text) for content in files.values() for row_id, text in content.items()}

    with storage_victim(tmp_path / "begun") as run:
        code, n_operations = run("take_files", undisturbed, None)
        assert code == 0
        assert contents(undisturbed, inbox) == rows
        expected = tree_bytes(undisturbed)
        for kill_at in range(0, n_operations, 5):
            root = tmp_path / f"killed-{kill_at}"
            shutil.copytree(before, root)
            assert run("take_files", root, kill_at)[0] == -9
            # two versions of a row are alive at no moment: the ledger would not open
            assert set(contents(root, inbox)) <= {*rows, "r2"}
            assert run("take_files", root, None)[0] == 0
            assert contents(root, inbox) == rows, f"differs after a kill at operation {kill_at}"
            assert Corpus(CorpusRef(str(root), "main")).verify() == []
            assert not same_bytes or tree_bytes(root) == expected, kill_at
            shutil.rmtree(root)


def contents(root: Path, inbox: Path) -> dict[str, str]:
    found = living(inbox_config(root, inbox))
    return {row_id: digest for row_id, (digest, _) in found.items()}
