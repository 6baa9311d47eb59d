"""Preset compact through the whole path: calibrated, coded, scored, released, taken apart."""

import json
from pathlib import Path
from typing import Any

import pytest
from pipeline_samples import pipeline_settings, write_rows
from tiny import tiny_model

from flows.index import calibration_facts
from flows.pipeline import PipelineReport, pipeline
from storage.refs import IndexRef, ReleaseRef
from storage.signatures import SignatureIndex
from tasks.attribution import attribute_text, token_contributions
from tasks.config import PipelineConfig, RuntimeConfig
from tasks.config_file import validated

pytestmark = pytest.mark.usefixtures("prefect_harness")


@pytest.fixture(name="settings")
def compact_settings(tmp_path: Path) -> dict[str, Any]:
    model = tiny_model(tmp_path / "model", hidden_size=64, intermediate_size=64)
    settings = pipeline_settings(tmp_path, model)
    settings["indexing"]["signature"] = "compact"
    return settings


def run(settings: dict[str, Any]) -> PipelineReport:
    return pipeline(validated(PipelineConfig, settings, origin="test"))


def test_compact_goes_the_whole_path_and_grows(settings: dict[str, Any], tmp_path: Path) -> None:
    first = run(settings)
    ref = IndexRef(settings["store"], "main")
    index = SignatureIndex.open(ref)
    assert (index.code, index.row_bytes, index.n_rows) == ("sign", 512, 30)
    assert first.index.energy.keys() == {"hidden", "projected"}
    assert isinstance(first.release.ref, ReleaseRef)
    assert first.release.n_rows == 7
    assert index.verify() == []

    again = run(settings)
    assert again.index.n_sketched == 0
    assert again.score.already

    write_rows(tmp_path / "rows-1.jsonl", 30, 50)
    grown = run(settings)
    assert (grown.index.n_rows, grown.index.n_sketched) == (50, 50 - 24)
    assert grown.index.index_id == first.index.index_id
    assert grown.queries.ref == first.queries.ref
    facts = calibration_facts(grown.index)
    assert facts["drift"] == "within limits"
    assert facts["hidden energy of appended rows, relative"] > 0.9

    row = json.loads((tmp_path / "rows-0.jsonl").read_text().splitlines()[3])
    cpu = RuntimeConfig(device="cpu")
    hits = attribute_text(
        ref, prompt=row["prompt"], completion=row["completion"], top_k=3, runtime=cpu
    )
    assert hits[0].row_id == row["id"]
    parts = token_contributions(ref, row["id"], row["prompt"], row["completion"], runtime=cpu)
    # the row holds the answer, so the tokens that they share make the score
    assert parts.score > 0.5
    assert sum(one.share for one in parts.query) == pytest.approx(1.0, abs=1e-3)
