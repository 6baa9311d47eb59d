"""Suites are read whole or refused with file and line, and an edited one does what it says."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from suite_samples import add, edit
from typer.testing import CliRunner

from flows.cli import app
from tasks.quality_config import SHIPPED, QualityConfig
from tasks.quality_gate import run_gate
from tasks.suite_expectations import check_suites, make_expectations, spoken
from tasks.suite_files import (
    SHIPPED_FOLDER,
    GateSuite,
    SuiteError,
    load_suite,
    shipped_suite,
    write_suites,
)
from tasks.suite_terms import GATES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the shipped suites, to be edited."""
    write_suites(tmp_path / "quality")
    return tmp_path / "quality"


def said(config: QualityConfig) -> str:
    with pytest.raises(SuiteError) as caught:
        check_suites(config)
    return "\n".join(caught.value.problems)


# ---------------------------------------------------------------------------------- shipped


def test_the_shipped_suites_can_be_used() -> None:
    assert [suite.gate for suite in check_suites(SHIPPED)] == list(GATES)


@pytest.mark.parametrize("gate", GATES)
def test_every_word_is_explained_where_people_edit(gate: str) -> None:
    text = (SHIPPED_FOLDER / f"{gate}.yaml").read_text()
    comments = " ".join(line for line in text.splitlines() if line.startswith("#"))
    words = set(re.findall(r"[\w.]+", comments))
    for table, columns in GATES[gate].tables.items():
        assert {table, *columns} <= words, {table, *columns} - words
    assert set(GATES[gate].values) <= words


def test_a_copy_demands_what_the_original_does(folder: Path) -> None:
    for gate in GATES:
        suite = load_suite(gate, QualityConfig(folder=str(folder)))
        assert suite.path is not None
        assert suite.is_shipped
        assert suite.sha256 == shipped_suite(gate).sha256


def test_comments_and_layout_are_no_part_of_the_content_and_rules_are(folder: Path) -> None:
    path = folder / "scores.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text())))
    assert load_suite("scores", QualityConfig(folder=str(folder))).is_shipped
    config = edit(folder, "scores", "0.5", "0.4")
    assert not load_suite("scores", config).is_shipped


def test_files_that_are_there_are_kept(folder: Path) -> None:
    (folder / "index.yaml").write_text("mine")
    written, kept = write_suites(folder)
    assert written == []
    assert len(kept) == 4
    assert (folder / "index.yaml").read_text() == "mine"


# ----------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("gate", "old", "new", "expected"),
    [
        (
            "scores",
            "column: n_nonfinite",
            "column: n_nonfinit",
            r"scores.yaml:\d+: table 'scores' has no column 'n_nonfinit' \(did you mean "
            r"'n_nonfinite'\?\)",
        ),
        (
            "scores",
            "expect_column_values_to_be_between",
            "expect_column_values_between",
            r"scores.yaml:24: Great Expectations has no expectation 'expect_column_values_between'",
        ),
        ("scores", "max_value: 0", "most: 0", r"scores.yaml:24: .* has no argument 'most'"),
        (
            "scores",
            "max_value: 0",
            "max_value: few",
            r"scores.yaml:24: .*: max_value = 'few': value is not a valid float",
        ),
        ("scores", "severity: fail", "severity: stop", r"scores.yaml:27: severity must be fail or"),
        (
            "scores",
            "severity: fail",
            "severity: quarantine",
            r"severity must be fail or warn in table 'scores', got 'quarantine'",
        ),
        ("scores", "severity: fail", "severitie: fail", r"unknown key 'severitie' \(did you mean"),
        ("scores", "  queries:", "  query:", r"no table 'query' \(did you mean 'queries'\?\)"),
        ("scores", "gate: scores", "gate: index", r"scores.yaml:21: expected gate: scores"),
        ("scores", "{n_nonfinite} of", "{value.real} of", r"{value.real} is no column of table"),
        ("scores", "{n_nonfinite} of", "{n_nonfinite of", r"unexpected '{' in field name"),
        (
            "scores",
            "row_condition: n_top",
            "row_condition: n_top.real",
            r"row_condition 'n_top.real >= 5': expected a",
        ),
        ("scores", "{n_nonfinite} of", "${limits.min_chars} of", r"no value \${limits.min_chars}"),
        ("release", '"${release.n_rows}"', '"${release.rows}"', r"did you mean 'release.n_rows'"),
        ("release", "{value: ", "[value, ", r"release.yaml:\d+: not valid YAML"),
        ("release", "column: row_id", "column: origin", r"\(row_id\) is locked: the program"),
        ("ingest", "severity: quarantine", "severity: warn", r"\(problem\) is locked: the program"),
        (
            "ingest",
            "{column: n_records, min_value: 1}",
            "{column: n_records, min_value: 1, min_value: 0}",
            r"'min_value' is given twice",
        ),
    ],
)
def test_each_fault_is_told_with_its_place(
    folder: Path, gate: str, old: str, new: str, expected: str
) -> None:
    assert re.search(expected, said(edit(folder, gate, old, new)))


def test_every_problem_of_every_file_is_told_at_once(folder: Path) -> None:
    edit(folder, "index", "column: norm_min,", "column: norm_mini,")
    config = edit(folder, "scores", "max_value: 0", "max_values: 0")
    problems = said(config).splitlines()
    assert len(problems) == 2
    assert "index.yaml" in problems[0]
    assert "scores.yaml" in problems[1]


