"""Reads one suite of YAML and says, with file and line, what is wrong with it.

What is looked at here needs no Great Expectations: keys, tables, columns, severities, and names
in braces. `suite_expectations` makes the expectations and finds wrong types and arguments.
"""

import difflib
import re
import string
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

from tasks.suite_terms import GATES, GateTerms, Severity

PLACEHOLDER = re.compile(r"\$\{(?P<name>[a-z_.]+)(?::(?P<spec>[^}]*))?\}")
"""``${limits.min_chars}``, or ``${limits.max_rejected_share:.2%}`` within a text."""

_KEYS = {"type", "kwargs", "description", "severity", "reason", "locked"}
_TOP_KEYS = {"gate", "tables"}
_NAME = re.compile(r"[a-z_]+")

Lines = Mapping[tuple[str | int, ...], int]


@dataclass(frozen=True)
class Entry:
    """One expectation as it is written.

    Attributes:
        type: Name of the expectation in Great Expectations.
        kwargs: Its arguments; values of the program are still names, as in ``${limits.min_chars}``.
        severity: What a failure means.
        description: What holds, in words.
        reason: What to say of a failing line; names in braces are columns.
        locked: The program relies on it.
        where: ``path:line``.
    """

    type: str
    kwargs: Mapping[str, Any]
    severity: Severity
    description: str | None
    reason: str | None
    locked: bool
    where: str

    @property
    def rule(self) -> list[Any]:
        """What decides the verdict, without the words."""
        return [self.type, dict(self.kwargs), self.severity]


def read_tables(
    path: Path, gate: str, *, shown: str
) -> tuple[dict[str, tuple[Entry, ...]], list[str]]:
    """Return the tables of a file, as far as they can be read, and its problems.

    Args:
        path: The file.
        gate: Whose suite it should be.
        shown: How messages name the file.
    """
    try:
        value, lines = _load_with_lines(path.read_text("utf-8"))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        return {}, [f"{shown}:{line}: not valid YAML: {error.problem}"]
    except UnicodeDecodeError as error:
        return {}, [f"{shown}: expected UTF-8, found other bytes at {error.start}"]
    return _Reader(shown, gate, lines).read(value)


