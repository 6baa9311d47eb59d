"""Rows a second (of processor time) of the guards, on rows of 150 words that follow Zipf's law.

Run as ``python -m benchmarks.guards --rows 20000 --texts 10000``.
"""

import argparse
import time
from collections.abc import Sequence

import numpy as np

from storage.corpus import Row
from tasks.leakage import ComparedText, LeakageCheck
from tasks.privacy import PrivacyCheck
from tasks.release_config import LeakageConfig, PrivacyConfig
from tasks.row_checks import RowCheck

WORDS = 150
VOCABULARY = 50_000


def texts(count: int, *, seed: int, words: int = WORDS) -> list[str]:
    rng = np.random.default_rng(seed)
    letters = np.random.default_rng(0).integers(0, 26, (VOCABULARY, 9)).astype(np.uint8) + ord("a")
    names = [bytes(word[: 2 + place % 8]).decode() for place, word in enumerate(letters)]
    drawn = (rng.zipf(1.3, (count, words)) - 1) % VOCABULARY
    return [" ".join(names[word] for word in line).capitalize() + "." for line in drawn]


def as_rows(found: Sequence[str]) -> list[Row]:
    return [
        Row(f"row-{place}", text, 0, None, "made", place + 1, "", WORDS)
        for place, text in enumerate(found)
    ]


def rate(check: RowCheck, rows: Sequence[Row]) -> float:
    started = time.process_time()
    check.faults(rows)
    return len(rows) / (time.process_time() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--texts", type=int, default=10_000)
    given = parser.parse_args()
    others = texts(given.texts, seed=1)
    plain = texts(given.rows, seed=2)
    accented = [f"Écoute {text}" for text in plain]
    halves = (f"{one} {two}" for one, two in zip(plain, others * given.rows, strict=False))
    private = [f"{text} Call +1 650-253-0000 or write to a.b@c.org." for text in plain]
    started = time.process_time()
    check = LeakageCheck(
        LeakageConfig(), [ComparedText("s", str(n), t) for n, t in enumerate(others)]
    )
    print(
        f"table of {given.texts:,} texts: {time.process_time() - started:.2f} s of processor time"
    )
    for name, rows in (("ASCII", plain), ("not ASCII", accented), ("all leak", list(halves))):
        print(f"leakage, {name}: {rate(check, as_rows(rows)):,.0f} rows/s")
    for name, rows in (("nothing", plain), ("phone and e-mail in each", private)):
        print(f"privacy, {name}: {rate(PrivacyCheck(PrivacyConfig()), as_rows(rows)):,.0f} rows/s")


if __name__ == "__main__":
    main()
