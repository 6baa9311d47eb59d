"""From the entries of a suite to expectations of Great Expectations, with the program's values.

Names of the program's values are replaced, conditions on rows are parsed, and wrong types and
arguments are told with file and line. Nothing in a suite is ever evaluated as code.
"""

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import yaml

from tasks.quality_config import QualityConfig
from tasks.suite_files import GateSuite, SuiteError, read_suite
from tasks.suite_reader import PLACEHOLDER, Entry, did_you_mean
from tasks.suite_terms import GATES, Number

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

_INTERNAL = frozenset(
    {
        "id",
        "meta",
        "notes",
        "result_format",
        "description",
        "catch_exceptions",
        "rendered_content",
        "severity",
        "windows",
        "batch_id",
        "condition_parser",
    }
)
"""Arguments of every expectation that the gates set themselves or that have no use here."""

_FOREIGN = frozenset(
    {
        "unexpected_rows_expectation",
        "expect_query_results_to_match_comparison",
        "expect_table_row_count_to_equal_other_table",
    }
)
"""Expectations that need a database."""

_CONDITION = re.compile(
    r"(?P<column>\w+)\s+(?:(?P<null>is null|is not null)|(?P<sign>==|!=|<=|>=|<|>)\s*(?P<value>.+))"
)

_GX_SEVERITY = {"fail": "critical", "quarantine": "critical", "warn": "warning"}

WARNING_ONLY = "Warning only: "
"""Begins the description of an expectation that refuses nothing, in the pages."""


def make_expectations(
    suite: GateSuite, table: str, values: Mapping[str, Number]
) -> list["Expectation"]:
    """Return the expectations of one table of a suite.

    Args:
        suite: From `suite_files.load_suite`.
        table: Which table.
        values: What the program puts in, by name.

    Raises:
        SuiteError: There is no such expectation, or its arguments are wrong; gives file and line.
    """
    made, problems = _made(suite.gate, table, suite.tables[table], values)
    if problems:
        raise SuiteError(problems)
    return made


def check_suites(config: QualityConfig) -> list[GateSuite]:
    """Return the suites of every gate after making each expectation once.

    Raises:
        SuiteError: Lists every problem of every file.
    """
    suites, problems = [], []
    for gate, terms in GATES.items():
        suite, faults = read_suite(gate, config)
        problems += [fault for fault in faults if fault not in problems]
        suites.append(suite)
        for table, entries in suite.tables.items():
            problems += _made(gate, table, entries, terms.values)[1]
    if problems:
        raise SuiteError(problems)
    return suites


def require_suites(config: QualityConfig) -> None:
    """Refuse edited suites that cannot be used, before any work is done; `SuiteError`."""
    if config.folder is not None:
        check_suites(config)


def spoken(text: str, values: Mapping[str, Number]) -> str:
    """Return a description or reason with the program's values put in."""
    return PLACEHOLDER.sub(lambda match: format(values[match["name"]], match["spec"] or ""), text)


def _made(
    gate: str, table: str, entries: Sequence[Entry], values: Mapping[str, Number]
) -> tuple[list["Expectation"], list[str]]:
    made: list[Expectation] = []
    problems: list[str] = []
    keys: set[str] = set()
    for entry in entries:
        try:
            expectation = _expectation(gate, table, entry, values)
        except SuiteError as error:
            problems += error.problems
            continue
        key = _key(entry)
        if key in keys:
            problems.append(f"{entry.where}: {entry.type} is there twice with equal kwargs")
        keys.add(key)
        made.append(expectation)
    return made, problems


def _key(entry: Entry) -> str:
    return yaml.safe_dump([entry.type, dict(entry.kwargs)], sort_keys=True)


def _expectation(
    gate: str, table: str, entry: Entry, values: Mapping[str, Number]
) -> "Expectation":
    from great_expectations.compatibility.pydantic import ValidationError

    kind = _kind(entry)
    allowed = [name for name in kind.__fields__ if name not in _INTERNAL]
    unknown = [
        f"{entry.where}: {entry.type} has no argument {name!r}{did_you_mean(name, allowed)}; "
        f"it takes {', '.join(allowed)}"
        for name in entry.kwargs
        if name not in allowed
    ]
    if unknown:
        raise SuiteError(unknown)
    if entry.severity == "quarantine" and not _names_rows(kind):
        raise SuiteError(
            [
                f"{entry.where}: {entry.type} judges a table as a whole and names no rows, so "
                "nothing can be put aside; its severity must be fail or warn"
            ]
        )
    kwargs = {name: _filled(value, values) for name, value in entry.kwargs.items()}
    if kwargs.get("row_condition") is not None:
        kwargs["row_condition"] = _condition(gate, table, entry, kwargs["row_condition"])
    description = _description(entry, values)
    reason = None if entry.reason is None else spoken(entry.reason, values)
    meta = {
        "severity": entry.severity,
        "where": entry.where,
        "description": description,
        "reason": reason,
    }
    try:
        made: Expectation = kind(
            **kwargs,
            description=_page_text(entry, description),
            severity=_GX_SEVERITY[entry.severity],
            meta={name: value for name, value in meta.items() if value is not None},
        )
    except (ValidationError, TypeError, ValueError) as error:
        raise SuiteError(_argument_problems(entry, error)) from error
    return made


