"""Great Expectations as a gate: which rows fail, why in words, and pages that show it.

A `QualityRun` checks one or more frames against suites and then writes Data Docs and one
``validation.json`` for all of them. Row-level failures come back as reasons by index label, so
that the caller can put the rows aside; what cannot be blamed on single rows is ``fatal``. What an
expectation's severity calls a warning refuses nothing and is told apart.
"""

import html
import os
import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.files import write_json
from tasks.data_docs import make_offline
from tasks.suite_terms import Severity

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.expectations.expectation import Expectation

SITE = "RISE"
"""Name of the one Data Docs site of a run; the pages show it."""

VALIDATION_FILE = "validation.json"
"""The whole result for programs, beside the pages."""

SHOWN_REASONS = 3
"""Failing rows whose reasons a page shows for each expectation."""

FULL_LISTS = frozenset({"unexpected_list", "unexpected_index_list", "unexpected_index_query"})
"""Parts of a result that grow with the failing rows; pages show the first 20 from other parts."""


@dataclass(frozen=True)
class Check:
    """How one expectation went: ``n_unexpected`` of ``n_rows`` values did not meet it."""

    expectation: str
    column: str | None
    description: str
    severity: Severity
    success: bool
    n_unexpected: int
    n_rows: int


@dataclass(frozen=True)
class Warned:
    """An expectation that only warns and was not met.

    Attributes:
        description: What should hold.
        found: What was found: the first failing row's reason, or the observed value.
        n_unexpected: Failing rows; 0 where no row is to blame.
        n_rows: Rows that were looked at.
    """

    description: str
    found: str
    n_unexpected: int
    n_rows: int

    def merge(self, other: "Warned") -> "Warned":
        """Return both together: what was found first, counts of both."""
        return replace(
            self,
            n_unexpected=self.n_unexpected + other.n_unexpected,
            n_rows=self.n_rows + other.n_rows,
        )

    @property
    def text(self) -> str:
        """One sentence for people."""
        share = f" ({self.n_unexpected:,} of {self.n_rows:,} rows)" if self.n_rows > 1 else ""
        return f"{self.description.rstrip('.')}: {self.found}{share if self.n_unexpected else ''}"


@dataclass
class SuiteResult:
    """What a suite found in a frame.

    Attributes:
        suite: Name of the suite.
        run_name: Name of this check.
        n_rows: Rows of the frame.
        success: Every expectation was met, within the share that its ``mostly`` allows, except
            for those that only warn.
        failing: Index label of a row -> the reasons why it fails, in the suite's order.
        refusing: The part of ``failing`` for which putting the row aside is not enough.
        fatal: Failures that concern the frame as a whole, or an expectation that could not run.
        broken: The part of ``fatal`` that could not run.
        warned: Expectations that only warn and were not met.
        checks: Every expectation, in the suite's order.
    """

    suite: str
    run_name: str
    n_rows: int
    success: bool = True
    failing: dict[int, list[str]] = field(default_factory=dict)
    refusing: dict[int, list[str]] = field(default_factory=dict)
    fatal: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    warned: list[Warned] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)


