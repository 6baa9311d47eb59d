"""Settings are strict, whole in their identity, and wrong ones are named field by field."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from storage.files import short_id
from storage.refs import IndexRef
from storage.signatures import SignatureIndex
from tasks.codes import coded_numbers
from tasks.config import DriftLimits, IndexConfig, PipelineConfig, RuntimeConfig, ScoreConfig
from tasks.config_file import merged, read_settings, validated
from tasks.release_config import ReleaseConfig, Threshold
from tasks.signature_config import (
    PRESETS,
    PrincipalProjection,
    SeparableSketch,
    SignatureConfig,
    WindowConfig,
)

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


@pytest.mark.parametrize("preset", ["paper", "compact"])
def test_every_field_enters_the_identity(preset: str) -> None:
    plain = PRESETS[preset].model_dump(mode="json")
    for group, fields in plain.items():
        assert short_id({**plain, group: "something else"}) != short_id(plain)
        for name in fields if isinstance(fields, dict) else ():
            other = {**plain, group: {**fields, name: "something else"}}
            assert short_id(other) != short_id(plain)


def test_the_default_is_compact_and_paper_one_word_away() -> None:
    assert IndexConfig().signature == PRESETS["compact"]
    assert PipelineConfig.model_validate(SMALLEST).indexing.signature.code == "sign"
    assert IndexConfig(signature="paper").signature == SignatureConfig()


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


@pytest.mark.parametrize(
    ("preset", "n_numbers", "row_bytes"),
    [
        ("paper", 24_576, 49_152),
        ("paper-4096", 4_096, 8_192),
        ("paper-352", 352, 704),
        ("compact-256", 2_048, 256),
        ("compact", 4_096, 512),
        ("compact-2k", 16_384, 2_048),
        ("compact-8k", 8_192, 8_192),
        ("compact-16k", 16_384, 16_384),
    ],
)
def test_presets_take_the_bytes_that_they_promise(
    tmp_path: Path, preset: str, n_numbers: int, row_bytes: int
) -> None:
    signature = PRESETS[preset]
    assert signature.sketch.n_numbers == n_numbers
    index = SignatureIndex.create(
        IndexRef(str(tmp_path), "main"),
        identity={"corpus": "main"},
        tables={},
        n_numbers=coded_numbers(signature),
        block_rows=8,
        code=signature.code,
    )
    assert index.row_bytes == row_bytes


def test_a_sketch_without_a_kind_is_the_papers() -> None:
    named = {"kind": "separable", "residual_dim": 8}
    assert SignatureConfig(sketch={"residual_dim": 8}) == SignatureConfig(sketch=named)
    definitions = SignatureConfig.model_json_schema()["$defs"]
    kinds = ("SeparableSketch", "PrincipalProjection", "TensorSketch")
    assert ["kind" in definitions[kind].get("required", []) for kind in kinds] == [0, 1, 1]
    assert PrincipalProjection.model_config["extra"] == "forbid"
    with pytest.raises(ValidationError, match="'separable', 'principal', 'tensor'"):
        SignatureConfig(sketch={"kind": "random"})
    with pytest.raises(ValidationError, match=r"principal\.projected_hidden_dim"):
        SignatureConfig(sketch={"kind": "principal", "projected_hidden_dim": 8})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"residual_weight": 1.0}, "residual_dim is 0 but residual_weight is above 0"),
        ({"residual_dim": 8}, "residual_dim is 8 but residual_weight and cross_weight are 0"),
        ({"projected_dim": 0}, "projected_dim is 0 but projected_weight is above 0"),
        (
            {"residual_dim": 8, "residual_weight": 1.0, "residual_buckets": 4},
            "residual_dim is 8 but there are 4 residual_buckets",
        ),
        ({"projected_weight": 0.0}, "all three channel weights are 0"),
    ],
)
def test_directions_and_weights_go_together(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PrincipalProjection(**settings)


def test_signs_need_whole_bytes_unless_they_are_rotated() -> None:
    with pytest.raises(ValidationError, match="a signature has 9 numbers"):
        SignatureConfig(sketch=PrincipalProjection(hidden_dim=3, projected_dim=3), code="sign")
    odd = SeparableSketch(residual_dim=3, hidden_dim=3, projected_dim=3)
    assert SignatureConfig(sketch=odd, code="sign").sketch.n_numbers == 18


def test_a_warning_comes_before_a_refusal() -> None:
    with pytest.raises(ValidationError, match=r"refuse_below is 0.95 but warn_below 0.9"):
        DriftLimits(refuse_below=0.95)


def test_blocks_are_sketched_by_processes_here_or_by_a_cluster():
    assert RuntimeConfig(index_workers=4).index_cluster is None
    assert RuntimeConfig(index_cluster="tls://host:8786").index_workers == 1
    with pytest.raises(ValidationError, match="leave one of them out"):
        RuntimeConfig(index_workers=2, index_cluster="tcp://host:8786")
    with pytest.raises(ValidationError, match="index_cluster"):
        RuntimeConfig(index_cluster="host")
    with pytest.raises(ValidationError, match="index_workers"):
        RuntimeConfig(index_workers=0)