def _kind(entry: Entry) -> Any:
    from great_expectations.exceptions import ExpectationNotFoundError
    from great_expectations.expectations.registry import (
        get_expectation_impl,
        list_registered_expectation_implementations,
    )

    known = [*list_registered_expectation_implementations()]
    try:
        if entry.type in _FOREIGN:
            raise SuiteError([f"{entry.where}: {entry.type} needs a database; choose another"])
        return get_expectation_impl(entry.type)
    except ExpectationNotFoundError as error:
        hint = did_you_mean(entry.type, known)
        raise SuiteError(
            [f"{entry.where}: Great Expectations has no expectation {entry.type!r}{hint}"]
        ) from error


def _names_rows(kind: Any) -> bool:
    from great_expectations.expectations.expectation import (
        ColumnMapExpectation,
        ColumnPairMapExpectation,
        MulticolumnMapExpectation,
    )

    return issubclass(
        kind, ColumnMapExpectation | ColumnPairMapExpectation | MulticolumnMapExpectation
    )


def _filled(value: Any, values: Mapping[str, Number]) -> Any:
    """Return an argument with the program's values: alone they keep their type."""
    if isinstance(value, str):
        alone = PLACEHOLDER.fullmatch(value)
        if alone and alone["spec"] is None:
            return values[alone["name"]]
        return spoken(value, values)
    if isinstance(value, list):
        return [_filled(inner, values) for inner in value]
    if isinstance(value, dict):
        return {key: _filled(inner, values) for key, inner in value.items()}
    return value


def _condition(gate: str, table: str, entry: Entry, text: Any) -> Any:
    """Parse ``column is null``, ``column >= 3`` and the like, joined by `` and ``."""
    from great_expectations.expectations.row_conditions import Column

    known = GATES[gate].tables[table]
    whole: Any = None
    for part in str(text).split(" and "):
        match = _CONDITION.fullmatch(part.strip())
        if match is None or match["column"] not in known:
            raise SuiteError(
                [
                    f"{entry.where}: row_condition {part.strip()!r}: expected a column "
                    f"({', '.join(known)}) and 'is null', 'is not null', or ==, !=, <, <=, >, >= "
                    "and a value, joined by ' and '"
                ]
            )
        one = _comparison(Column(match["column"]), match)
        whole = one if whole is None else whole & one
    return whole


def _comparison(column: Any, match: re.Match[str]) -> Any:
    if match["null"]:
        return column.is_null() if match["null"] == "is null" else column.is_not_null()
    value = yaml.safe_load(match["value"])
    comparisons = {
        "==": column.__eq__,
        "!=": column.__ne__,
        "<": column.__lt__,
        "<=": column.__le__,
        ">": column.__gt__,
        ">=": column.__ge__,
    }
    return comparisons[match["sign"]](value)


def _description(entry: Entry, values: Mapping[str, Number]) -> str | None:
    return None if entry.description is None else spoken(entry.description, values)


def _page_text(entry: Entry, description: str | None) -> str | None:
    """Return the description as the pages show it: no HTML, and marked where it only warns."""
    if entry.severity == "warn":
        columns = ", ".join(
            str(value) for name, value in entry.kwargs.items() if name.startswith("column")
        )
        description = f"{WARNING_ONLY}{description or f'{entry.type}({columns})'}"
    return None if description is None else html.escape(description, quote=False)


def _argument_problems(entry: Entry, error: Exception) -> Iterator[str]:
    """Yield one text for each wrong argument; one argument may have failed in several ways."""
    errors = getattr(error, "errors", None)
    if errors is None:
        yield f"{entry.where}: {entry.type}: {error}"
        return
    told: set[str] = set()
    for item in errors():
        name = str(item["loc"][0])
        if name not in told and not (name == "__root__" and told):
            told.add(name)
            given = "" if name == "__root__" else f"{name} = {entry.kwargs.get(name)!r}: "
            yield f"{entry.where}: {entry.type}: {given}{item['msg']}"
