"""Text files line by line: decompression, bounded lines and the JSON on each.

The reader is the project's own because libraries stop a whole file at the first malformed line
and number lines within a block. Lines above the limit are skipped without being held in memory.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from storage.inputs import InputFile, is_unreadable
from tasks.config import RowLimits
from tasks.records import RAW_CHARS, Advance, Record

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
"""Endings of compressed files and what they are called by the decompressor."""

SKIP_BYTES = 1 << 20
"""How much of an overlong line is held at a time while it is skipped."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Line:
    """One line: its 1-based number, the offset of its first byte, its bytes and whole length.

    ``data`` holds only the beginning when the line is longer than the limit.
    """

    number: int
    offset: int
    data: bytes
    n_bytes: int


def read_json_lines(
    path: InputFile, *, source: str, limits: RowLimits, advance: Advance
) -> Iterator[Record]:
    """Yield a record for every line that is not blank.

    Args:
        path: A JSON Lines file, plain or ending in .gz or .zst.
        source: The path as the user gave it, for locations.
        limits: Lines above ``max_line_bytes`` become records with an error.
        advance: Called with the bytes of the file that were read, compressed as they lie there.

    Raises:
        ValueError: The compressed stream is damaged or cut off.
    """
    max_line_bytes = limits.max_line_bytes
    for line in read_lines(path, max_line_bytes=max_line_bytes, advance=advance):
        if line.n_bytes > max_line_bytes:
            yield too_long(line, source, max_line_bytes)
        elif line.data.strip():
            yield _parse(line, source)


def read_lines(path: InputFile, *, max_line_bytes: int, advance: Advance) -> Iterator[Line]:
    """Yield the lines of a file without their endings, holding at most ``max_line_bytes``.

    Raises:
        ValueError: The compressed stream is damaged or cut off.
    """
    number = offset = 0
    with _open(path, advance) as file:
        while True:
            data, n_bytes, ended = _read_line(file, path, max_line_bytes)
            if not n_bytes:
                return
            number += 1
            body = data.rstrip(b"\r\n")
            n_body = len(body) if len(data) == n_bytes else n_bytes - ended
            if number == 1 and body.startswith(BYTE_ORDER_MARK):
                body = body[len(BYTE_ORDER_MARK) :]
            yield Line(number, offset, body, n_body)
            offset += n_bytes


def too_long(line: Line, source: str, max_line_bytes: int) -> Record:
    """Return the record of a line above the limit."""
    return Record(
        source,
        line.number,
        None,
        f"line too long: {line.n_bytes:,} bytes, at most {max_line_bytes:,} are allowed "
        "(limits.max_line_bytes)",
        line.data[: 4 * RAW_CHARS].decode(errors="replace")[:RAW_CHARS],
    )


def not_utf8(data: bytes, *, start: int, offset: int) -> str:
    """Return the reason for bytes that are no UTF-8; ``offset`` is that of the line."""
    return (
        f"not UTF-8: byte 0x{data[start]:02x} at byte {start} of the line (byte {offset + start} "
        "of the text); save the file as UTF-8"
    )


def _parse(line: Line, source: str) -> Record:
    value: Any = None
    error: str | None = None
    try:
        value = orjson.loads(line.data)
    except orjson.JSONDecodeError as malformed:
        error = _why_malformed(line, malformed)
    else:
        if not isinstance(value, dict):
            error = f"not an object: expected {{...}} with named fields, got {json_type(value)}"
    if error is None:
        return Record(source, line.number, value)
    raw = line.data[: 4 * RAW_CHARS].decode(errors="replace")[:RAW_CHARS]
    return Record(source, line.number, None, error, raw)


def _why_malformed(line: Line, error: orjson.JSONDecodeError) -> str:
    try:
        line.data.decode()
    except UnicodeDecodeError as undecodable:
        return not_utf8(line.data, start=undecodable.start, offset=line.offset)
    return f"malformed JSON: {error.msg} at character {error.pos}; expected one object a line"


def json_type(value: object) -> str:
    """Return what JSON calls the type of a value; Python's name for what JSON does not have."""
    if value is None:
        return "null"
    names = {
        dict: "an object",
        list: "a list",
        str: "a string",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), f"a value of type {type(value).__name__}")


def _read_line(file: io.BufferedReader, path: InputFile, limit: int) -> tuple[bytes, int, bool]:
    """Return the beginning of the next line, its whole length, and whether it has an ending."""
    try:
        data = file.readline(limit + 2)
        n_bytes, ended = len(data), data.endswith(b"\n")
        if n_bytes > limit and not ended:
            while rest := file.readline(SKIP_BYTES):
                n_bytes += len(rest)
                if rest.endswith(b"\n"):
                    break
            ended = rest.endswith(b"\n")
    except OSError as error:
        if is_unreadable(error):  # the disk or network failed, not the decompressor
            raise
        raise ValueError(
            f"{path}: expected a whole {path.suffix} stream, but it is damaged or cut off "
            f"({error}). Fetch or compress the file again."
        ) from error
    return data, n_bytes, ended


def _open(path: InputFile, advance: Advance) -> io.BufferedReader:
    raw: io.RawIOBase = (
        _CountedFile(path, advance)
        if isinstance(path, Path)
        else _CountedStream(path.open("rb"), advance)
    )
    compression = COMPRESSIONS.get(path.suffix)
    if compression is None:
        return io.BufferedReader(raw, SKIP_BYTES)
    stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), compression)
    return io.BufferedReader(stream, SKIP_BYTES)


class _CountedStream(io.RawIOBase):
    """A stream that tells how many of its bytes were read, for progress."""

    def __init__(self, stream: io.BufferedReader, advance: Advance) -> None:
        self._stream, self._advance = stream, advance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        n_bytes = self._stream.readinto(buffer)
        self._advance(n_bytes)
        return n_bytes

    def close(self) -> None:
        self._stream.close()
        super().close()


class _CountedFile(io.FileIO):
    """A file that tells how many of its bytes were read, for progress."""

    def __init__(self, path: Path, advance: Advance) -> None:
        super().__init__(path)
        self._advance = advance

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(-1 if size is None else size) or b""
        self._advance(len(data))
        return data

    def readinto(self, buffer: Any, /) -> int:
        n_bytes = super().readinto(buffer) or 0
        self._advance(n_bytes)
        return n_bytes
