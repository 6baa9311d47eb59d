"""What a record and a batch must satisfy, as Great Expectations suites, with the limits put in.

The row suite judges every record of a part, readable or not: reading and mapping write down what
they could not do (`problem`), the id ledger what was there before (`repeats`), and the suite
turns all of it into one verdict with one reason a failure. Its expectations tolerate the share of
bad rows that the batch may have, so a page marked as failed means a part beyond that share. The
suite itself is in ``suites/ingest.yaml``, or in the user's copy of it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tasks.config import RowLimits
from tasks.suite_files import GateSuite, shipped_suite
from tasks.suite_terms import Number

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

GATE = "ingest"
ROW_SUITE = "rows"
BATCH_SUITE = "batch"


def row_expectations(limits: RowLimits, suite: GateSuite | None = None) -> list["Expectation"]:
    """Return what every row must satisfy: read, mapped, new, complete, text, within the limits."""
    return _expectations(ROW_SUITE, limits, suite)


def batch_expectations(limits: RowLimits, suite: GateSuite | None = None) -> list["Expectation"]:
    """Return what a batch must satisfy: it has records, and few enough of them were rejected."""
    return _expectations(BATCH_SUITE, limits, suite)


def limit_values(limits: RowLimits) -> Mapping[str, Number]:
    """Return the limits under the names that the suite has for them."""
    return {
        "limits.min_chars": limits.min_chars,
        "limits.max_chars": limits.max_chars,
        "limits.min_tokens": limits.min_tokens,
        "limits.max_tokens": limits.max_tokens,
        "limits.max_rejected_share": limits.max_rejected_share,
        "limits.min_kept_share": round(1.0 - limits.max_rejected_share, 9),
    }


def _expectations(table: str, limits: RowLimits, suite: GateSuite | None) -> list["Expectation"]:
    from tasks.suite_expectations import make_expectations

    return make_expectations(suite or shipped_suite(GATE), table, limit_values(limits))