class QualityRun:
    """Checks frames and writes one set of Data Docs about all of them.

    An expectation's ``meta={"reason": "... {column} ..."}`` is the sentence for a failing row;
    names in braces are columns of the frame. Its ``description`` is what the pages show.
    """

    def __init__(self) -> None:
        os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
        import great_expectations as gx
        from great_expectations.data_context.types.base import (
            DataContextConfig,
            InMemoryStoreBackendDefaults,
            ProgressBarsConfig,
        )

        # the default configuration would leave a folder in the system's temporary directory
        config = DataContextConfig(
            store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
            progress_bars=ProgressBarsConfig(globally=False),
        )
        self._context = gx.get_context(mode="ephemeral", project_config=config)
        self._results: list[SuiteResult] = []

    def check(
        self,
        frame: "pd.DataFrame",
        *,
        suite: str,
        expectations: Sequence["Expectation"],
        run_name: str,
    ) -> SuiteResult:
        """Check a frame.

        Args:
            frame: Rows under a unique integer index.
            suite: Name of the set of expectations; the same name, the same expectations.
            expectations: What must hold.
            run_name: Name of this check in the pages; once for each suite.
        """
        stored, validation = self._validate(frame, suite, expectations, run_name)
        outcomes = list(validation.results)
        wanted = {_key(item.configuration): order for order, item in enumerate(expectations)}
        outcomes.sort(key=lambda outcome: wanted[_key(outcome.expectation_config)])
        result = SuiteResult(suite=suite, run_name=run_name, n_rows=len(frame))
        for outcome in outcomes:
            _collect(outcome, frame, result)
            _show_findings(outcome, frame)
        result.failing = dict(sorted(result.failing.items()))
        self._results.append(result)
        validation.success = result.success  # warnings alone are no failure, in the pages as well
        self._keep_for_pages(stored, validation)
        return result

    def write(self, docs: Path, *, facts: Mapping[str, Any] | None = None) -> Path:
        """Write the pages and ``validation.json`` into ``docs``; return the index page.

        Args:
            docs: Folder for them.
            facts: Put into ``validation.json`` beside the runs; JSON.
        """
        from tasks.data_docs_view import site_config

        site: Any = site_config(docs)
        self._context.add_data_docs_site(site_name=SITE, site_config=site)
        self._context.build_data_docs(site_names=[SITE])
        self._context.delete_data_docs_site(SITE)
        make_offline(docs)
        runs = [
            {
                "suite": result.suite,
                "run": result.run_name,
                "success": result.success,
                "n_rows": result.n_rows,
                "n_failing_rows": len(result.failing),
                "fatal": result.fatal,
                "warnings": [warned.text for warned in result.warned],
                "checks": [asdict(check) for check in result.checks],
            }
            for result in self._results
        ]
        success = all(result.success for result in self._results)
        body = {**(facts or {}), "success": success, "runs": runs}
        write_json(docs / VALIDATION_FILE, body)
        return docs / "index.html"

    def _keep_for_pages(self, stored: Any, validation: Any) -> None:
        for outcome in validation.results:
            outcome.result = _for_pages(outcome.result)
        self._context.validation_results_store.set(stored, validation)

    def _validate(
        self,
        frame: "pd.DataFrame",
        suite: str,
        expectations: Sequence["Expectation"],
        run_name: str,
    ) -> tuple[Any, Any]:
        """Return the key under which the pages will find the validation, and the validation."""
        import great_expectations as gx
        from great_expectations.core.run_identifier import RunIdentifier

        context = self._context
        gx_suite = context.suites.add_or_update(
            gx.ExpectationSuite(suite, expectations=list(expectations))
        )
        frames = context.data_sources.add_or_update_pandas(suite)
        batches = frames.add_dataframe_asset(run_name).add_batch_definition_whole_dataframe("all")
        definition = context.validation_definitions.add(
            gx.ValidationDefinition(name=f"{suite} {run_name}", data=batches, suite=gx_suite)
        )
        checkpoint = context.checkpoints.add(
            gx.Checkpoint(
                name=f"{suite} {run_name}",
                validation_definitions=[definition],
                result_format={"result_format": "COMPLETE"},
            )
        )
        outcome = checkpoint.run(
            batch_parameters={"dataframe": frame}, run_id=RunIdentifier(run_name=run_name)
        )
        context.data_sources.delete(suite)  # its engine would keep the frame in memory
        return next(iter(outcome.run_results.items()))


def run_suite(
    frame: "pd.DataFrame",
    *,
    suite: str,
    expectations: Sequence["Expectation"],
    docs: Path,
    run_name: str,
) -> SuiteResult:
    """Check one frame and write its Data Docs and ``validation.json`` into ``docs``."""
    run = QualityRun()
    result = run.check(frame, suite=suite, expectations=expectations, run_name=run_name)
    run.write(docs)
    return result


def _collect(outcome: Any, frame: "pd.DataFrame", result: SuiteResult) -> None:
    """Add what one expectation found to a result, by its severity."""
    config = outcome.expectation_config
    severity = _severity(config)
    result.checks.append(_check(outcome, len(frame)))
    message = _exception(outcome.exception_info)
    labels = outcome.result.get("unexpected_index_list") if message is None else None
    if message is not None:
        text = f"{_named(config)}: could not be checked: {message}"
        result.broken.append(text)
        result.fatal.append(text)
        result.success = False
    elif severity == "warn":
        if not outcome.success:
            result.warned.append(_warned(outcome, frame))
    elif labels is None:
        if not outcome.success:
            found = outcome.result.get("observed_value")
            result.fatal.append(f"{_describe(config)}: found {found}")
            result.success = False
    elif severity == "quarantine" or not outcome.success:
        reasons = _reasons(config, frame, labels)
        _add_reasons(result.failing, labels, reasons)
        if severity == "fail":
            _add_reasons(result.refusing, labels, reasons)
        result.success = result.success and bool(outcome.success)


