"""The columns of the tables that say what the guards of a release found, row by row.

They lie in the release's folder beside the rows. Neither holds a secret: a leak shows words that
the other text has as well, a private string only its shape.
"""

import pyarrow as pa

LEAKAGE_SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("set", pa.string(), nullable=False),
        pa.field("other_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("share", pa.float32(), nullable=False),
        pa.field("excerpt", pa.string(), nullable=False),
        pa.field("n_others", pa.int32(), nullable=False),
    ]
)
"""A row that overlaps a text of a query or evaluation set. ``kind``: ``exact`` or ``ngram``;
``share``: part of the other text's n-grams that the row has, 0 to 1; ``excerpt``: words that both
have; ``n_others``: texts of the set that the row overlaps, of which the closest are listed."""

PRIVACY_SCHEMA = pa.schema(
    [
        pa.field("row_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("detector", pa.string(), nullable=False),
        pa.field("start", pa.int32(), nullable=False),
        pa.field("n_chars", pa.int32(), nullable=False),
        pa.field("shape", pa.string(), nullable=False),
    ]
)
"""A string that looks private. ``kind``: ``email``, ``phone`` or ``secret``; ``detector``: which
rule found it; ``start`` and ``n_chars``: where in the row's text, in characters; ``shape``: the
string with every letter as ``x`` and every digit as ``0``, a secret all ``*``."""
