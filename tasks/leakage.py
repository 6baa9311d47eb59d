"""Leakage: does a row to be released hold a text that the model will be tested on?"""

from collections.abc import Collection, Sequence

import pyarrow as pa

from storage.corpus import Row
from storage.queries import QuerySet
from storage.signatures import SignatureIndex
from tasks.release_config import LeakageConfig


class LeakageCheck:
    """Compares rows with the texts of query and evaluation sets; a `RecordingCheck`."""

    name = "leakage"

    def faults(self, rows: Sequence[Row]) -> list[str | None]:
        """Return what each row overlaps; None everywhere when overlaps are only reported."""
        raise NotImplementedError

    def hits(self, among: Collection[str] | None = None) -> pa.Table:
        """Return LEAKAGE_SCHEMA, see `RecordingCheck`."""
        raise NotImplementedError


def leakage_check(
    config: LeakageConfig, query_set: QuerySet, index: SignatureIndex
) -> LeakageCheck | None:
    """Return the check of a release, None when it is off.

    Args:
        config: What is compared and what becomes of rows that overlap.
        query_set: The queries that the rows were scored by.
        index: Its tokenizer reads the evaluation sets, as it read the queries.

    Raises:
        ValueError: A file of an evaluation set is missing or has a record that is not usable.
    """
    raise NotImplementedError


def leakage_identity(config: LeakageConfig) -> dict[str, object]:
    """Return what the evaluation sets are, by content: part of a release's identity.

    Returns:
        Name of each set to paths, sizes and sha256 of its files; empty when the check is off.

    Raises:
        ValueError: A path matches nothing, or a file is empty.
    """
    raise NotImplementedError
