"""The demo, smaller, on the real model: it runs, and what it shows is what it computed."""

from pathlib import Path

import pytest

from flows.cli_settings import run_flow
from flows.demo import run_demo
from storage.refs import ScoresRef
from tasks.catalog import list_store, verify_store
from tasks.evaluation import compare_methods


@pytest.mark.model
@pytest.mark.usefixtures("prefect_harness", "smollm2")
def test_the_demo_finds_what_was_planted(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    smollm2: Path,
) -> None:
    monkeypatch.setenv("RISE_HOME", str(smollm2.parents[1]))
    run_demo(tmp_path, n_docstrings=60, run_flow=run_flow)
    shown = capsys.readouterr().out
    store = str(tmp_path / "store")
    assert verify_store(store) == []
    scores = next(item["id"] for item in list_store(store) if item["kind"] == "scores")
    rise, bm25, chance = compare_methods(ScoresRef(store, scores), ks=[10])
    assert f"{rise.metrics['precision@10']:.4g}" in shown
    assert rise.metrics["precision@10"] > max(
        bm25.metrics["precision@10"], chance.metrics["precision@10"]
    )
    assert "tokens per second" in shown