def test_what_judges_a_table_as_a_whole_cannot_put_rows_aside(folder: Path) -> None:
    config = add(
        folder,
        "ingest",
        "rows",
        type="expect_column_mean_to_be_between",
        kwargs={"column": "n_tokens", "min_value": 3},
        severity="quarantine",
    )
    assert "names no rows, so nothing can be put aside" in said(config)


def test_a_misspelt_file_is_not_passed_over(folder: Path) -> None:
    (folder / "indx.yaml").write_text("")
    assert "indx.yaml: no gate has this name (did you mean 'index'?)" in said(
        QualityConfig(folder=str(folder))
    )


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="there is no such folder; `rise quality init"):
        load_suite("index", QualityConfig(folder=str(tmp_path / "none")))


def test_gates_without_a_file_keep_the_shipped_suite(folder: Path) -> None:
    (folder / "index.yaml").unlink()
    assert load_suite("index", QualityConfig(folder=str(folder))) is shipped_suite("index")


# ----------------------------------------------------------------------------------- meaning


def test_values_of_the_program_keep_their_type_alone_and_are_spoken_within_texts() -> None:
    values = {**GATES["ingest"].values, "limits.max_chars": 77, "limits.max_rejected_share": 0.125}
    made = make_expectations(shipped_suite("ingest"), "rows", values)
    assert made[-2].max_value == 77
    assert made[-2].description == "Texts have 1 to 77 characters."
    assert spoken("at most ${limits.max_rejected_share:.1%}", values) == "at most 12.5%"


def one_suite(**entry: Any) -> GateSuite:
    from tasks.suite_reader import Entry

    whole = {"reason": None, "description": None, "locked": False, "where": "test:1", **entry}
    return GateSuite("scores", {"scores": (), "queries": (Entry(**whole),)})


QUERIES = pd.DataFrame(
    {
        "query_id": ["a", "b", "c<i>"],
        "n_top": [3, 9, 9],
        "n_nonfinite": [0, 0, 0],
        "top_score": [1.0, 2.0, 3.0],
        "last_score": [1.0, 2.0, 1.0],
        "top_spread": [0.0, 0.0, 2.0],
        "top_tie_share": [1.0, 1.0, 0.0],
    }
)


def judge(docs: Path, **entry: Any) -> Any:
    suite = one_suite(**entry)
    return run_gate(suite, {"queries": QUERIES}, docs=docs, run_name="once")


@pytest.mark.parametrize(
    ("condition", "failing"),
    [
        (None, ["a", "b"]),
        ("n_top >= 5", ["b"]),
        ("n_top < 5", ["a"]),
        ("query_id == b", ["b"]),
        ("query_id != b and n_top == 3", ["a"]),
        ("query_id is null", []),
        ("query_id is not null and top_score > 1.5", ["b"]),
    ],
)
def test_conditions_choose_lines(tmp_path: Path, condition: str, failing: list[str]) -> None:
    kwargs = {"column": "top_spread", "min_value": 1, "row_condition": condition}
    report = judge(
        tmp_path / "docs",
        type="expect_column_values_to_be_between",
        kwargs=kwargs,
        severity="fail",
        reason="{query_id}",
    )
    assert list(report.reasons) == failing


def test_a_warning_is_told_and_refuses_nothing(tmp_path: Path) -> None:
    report = judge(
        tmp_path / "docs",
        type="expect_column_values_to_be_between",
        kwargs={"column": "top_score", "max_value": 1.5},
        severity="warn",
        description="Scores are < 1.5.",
        reason="query {query_id} has {top_score:.2f}",
    )
    assert report.success
    assert report.reasons == ()
    assert report.warnings == ("Scores are < 1.5: query b has 2.00 (2 of 3 rows)",)
    pages = "".join(page.read_text() for page in (tmp_path / "docs/validations").rglob("*.html"))
    assert "Warning only: Scores are &lt; 1.5. Found: query b has 2.00" in pages
    assert "c&lt;i&gt;" in pages
    assert "c<i>" not in pages
    assert "Succeeded" in pages


def test_what_fails_within_its_tolerated_share_passes(tmp_path: Path) -> None:
    entry = {
        "type": "expect_column_values_to_be_between",
        "severity": "fail",
        "reason": "query {query_id}",
    }
    kwargs = {"column": "top_score", "max_value": 2.5}
    assert not judge(tmp_path / "one", kwargs=kwargs, **entry).success
    assert judge(tmp_path / "two", kwargs={**kwargs, "mostly": 0.6}, **entry).success


def test_an_expectation_that_cannot_run_fails_whatever_its_severity(tmp_path: Path) -> None:
    report = judge(
        tmp_path / "docs",
        type="expect_column_values_to_match_regex",
        kwargs={"column": "n_top", "regex": "["},
        severity="warn",
    )
    assert not report.success
    assert report.reasons[0].startswith("test:1: ")
    assert "could not be checked" in report.reasons[0]


# ----------------------------------------------------------------------------------- command


def test_init_show_and_check(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    runner = CliRunner()
    made = runner.invoke(app, ["quality", "init", "--folder", str(folder)])
    assert made.exit_code == 0
    assert sorted(path.stem for path in folder.iterdir()) == sorted(GATES)
    shown = runner.invoke(app, ["quality", "show"]).output
    assert "Gate release (shipped)" in shown
    assert "No row is released twice." in shown
    assert runner.invoke(app, ["quality", "check", str(folder)]).exit_code == 0
    edit(folder, "index", "severity: fail", "severity: false")
    found = runner.invoke(app, ["quality", "check", str(folder)])
    assert found.exit_code == 1
    assert re.search(r"index.yaml:\d+: severity must be fail or warn", found.output)
