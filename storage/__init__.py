"""Bytes in and out of a RISE store: knows layout and checksums, not meaning. Layout: FORMAT.md."""
