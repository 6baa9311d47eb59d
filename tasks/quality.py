"""Great Expectations as a gate: which rows fail, why in words, and pages that show it.

A `QualityRun` checks one or more frames against suites and then writes Data Docs and one
``validation.json`` for all of them. Row-level failures come back as reasons by index label, so
that the caller can put the rows aside; what cannot be blamed on single rows is ``fatal``.
"""

import html
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage.files import write_json
from tasks.data_docs import make_offline

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.expectations.expectation import Expectation

SITE = "RISE"
"""Name of the one Data Docs site of a run; the pages show it."""

FULL_LISTS = frozenset({"unexpected_list", "unexpected_index_list", "unexpected_index_query"})
"""Parts of a result that grow with the failing rows; pages show the first 20 from other parts."""


@dataclass(frozen=True)
class Check:
    """How one expectation went: ``n_unexpected`` of ``n_rows`` values did not meet it."""

    expectation: str
    column: str | None
    description: str
    success: bool
    n_unexpected: int
    n_rows: int


@dataclass(frozen=True)
class SuiteResult:
    """What a suite found in a frame.

    Attributes:
        success: Every expectation was met, within the share that its ``mostly`` allows.
        failing: Index label of a row -> the reasons why it fails, in the suite's order.
        fatal: Failures that concern the frame as a whole, or an expectation that could not run.
        checks: Every expectation, in the suite's order.
    """

    suite: str
    run_name: str
    success: bool
    n_rows: int
    failing: dict[int, list[str]]
    fatal: list[str]
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
            run_name: Name of this check in the pages; once a run.
        """
        stored, validation = self._validate(frame, suite, expectations, run_name)
        outcomes = list(validation.results)
        wanted = {_key(item.configuration): order for order, item in enumerate(expectations)}
        outcomes.sort(key=lambda outcome: wanted[_key(outcome.expectation_config)])
        failing: dict[int, list[str]] = {}
        fatal: list[str] = []
        for outcome in outcomes:
            _collect(outcome, frame, failing, fatal)
        result = SuiteResult(
            suite=suite,
            run_name=run_name,
            success=all(bool(outcome.success) for outcome in outcomes),
            n_rows=len(frame),
            failing=dict(sorted(failing.items())),
            fatal=fatal,
            checks=[_check(outcome, len(frame)) for outcome in outcomes],
        )
        self._results.append(result)
        self._keep_for_pages(stored, validation)
        return result

    def write(self, docs: Path) -> Path:
        """Write the pages and ``validation.json`` into ``docs``; return the index page."""
        site: Any = {
            "class_name": "SiteBuilder",
            "show_how_to_buttons": False,
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            "store_backend": {
                "class_name": "TupleFilesystemStoreBackend",
                "base_directory": str(docs.resolve()),
            },
        }
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
                "checks": [asdict(check) for check in result.checks],
            }
            for result in self._results
        ]
        success = all(result.success for result in self._results)
        write_json(docs / "validation.json", {"success": success, "runs": runs})
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
            gx.ValidationDefinition(name=run_name, data=batches, suite=gx_suite)
        )
        checkpoint = context.checkpoints.add(
            gx.Checkpoint(
                name=run_name,
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


def _collect(
    outcome: Any, frame: "pd.DataFrame", failing: dict[int, list[str]], fatal: list[str]
) -> None:
    """Add what one expectation found to the rows' reasons, or to what is fatal."""
    config = outcome.expectation_config
    message = _exception(outcome.exception_info)
    if message is not None:
        fatal.append(f"{_describe(config)}: could not be checked: {message}")
        return
    labels = outcome.result.get("unexpected_index_list")
    if labels is None:
        if not outcome.success:
            fatal.append(f"{_describe(config)}: found {outcome.result.get('observed_value')}")
        return
    reason = (config.meta or {}).get("reason") or f"quality: {_describe(config)}"
    for label, row in zip(labels, frame.loc[labels].to_dict("records"), strict=True):
        failing.setdefault(int(label), []).append(reason.format(**row))


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
        success=bool(outcome.success),
        n_unexpected=int(outcome.result.get("unexpected_count") or 0),
        n_rows=n_rows,
    )


def _describe(config: Any) -> str:
    if config.description:
        return str(config.description)
    columns = [str(value) for name, value in config.kwargs.items() if name.startswith("column")]
    return f"{config.type}({', '.join(columns)})"


def _key(config: Any) -> str:
    kwargs = {name: value for name, value in config.kwargs.items() if name != "batch_id"}
    return f"{config.type} {sorted((name, str(value)) for name, value in kwargs.items())}"
