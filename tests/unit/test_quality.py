"""Failing rows come back with reasons, and the pages about them open without a network."""

import html.parser
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tasks.data_docs import ASSETS, COPIES, offline_page
from tasks.quality import QualityRun, SuiteResult, run_suite

LOADING = {"script", "link", "img", "iframe", "source", "video", "audio", "embed", "object"}
INJECTED = "<script>document.title='taken'</script>"


def _expectations(*, mostly: float = 1.0) -> list[Any]:
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectColumnValuesToBeNull(
            column="problem", mostly=mostly, meta={"reason": "{problem}"}
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="n_tokens",
            min_value=2,
            max_value=9,
            mostly=mostly,
            meta={"reason": "token count: {n_tokens}"},
        ),
        gxe.ExpectColumnValuesToBeUnique(column="row_id", description="ids are unique"),
    ]


def _frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "row_id": ["a", "b", "c", "d"],
            "problem": np.array([None, INJECTED, None, "wrong {type}"], dtype=object),
            "n_tokens": pd.array([5, 5, 12, 1], dtype="Int64"),
        },
        index=[10, 11, 12, 13],
    )


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[SuiteResult, Path]:
    """A run over two frames, its pages moved away from where they were written."""
    folder = tmp_path_factory.mktemp("quality")
    run = QualityRun()
    result = run.check(_frame(), suite="rows", expectations=_expectations(), run_name="part-0")
    good = _frame().iloc[:1]
    run.check(good, suite="rows", expectations=_expectations(), run_name="part-1")
    index = run.write(folder / "written")
    assert index == folder / "written" / "index.html"
    shutil.move(folder / "written", folder / "moved")
    return result, folder / "moved"


def test_rows_get_every_reason_in_the_order_of_the_suite(
    checked: tuple[SuiteResult, Path],
) -> None:
    result, _ = checked
    assert result.failing == {
        11: [INJECTED],
        12: ["token count: 12"],
        13: ["wrong {type}", "token count: 1"],
    }
    assert not result.success
    assert result.fatal == []
    assert [(check.column, check.success, check.n_unexpected) for check in result.checks] == [
        ("problem", False, 2),
        ("n_tokens", False, 2),
        ("row_id", True, 0),
    ]


def test_rows_within_the_tolerated_share_are_still_listed(tmp_path: Path) -> None:
    result = run_suite(
        _frame(),
        suite="rows",
        expectations=_expectations(mostly=0.5),
        docs=tmp_path / "docs",
        run_name="once",
    )
    assert result.success
    assert sorted(result.failing) == [11, 12, 13]


def test_what_no_row_is_to_blame_for_is_fatal() -> None:
    import great_expectations.expectations as gxe

    result = QualityRun().check(
        _frame(),
        suite="table",
        expectations=[
            gxe.ExpectColumnValuesToNotBeNull(column="absent"),
            gxe.ExpectTableRowCountToBeBetween(min_value=9, description="enough rows"),
        ],
        run_name="once",
    )
    assert result.failing == {}
    assert len(result.fatal) == 2
    assert 'The column "absent"' in result.fatal[0]
    assert result.fatal[1] == "enough rows: found 4"


def test_the_machine_readable_result_lists_every_check(checked: tuple[SuiteResult, Path]) -> None:
    _, docs = checked
    found = json.loads((docs / "validation.json").read_text())
    assert found["success"] is False
    assert [(run["run"], run["success"], run["n_failing_rows"]) for run in found["runs"]] == [
        ("part-0", False, 3),
        ("part-1", True, 0),
    ]
    assert found["runs"][0]["checks"][2]["description"] == "ids are unique"


class _Loads(html.parser.HTMLParser):
    """Collects what a browser fetches when it opens a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if tag in LOADING and name in {"src", "href", "data", "poster"} and value:
                self.addresses.append(value)
            if name == "style" and value:
                self.addresses += re.findall(r"url\(['\"]?([^'\")]+)", value)


def _loaded(page: Path) -> list[str]:
    text = page.read_text("utf-8")
    parser = _Loads()
    parser.feed(text)
    styles = re.findall(r"<style[^>]*>(.*?)</style>", text, re.DOTALL)
    urls = [url for style in styles for url in re.findall(r"url\(['\"]?([^'\")]+)", style)]
    imports = [found for style in styles for found in re.findall(r"@import[^;]+", style)]
    return [*parser.addresses, *urls, *imports]


def test_pages_load_nothing_from_elsewhere_and_all_they_load_is_there(
    checked: tuple[SuiteResult, Path],
) -> None:
    _, docs = checked
    pages = sorted(docs.rglob("*.html"))
    assert len(pages) == 4  # index, suite, two runs
    for page in pages:
        addresses = _loaded(page)
        assert [address for address in addresses if "//" in address] == []
        missing = [a for a in addresses if not (page.parent / a.partition("?")[0]).is_file()]
        assert missing == []
        assert sum(address.endswith(".js") for address in addresses) == 6


def test_the_index_lists_the_runs(checked: tuple[SuiteResult, Path]) -> None:
    _, docs = checked
    index = (docs / "index.html").read_text("utf-8")
    for run in docs.glob("validations/rows/*/*/*.html"):
        assert str(run.relative_to(docs)) in index
    assert "part-0" in index
    assert "part-1" in index


def test_values_are_shown_and_never_run(checked: tuple[SuiteResult, Path]) -> None:
    _, docs = checked
    pages = "".join(page.read_text("utf-8") for page in docs.rglob("*.html"))
    assert INJECTED not in pages
    assert "&lt;script&gt;document.title=" in pages


def test_unknown_outside_files_are_taken_out_and_links_are_kept() -> None:
    page = (
        '<script src="https://cdn.example.org/vega@5"></script>'
        '<link rel="stylesheet" integrity="sha384-x" crossorigin="anonymous" '
        'href="https://cdn.example.org/4.3.1/css/bootstrap.min.css"/>'
        '<a href="https://example.org">more</a>'
        "<style>.a {background: url('https://example.org/x.png') 0 0 no-repeat;}</style>"
    )
    assert offline_page(page, to_root="../") == (
        '<link rel="stylesheet" href="../assets/css/bootstrap.min.css"/>'
        '<a href="https://example.org">more</a>'
        "<style>.a {}</style>"
    )


def test_every_copy_is_there_with_its_licence_and_small() -> None:
    assert all((ASSETS / copy).is_file() for copy in COPIES.values())
    assert sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()) < 1_000_000
    assert len(list((ASSETS / "licences").glob("*.txt"))) == 6
