"""Rival scorers, one method a file; all return [rows, queries], higher = stronger proponent."""