def _load_with_lines(text: str) -> tuple[Any, Lines]:
    """Return a YAML document and the line of everything in it, by its path of keys and places."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        lines: dict[tuple[str | int, ...], int] = {}
        if node is not None:
            _note_lines(node, (), lines)
        return (None if node is None else loader.construct_document(node)), lines
    finally:
        loader.dispose()


def _note_lines(
    node: yaml.Node, at: tuple[str | int, ...], lines: dict[tuple[str | int, ...], int]
) -> None:
    lines.setdefault(at, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*at, str(key.value))
            if inner in lines:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value!r} is given twice", problem_mark=key.start_mark
                )
            lines[inner] = key.start_mark.line + 1
            _note_lines(value, inner, lines)
    elif isinstance(node, yaml.SequenceNode):
        for place, value in enumerate(node.value):
            _note_lines(value, (*at, place), lines)


@dataclass
class _Reader:
    """Turns one document into entries and collects what is wrong with it."""

    path: str
    gate: str
    lines: Lines
    problems: list[str] = field(default_factory=list)

    @property
    def terms(self) -> GateTerms:
        return GATES[self.gate]

    def read(self, value: Any) -> tuple[dict[str, tuple[Entry, ...]], list[str]]:
        tables: dict[str, tuple[Entry, ...]] = {}
        if not isinstance(value, dict):
            self._say((), "expected a mapping with 'gate' and 'tables'")
            return tables, self.problems
        self._unknown_keys((), value, _TOP_KEYS)
        if value.get("gate") != self.gate:
            self._say(("gate",), f"expected gate: {self.gate}, got {value.get('gate')!r}")
        given = value.get("tables")
        if not isinstance(given, dict):
            self._say(("tables",), "expected a mapping of tables to lists of expectations")
            return tables, self.problems
        for name, items in given.items():
            if name not in self.terms.tables:
                known = ", ".join(self.terms.tables)
                hint = did_you_mean(str(name), self.terms.tables)
                self._say(("tables", str(name)), f"no table {name!r}{hint}; there are {known}")
            elif not isinstance(items, list):
                self._say(("tables", name), "expected a list of expectations")
            else:
                entries = [self._entry(name, place, item) for place, item in enumerate(items)]
                tables[name] = tuple(entry for entry in entries if entry is not None)
        return {name: tables.get(name, ()) for name in self.terms.tables}, self.problems

    def _entry(self, table: str, place: int, item: Any) -> Entry | None:
        at = ("tables", table, place)
        if not isinstance(item, dict) or not isinstance(item.get("type"), str):
            self._say(at, "expected a mapping with 'type', the name of an expectation")
            return None
        before = len(self.problems)
        self._unknown_keys(at, item, _KEYS)
        kwargs = item.get("kwargs", {})
        if not isinstance(kwargs, dict):
            self._say((*at, "kwargs"), "expected a mapping of arguments")
            kwargs = {}
        self._check_columns(at, table, kwargs)
        self._check_severity(at, table, item)
        self._check_values((*at, "kwargs"), kwargs)
        for key in ("description", "reason"):
            self._check_text((*at, key), item.get(key))
        self._check_reason((*at, "reason"), table, item.get("reason"))
        if not isinstance(item.get("locked", False), bool):
            self._say((*at, "locked"), "expected true or false")
        if len(self.problems) > before:
            return None
        return Entry(
            type=item["type"],
            kwargs=kwargs,
            severity=cast("Severity", item["severity"]),
            description=item.get("description"),
            reason=item.get("reason"),
            locked=item.get("locked", False),
            where=f"{self.path}:{self._line(at)}",
        )

    def _unknown_keys(
        self, at: tuple[str | int, ...], item: Mapping[Any, Any], known: set[str]
    ) -> None:
        for key in item:
            if key not in known:
                hint = did_you_mean(str(key), known)
                expected = ", ".join(sorted(known))
                self._say((*at, str(key)), f"unknown key {key!r}{hint}; expected {expected}")

    def _check_columns(
        self, at: tuple[str | int, ...], table: str, kwargs: Mapping[str, Any]
    ) -> None:
        known = self.terms.tables[table]
        for argument, column in columns_of(kwargs):
            if column not in known:
                hint = did_you_mean(str(column), known)
                self._say(
                    (*at, "kwargs", argument),
                    f"table {table!r} has no column {column!r}{hint}; it has {', '.join(known)}",
                )

    def _check_severity(
        self, at: tuple[str | int, ...], table: str, item: Mapping[str, Any]
    ) -> None:
        allowed = self.terms.severities(table)
        if item.get("severity") not in allowed:
            self._say(
                (*at, "severity"),
                f"severity must be {' or '.join(allowed)} in table {table!r}, got "
                f"{item.get('severity')!r}",
            )

    def _check_values(self, at: tuple[str | int, ...], value: Any) -> None:
        """Check the names of the program's values, anywhere in the arguments."""
        if isinstance(value, str):
            self._check_text(at, value)
        elif isinstance(value, dict):
            for key, inner in value.items():
                self._check_values((*at, str(key)), inner)
        elif isinstance(value, list):
            for place, inner in enumerate(value):
                self._check_values((*at, place), inner)

    def _check_text(self, at: tuple[str | int, ...], text: Any) -> None:
        if text is None:
            return
        if not isinstance(text, str):
            self._say(at, f"expected a text, got {text!r}")
            return
        for match in PLACEHOLDER.finditer(text):
            name, known = match["name"], self.terms.values
            if name not in known:
                names = ", ".join(known) or "none here"
                hint = did_you_mean(name, known)
                self._say(at, f"no value ${{{name}}}{hint}; there are: {names}")
                continue
            try:
                format(known[name], match["spec"] or "")
            except ValueError as error:
                self._say(at, f"${{{name}}}: {error}")

    def _check_reason(self, at: tuple[str | int, ...], table: str, reason: Any) -> None:
        if not isinstance(reason, str):
            return
        known = self.terms.tables[table]
        try:
            fields = list(string.Formatter().parse(PLACEHOLDER.sub("", reason)))
        except ValueError as error:
            self._say(at, f"{error} in {reason!r}; write {{{{ for a brace")
            return
        for _, name, spec, _ in fields:
            if name is None:
                continue
            # only plain names: a path such as {text.__class__} would reach into the program
            if not _NAME.fullmatch(name) or name not in known or "{" in (spec or ""):
                hint = did_you_mean(name, known)
                self._say(at, f"{{{name}}} is no column of table {table!r}{hint}")

    def _say(self, at: tuple[str | int, ...], problem: str) -> None:
        self.problems.append(f"{self.path}:{self._line(at)}: {problem}")

    def _line(self, at: tuple[str | int, ...]) -> int:
        while at and at not in self.lines:
            at = at[:-1]
        return self.lines.get(at, 1)


def columns_of(kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the columns that an expectation names, each with the argument that names it."""
    for argument, value in kwargs.items():
        if argument.startswith("column"):
            for column in value if isinstance(value, list) else [value]:
                yield argument, column


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint in brackets at the known word that ``word`` was meant to be, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
