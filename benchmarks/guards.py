"""Rows a second (of processor time) of the guards, on rows of 150 words that follow Zipf's law.

python benchmarks/guards.py --rows 20000 --texts 10000
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from evidence_machine import performance, target, write_record

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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("docs/performance/guards.json"))
    given = parser.parse_args()
    rows, others = made_rows(given)
    medians = {}
    for name in rows:
        rates = [rate(fresh_check(name, others), rows[name]) for _ in range(given.repeats)]
        medians[f"{name}: rows/s"] = round(statistics.median(rates))
    targets = [target(name, f"{name}: rows/s", "rows/s of processor time") for name in rows]
    shapes = {"rows": given.rows, "texts": given.texts, "words": WORDS, "repeats": given.repeats}
    libraries = ("phonenumbers", "detect-secrets")
    write_record(performance(shapes, medians, targets, libraries=libraries), given.out)


def made_rows(given: argparse.Namespace) -> tuple[dict[str, list[Row]], list[ComparedText]]:
    """Return the rows of each case, and the texts that leaks are looked for in."""
    others = texts(given.texts, seed=1)
    plain = texts(given.rows, seed=2)
    halves = (f"{one} {two}" for one, two in zip(plain, others * given.rows, strict=False))
    private = [f"{text} Call +1 650-253-0000 or write to a.b@c.org." for text in plain]
    cases = {
        "leakage, ASCII": plain,
        "leakage, not ASCII": [f"Écoute {text}" for text in plain],
        "leakage, every row leaks": list(halves),
        "privacy, nothing to find": plain,
        "privacy, phone and e-mail in each row": private,
    }
    compared = [ComparedText("s", str(number), text) for number, text in enumerate(others)]
    return {name: as_rows(found) for name, found in cases.items()}, compared


def fresh_check(case: str, others: Sequence[ComparedText]) -> RowCheck:
    if case.startswith("leakage"):
        return LeakageCheck(LeakageConfig(), others)
    return PrivacyCheck(PrivacyConfig())


if __name__ == "__main__":
    main()
