"""Whatever comes in any order: the living rows follow from the newest versions alone."""

import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st
from inbox_samples import hash_of, inbox_config, living, put_file, take

from storage.corpus import Corpus
from storage.cursor import Cursor
from storage.refs import CorpusRef
from tasks.refresh import look

FILES = st.sampled_from(["a", "b", "c"])
CONTENT = st.dictionaries(
    st.sampled_from(["r1", "r2", "r3", "r4"]), st.sampled_from(["x", "y", "z"]), min_size=1
)
DUPLICATE = {"r1": "z", "r2": "y"}
STEPS = st.lists(st.tuples(FILES, st.none() | CONTENT, st.booleans()), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(STEPS)
@example(
    [("a", {"r1": "x"}, False), ("b", {"r1": "x"}, False), ("a", None, False), ("b", None, False)]
)
@example(
    [("b", {"r1": "y", "r2": "x"}, False), ("b", None, False), ("b", {"r1": "y", "r2": "x"}, True)]
)
@example([("a", DUPLICATE, False), ("b", {"r1": "x"}, False), ("c", DUPLICATE, False)])
def test_living_rows_follow_from_the_files_that_are_there(steps) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = inbox_config(folder / "store", folder / "inbox", withdraw_deleted=True)
        files: dict[str, dict[str, str]] = {}
        for tick, (file, content, pause) in enumerate(steps, start=1):
            path = folder / "inbox" / f"{file}.jsonl"
            if content is None:
                path.unlink(missing_ok=True)
                files.pop(file, None)
            else:
                put_file(path, content, tick=tick)
                files[file] = content
            if not pause:
                take(config)
        take(config)
        expected = {
            row_id: hash_of(text)
            for _, content in sorted(files.items())
            for row_id, text in content.items()
        }
        found = {row_id: digest for row_id, (digest, _) in living(config).items()}
        assert found == expected
        assert take(config).taken == ()
        news = look(config).news
        assert (news.readings, news.duplicates, news.touched, news.gone) == ((), (), (), ())
        ref = CorpusRef(config.store, "main")
        assert {entry.name for entry in Cursor(ref).entries.values()} == {
            str(folder / "inbox" / f"{file}.jsonl") for file in files
        }
        if Corpus.batches(ref):
            assert Corpus(ref).verify() == []