def _add_reasons(
    failing: dict[int, list[str]], labels: Sequence[Any], reasons: Sequence[str]
) -> None:
    for label, reason in zip(labels, reasons, strict=True):
        failing.setdefault(int(label), []).append(reason)


def _reasons(config: Any, frame: "pd.DataFrame", labels: Sequence[Any]) -> list[str]:
    """Return the sentence for each failing row."""
    template = (config.meta or {}).get("reason") or f"quality: {_describe(config)}"
    rows = frame.loc[list(labels)].to_dict("records")
    return [_SENTENCE.vformat(template, (), {str(key): row[key] for key in row}) for row in rows]


def _show_findings(outcome: Any, frame: "pd.DataFrame") -> None:
    """Put the first failing rows' reasons behind what the pages say should hold."""
    config = outcome.expectation_config
    labels = outcome.result.get("unexpected_index_list")
    if outcome.success or not labels or not (config.meta or {}).get("reason"):
        return
    shown = _reasons(config, frame, labels[:SHOWN_REASONS])
    more = ["..."] if len(labels) > SHOWN_REASONS else []
    found = html.escape("; ".join([*shown, *more]), quote=False)
    config.description = f"{config.description or _describe(config)} Found: {found}"


class _Sentence(string.Formatter):
    """Writes a value plainly where its format is for another type: absent numbers, mostly."""

    def format_field(self, value: Any, format_spec: str) -> str:
        try:
            return format(value, format_spec)
        except (TypeError, ValueError):
            return str(value)


_SENTENCE = _Sentence()


def _warned(outcome: Any, frame: "pd.DataFrame") -> Warned:
    config = outcome.expectation_config
    labels = outcome.result.get("unexpected_index_list")
    if labels:
        found = _reasons(config, frame, labels[:1])[0]
    else:
        found = f"found {outcome.result.get('observed_value')}"
    return Warned(_describe(config), found, len(labels or ()), len(frame))


def _for_pages(value: Any) -> Any:
    """Return a result as pages may show it: without the full lists, and no value acts as HTML.

    Great Expectations puts values into its pages as they are, so a field named ``<script>`` would
    run; and the full lists would stay in memory for every part.
    """
    match value:
        case str():
            return html.escape(value)
        case dict():
            return {
                _for_pages(key): _for_pages(item)
                for key, item in value.items()
                if key not in FULL_LISTS
            }
        case list() | tuple():
            return [_for_pages(item) for item in value]
        case _:
            return value


def _exception(info: Any) -> str | None:
    """Return the message of an exception; it lies flat or one level down, by metric."""
    if not info:
        return None
    nested = [info, *(value for value in info.values() if isinstance(value, dict))]
    raised = [item for item in nested if item.get("raised_exception")]
    return str(raised[0].get("exception_message")) if raised else None


def _check(outcome: Any, n_rows: int) -> Check:
    config = outcome.expectation_config
    return Check(
        expectation=config.type,
        column=config.kwargs.get("column"),
        description=_describe(config),
        severity=_severity(config),
        success=bool(outcome.success),
        n_unexpected=int(outcome.result.get("unexpected_count") or 0),
        n_rows=n_rows,
    )


def _describe(config: Any) -> str:
    """Return what should hold, in words; the configuration's own text is for pages."""
    description = (config.meta or {}).get("description") or config.description
    if description:
        return str(description)
    columns = [str(value) for name, value in config.kwargs.items() if name.startswith("column")]
    return f"{config.type}({', '.join(columns)})"


def _named(config: Any) -> str:
    """Return what should hold and, where it is known, the place of the suite that demands it."""
    where = (config.meta or {}).get("where")
    return f"{where}: {_describe(config)}" if where else _describe(config)


def _severity(config: Any) -> Severity:
    """Return an expectation's severity; one that came from no suite puts rows aside."""
    severity: Severity = (config.meta or {}).get("severity", "quarantine")
    return severity


def _key(config: Any) -> str:
    kwargs = {name: value for name, value in config.kwargs.items() if name != "batch_id"}
    return f"{config.type} {sorted((name, str(value)) for name, value in kwargs.items())}"
