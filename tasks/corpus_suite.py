"""What a canonical row and a batch must satisfy, as Great Expectations suites.

The row suite judges every record of a part, readable or not: reading and mapping write down what
they could not do (`problem`), the id ledger what was there before (`repeats`), and the suite
turns all of it into one verdict with one reason a failure. Its expectations tolerate the share of
bad rows that the batch may have, so a page marked as failed means a part beyond that share.
"""

from typing import TYPE_CHECKING

from tasks.config import RowLimits

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

ROW_SUITE = "rows"
BATCH_SUITE = "batch"

NUL = r"\x00"
"""Ends strings early in many programs. Halves of surrogate pairs never reach the suite: mapping
rejects them, because not even a data frame that holds one can be hashed."""


def row_expectations(limits: RowLimits) -> list["Expectation"]:
    """Return what every row must satisfy: read, mapped, new, complete, text, within the limits."""
    mostly = round(1.0 - limits.max_rejected_share, 9)
    return [*_recorded(mostly), *_complete(mostly), *_sound_text(mostly), *_bounds(limits, mostly)]


def batch_expectations(limits: RowLimits) -> list["Expectation"]:
    """Return what a batch must satisfy: it has records, and few enough of them were rejected."""
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectColumnValuesToBeBetween(
            column="n_records",
            min_value=1,
            description="The source has records.",
            meta={"reason": "empty batch: {n_records} records"},
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="rejected_share",
            max_value=limits.max_rejected_share,
            description=f"At most {limits.max_rejected_share:.2%} of the records are rejected.",
            meta={"reason": "too many rejected: {n_rejected} of {n_records} records"},
        ),
    ]


def _recorded(mostly: float) -> list["Expectation"]:
    """What reading, mapping and the id ledger wrote down."""
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectColumnValuesToBeNull(
            column="problem",
            mostly=mostly,
            description="Every record can be read, and its fields make a text and a prompt.",
            meta={"reason": "{problem}"},
        ),
        gxe.ExpectColumnValuesToBeNull(
            column="repeats",
            mostly=mostly,
            description="No id was used before, in this batch or in the corpus.",
            meta={"reason": "{repeats}"},
        ),
    ]


def _complete(mostly: float) -> list["Expectation"]:
    """Required values are there, in their types."""
    import great_expectations.expectations as gxe
    from great_expectations.expectations.row_conditions import Column

    mapped = Column("problem").is_null()
    required = [
        gxe.ExpectColumnValuesToNotBeNull(
            column=column,
            row_condition=mapped,
            mostly=mostly,
            meta={"reason": f"missing value: {column} must not be null"},
        )
        for column in ("row_id", "text", "prompt_chars", "source", "source_line", "content_hash")
    ]
    strings = [
        gxe.ExpectColumnValuesToBeOfType(
            column=column,
            type_="str",
            mostly=mostly,
            meta={"reason": f"wrong type: {column} must be a string"},
        )
        for column in ("row_id", "text", "source")
    ]
    lines = gxe.ExpectColumnValuesToBeOfType(column="source_line", type_="int64")
    return [*required, *strings, lines]


def _sound_text(mostly: float) -> list["Expectation"]:
    """Texts that can be stored, prompts that lie within them."""
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectColumnValuesToNotMatchRegex(
            column="text",
            regex=NUL,
            mostly=mostly,
            description="No text has a NUL character.",
            meta={"reason": "not text: the text has a NUL character"},
        ),
        gxe.ExpectColumnPairValuesAToBeGreaterThanB(
            column_A="n_chars",
            column_B="prompt_chars",
            or_equal=True,
            ignore_row_if="either_value_is_missing",
            mostly=mostly,
            description="No prompt is longer than its text.",
            meta={"reason": "prompt too long: {prompt_chars} characters of {n_chars}"},
        ),
    ]


def _bounds(limits: RowLimits, mostly: float) -> list["Expectation"]:
    import great_expectations.expectations as gxe

    return [
        gxe.ExpectColumnValuesToBeBetween(
            column="n_chars",
            min_value=limits.min_chars,
            max_value=limits.max_chars,
            mostly=mostly,
            meta={
                "reason": "text length: {n_chars} characters, expected "
                f"{limits.min_chars} to {limits.max_chars} (limits.min_chars, limits.max_chars)"
            },
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="n_tokens",
            min_value=limits.min_tokens,
            max_value=limits.max_tokens,
            mostly=mostly,
            meta={
                "reason": "token count: {n_tokens} tokens, expected "
                f"{limits.min_tokens} to {limits.max_tokens} "
                "(limits.min_tokens, limits.max_tokens)"
            },
        ),
    ]
