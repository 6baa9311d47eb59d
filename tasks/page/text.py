"""Text from rows and users, made fit to be read on a page; and numbers in words.

Escaping is not enough for text that nobody has looked at: control characters vanish, and marks
that turn the direction of writing can make a line read as something else. They are shown by name.
"""

import re
from collections.abc import Iterator
from datetime import timedelta

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters, but not tab and line feed
    "\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)
"""What leaves no trace on a page, or turns its direction; joiners of letters are not among it."""

_SURROGATE = re.compile("[\ud800-\udfff]")
NOTHING = "\N{EN DASH}"
"""What stands where there is no number."""

_UNITS = ("bytes", "KB", "MB", "GB", "TB")
_THIN_LIMIT = 1e-4


def visible(text: str) -> str:
    """Return text in which every character can be seen and none moves the others.

    Control characters, marks of direction and what has no width become their code in angle
    brackets; lines end in a line feed.
    """
    lines = text.replace("\r\n", "\n")
    return _HIDDEN.sub(_named, _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", lines))


def _named(match: re.Match[str]) -> str:
    code = f"U+{ord(match.group()):04X}"
    return f"\N{MATHEMATICAL LEFT ANGLE BRACKET}{code}\N{MATHEMATICAL RIGHT ANGLE BRACKET}"


def excerpt(text: str, n_chars: int) -> str:
    """Return the beginning of a text; says how many characters were left out, if any."""
    left_out = len(text) - n_chars
    if left_out <= 0:
        return text
    return f"{text[:n_chars].rstrip()} … [{number(left_out)} characters more]"


def shortened(text: str, n_chars: int) -> str:
    """Return one line of at most ``n_chars`` characters, cut in the middle: paths keep an end."""
    line = " ".join(text.split())
    if len(line) <= n_chars:
        return line
    tail = (n_chars - 1) // 2
    return f"{line[: n_chars - 1 - tail]}…{line[len(line) - tail :]}"


def number(value: float | None, *, digits: int = 3) -> str:
    """Return an integer with thousands separators, else ``digits`` significant digits."""
    if value is None:
        return NOTHING
    if isinstance(value, int) or (value == int(value) and abs(value) >= 10**digits):
        return _minus(f"{int(value):,}")
    text = f"{value:.{digits}g}"
    return _minus(f"{value:.1e}" if "e" in text else text)


def percent(part: float | None) -> str:
    """Return a share, 0 to 1, in percent: whole ones from 10, one decimal below."""
    if part is None:
        return NOTHING
    scaled = 100.0 * part
    if 0.0 < scaled < 0.1:
        return "<0.1%"
    exact = abs(scaled) >= 10.0 or scaled == 0.0
    text = f"{scaled:.0f}%" if exact else f"{scaled:.1f}%"
    # 99.9 must not be rounded to all
    return f"{scaled:.2f}%" if text == "100%" and part < 1.0 - _THIN_LIMIT else _minus(text)


def count(n: int, noun: str, plural: str | None = None) -> str:
    """Return ``1 row``, ``12 rows``."""
    return f"{number(n)} {noun if n == 1 else plural or noun + 's'}"


def size(n_bytes: float | None) -> str:
    """Return a size in decimal units, such as ``4.2 MB``."""
    if n_bytes is None:
        return NOTHING
    amount, unit = float(n_bytes), 0
    while amount >= 1000 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{amount:,.0f} {_UNITS[unit]}" if unit == 0 else f"{amount:,.1f} {_UNITS[unit]}"


def duration(seconds: float | None) -> str:
    """Return a time that people can judge: ``0.4 s``, ``12 s``, ``1:05:30``."""
    if seconds is None:
        return NOTHING
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return str(timedelta(seconds=round(seconds)))


def listed(parts: list[str], *, last: str = "and") -> str:
    """Return ``a``, ``a and b``, ``a, b and c``."""
    return f" {last} ".join(_joined(parts))


def _joined(parts: list[str]) -> Iterator[str]:
    if len(parts) > 1:
        yield ", ".join(parts[:-1])
    yield from parts[-1:]


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")
