"""Settings are strict, whole in their identity, and wrong ones are named field by field."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from storage.files import short_id
from tasks.config import IndexConfig, PipelineConfig, ReleaseConfig, ScoreConfig, Threshold
from tasks.config_file import merged, read_settings, validated
from tasks.signature_config import PRESETS, WindowConfig

SMALLEST = {
    "rows": {"source": {"kind": "files", "paths": ["rows.jsonl"]}},
    "queries": {"source": {"kind": "files", "paths": ["queries.jsonl"]}},
}


@pytest.mark.parametrize("value", [True, "12", 1.5, 0, None])
def test_top_k_takes_whole_numbers_from_one_only(value: object) -> None:
    with pytest.raises(ValidationError, match="top_k"):
        ScoreConfig(top_k=value)


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ScoreConfig().top_k = 3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_infinite_or_missing_numbers(value: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        Threshold(min_score=value)


def test_an_overlap_must_be_shorter_than_its_window() -> None:
    with pytest.raises(ValidationError, match=r"overlap is 8 but a window has 8 tokens"):
        WindowConfig(tokens=8, overlap=8)


def test_every_field_enters_the_identity() -> None:
    plain = PRESETS["paper"].model_dump(mode="json")
    for group, fields in plain.items():
        assert short_id({**plain, group: "something else"}) != short_id(plain)
        for name in fields if isinstance(fields, dict) else ():
            other = {**plain, group: {**fields, name: "something else"}}
            assert short_id(other) != short_id(plain)


def test_a_preset_goes_by_its_name() -> None:
    assert IndexConfig(signature="paper-352").signature == PRESETS["paper-352"]
    with pytest.raises(ValidationError, match="there is no preset 'papre'; presets are paper"):
        IndexConfig(signature="papre")


def test_names_cannot_leave_the_store() -> None:
    for name in ["../up", "", "a/b", ".hidden", "Ä", "x" * 65]:
        with pytest.raises(ValidationError, match="corpus"):
            PipelineConfig.model_validate({**SMALLEST, "corpus": name})


def test_an_unknown_field_is_named_with_the_likely_one() -> None:
    settings = merged(SMALLEST, {"rows.limits.max_rejected_shares": 0.2, "scoring.top_k": "ten"})
    with pytest.raises(ValueError, match="settings are not valid") as caught:
        validated(PipelineConfig, settings, origin="pipeline.yaml")
    message = str(caught.value)
    assert message.startswith("pipeline.yaml")
    assert "rows.limits.max_rejected_shares: there is no such field." in message
    assert "Did you mean 'max_rejected_share'?" in message
    assert "scoring.top_k: Input should be a valid integer, got 'ten'." in message


def test_a_missing_part_is_named() -> None:
    with pytest.raises(ValueError, match=r"queries: required, but not given"):
        validated(PipelineConfig, {"rows": SMALLEST["rows"]}, origin="options")


def test_yaml_errors_come_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text("store: here\nrows: [unclosed\n")
    with pytest.raises(ValueError, match=r"pipeline\.yaml:3: not valid YAML"):
        read_settings(path)
    path.write_text("- just\n- a list\n")
    with pytest.raises(ValueError, match="expected a mapping of settings, found list"):
        read_settings(path)


def test_options_override_the_file_without_changing_it() -> None:
    file = {"indexing": {"model": {"name": "a"}, "block_rows": 8}, "store": "s"}
    result = merged(file, {"indexing.model.name": "b", "store": None, "runtime.device": "cpu"})
    assert result == {
        "indexing": {"model": {"name": "b"}, "block_rows": 8},
        "store": "s",
        "runtime": {"device": "cpu"},
    }
    assert file["indexing"]["model"]["name"] == "a"


def test_lists_from_yaml_become_tuples() -> None:
    settings = validated(PipelineConfig, SMALLEST, origin="options")
    assert settings.rows.source.paths == ("rows.jsonl",)
    assert validated(ReleaseConfig, {"select": {"kind": "top_k"}}, origin="x").select.top_k == 100
