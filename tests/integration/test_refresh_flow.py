"""The refresh flow on a real Prefect engine: its states, what it says, and the command."""

from pathlib import Path

import pytest
import yaml
from refresh_samples import refresh_settings, rows, write_inbox_file
from typer.testing import CliRunner

from flows.cli import app
from flows.refresh import refresh
from storage.refs import IndexRef
from storage.signatures import SignatureIndex

pytestmark = pytest.mark.usefixtures("prefect_harness")


def test_a_refresh_says_what_it_took_refused_and_that_nothing_is_new(
    tmp_path: Path, tiny_llama: Path
) -> None:
    config = refresh_settings(tmp_path, tiny_llama)
    write_inbox_file(tmp_path / "inbox" / "a.jsonl", rows(0, 16))
    (tmp_path / "inbox" / "b.jsonl").write_text('{"id": "x", "body": "other"}\n')
    state = refresh(config, return_state=True)
    assert (state.name, state.is_completed()) == ("CompletedWithWarnings", True)
    assert "1 of 2 files taken (16 rows in" in state.message
    report = state.result()
    assert report.made.release.n_rows == 7
    assert any("b.jsonl is refused" in text for text in report.warnings)

    again = refresh(config)
    assert again.nothing_new
    assert "nothing new" in again.summary
    assert any("(as before)" in text for text in again.warnings)

    # the command asks before it starts anything
    settings = tmp_path / "settings.yaml"
    settings.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    result = CliRunner().invoke(app, ["refresh", str(settings)])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("nothing new: 2 files looked at, 1 of them refused before")

    (tmp_path / "inbox" / "b.jsonl").unlink()
    sketch = config.indexing.signature.sketch.model_copy(update={"residual_dim": 16})
    signature = config.indexing.signature.model_copy(update={"sketch": sketch})
    indexing = config.indexing.model_copy(update={"signature": signature})
    other = refresh(config.model_copy(update={"indexing": indexing}))
    assert other.made.index.n_sketched == 16
    old = SignatureIndex.open(IndexRef(config.store, other.made.replaced))
    new = SignatureIndex.open(IndexRef(config.store, "main"))
    assert (old.n_numbers, new.n_numbers) == (96, 160)
    assert other.made.score.ref.scores_id != report.made.score.ref.scores_id
