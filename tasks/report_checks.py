"""The report's list of quality checks: what the gate asked of the files, and what it found."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from storage.errors import NotFoundError
from storage.files import read_json
from storage.layout import QUALITY_FOLDER
from tasks.page.markup import Content, joined, tag
from tasks.page.parts import Column, more, table
from tasks.page.shell import Section
from tasks.page.text import count, number, shortened
from tasks.quality import VALIDATION_FILE
from tasks.report_data import ReportData

WORDS_CHARS = 160


def checks_section(data: ReportData) -> Section | None:
    """Return the checks that the files passed; None where their record is no longer there."""
    try:
        record = read_json(data.release.folder / QUALITY_FOLDER / VALIDATION_FILE)
    except NotFoundError:
        return None
    checks = [check for run in record.get("runs", ()) for check in run.get("checks", ())]
    if not checks:
        return None
    odd = [check for check in checks if not check["success"]]
    heading = (
        f"{number(len(odd))} of {count(len(checks), 'check')} found something odd"
        if odd
        else f"All {count(len(checks), 'check')} passed before the release was published"
    )
    parts = [
        _listed(odd, "Checks that found something") if odd else None,
        more("Every check", _listed(checks, "Every check")),
        tag("p", f"In full: {QUALITY_FOLDER}/index.html in this folder.", class_="note"),
    ]
    return Section("Checks", heading, joined(*parts))


def _listed(checks: Sequence[Mapping[str, Any]], caption: str) -> Markup:
    columns = [Column("what must hold"), Column("result"), Column("rows at odds", "number")]
    lines = [
        [shortened(check["description"], WORDS_CHARS), _result(check), check["n_unexpected"]]
        for check in checks
    ]
    return table(columns, lines, caption=caption)


def _result(check: Mapping[str, Any]) -> Content:
    if check["success"]:
        return "holds"
    return tag("span", "warning" if check["severity"] == "warn" else "fails", class_="reason")
