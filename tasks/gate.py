"""The gate between a source and a corpus or query set: every record is kept or gets a reason.

One pass: records -> candidates (`candidates`) -> the row suite (`corpus_suite`) -> rows that are
kept and records that are not, part by part.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from storage.rows import REJECTED_SCHEMA, ROW_SCHEMA
from tasks.candidates import CandidateReader, Part
from tasks.config import RowLimits
from tasks.corpus_suite import BATCH_SUITE, GATE, ROW_SUITE, batch_expectations, row_expectations
from tasks.quality import QualityRun, SuiteResult, Warned
from tasks.quality_gate import suite_facts
from tasks.records import RAW_CHARS, Record, reason_kind
from tasks.suite_files import GateSuite, shipped_suite

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class JudgedPart:
    """Rows that passed (ROW_SCHEMA) and records that did not (REJECTED_SCHEMA), in order."""

    kept: pa.Table
    rejected: pa.Table


@dataclass
class Tally:
    """What became of the records so far."""

    n_kept: int = 0
    n_known: int = 0
    n_taken_down: int = 0
    n_rejected: int = 0
    n_tokens: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def n_records(self) -> int:
        """Every record that was read."""
        return self.n_kept + self.n_known + self.n_taken_down + self.n_rejected

    @property
    def rejected_share(self) -> float:
        """Rejected records among all, 0 to 1; 0 without records."""
        return self.n_rejected / self.n_records if self.n_records else 0.0


@dataclass
class Gate:
    """Judges records and keeps count.

    Args:
        reader: Makes candidates; knows ids that were seen.
        limits: What a row, and the batch, must satisfy.
        suite: The expectations that the limits are put into.
    """

    reader: CandidateReader
    limits: RowLimits
    suite: GateSuite = field(default_factory=lambda: shipped_suite(GATE))
    quality: QualityRun = field(default_factory=QualityRun)
    tally: Tally = field(default_factory=Tally)
    refusals: list[str] = field(default_factory=list)
    _warned: dict[str, Warned] = field(default_factory=dict)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was not as it should be, but refuses nothing; counted over all parts."""
        return tuple(warned.text for warned in self._warned.values())

    def judge(self, records: Iterable[Record]) -> Iterator[JudgedPart]:
        """Yield what became of the records, a bounded number at a time."""
        for number, part in enumerate(self.reader.parts(records)):
            yield self._judge_part(part, number)

    def judge_batch(self) -> SuiteResult:
        """Judge the whole, after all parts: it is not empty and not too much was rejected."""
        import pandas as pd

        tally = self.tally
        summary = {
            "n_records": tally.n_records,
            "n_kept": tally.n_kept,
            "n_known": tally.n_known,
            "n_rejected": tally.n_rejected,
            "rejected_share": tally.rejected_share,
        }
        result = self.quality.check(
            pd.DataFrame([summary]),
            suite=BATCH_SUITE,
            expectations=batch_expectations(self.limits, self.suite),
            run_name="whole-batch",
        )
        self._warn(result)
        return result

    def write(self, docs: Path) -> None:
        """Write the Data Docs of everything that was judged."""
        self.quality.write(docs, facts=suite_facts(self.suite))

    def _judge_part(self, part: Part, number: int) -> JudgedPart:
        result = self.quality.check(
            part.frame,
            suite=ROW_SUITE,
            expectations=row_expectations(self.limits, self.suite),
            run_name=f"part-{number:05d}",
        )
        if result.broken:
            raise ValueError(
                f"part {number} of the batch could not be judged: {'; '.join(result.broken)}. "
                "This is a fault of the suite, not of the rows; mend it, or report it with the "
                "source's format."
            )
        self._refuse(result, part)
        self._warn(result)
        kept = part.frame.drop(index=list(result.failing))
        rejected = part.frame.loc[list(result.failing)]
        judged = JudgedPart(_row_table(kept), _rejected_table(rejected, result.failing))
        self._count(judged, part)
        return judged

    def _refuse(self, result: SuiteResult, part: Part) -> None:
        """Note what refuses the batch as a whole, however few rows it is."""
        self.refusals += [f"part of {result.n_rows:,} records: {text}" for text in result.fatal]
        rows = part.frame.loc[list(result.refusing), ["source", "source_line"]].to_dict("records")
        for row, reasons in zip(rows, result.refusing.values(), strict=True):
            place = f"{row['source']}:{row['source_line']}"
            self.refusals.append(f"{place}: {'; '.join(reasons)}")

    def _warn(self, result: SuiteResult) -> None:
        for warned in result.warned:
            before = self._warned.get(warned.description)
            self._warned[warned.description] = warned if before is None else before.merge(warned)

    def _count(self, judged: JudgedPart, part: Part) -> None:
        tally = self.tally
        tally.n_kept += judged.kept.num_rows
        tally.n_known += part.n_known
        tally.n_taken_down += part.n_taken_down
        tally.n_rejected += judged.rejected.num_rows
        tally.n_tokens += sum(judged.kept.column("n_tokens").to_pylist())
        tally.reasons.update(map(reason_kind, judged.rejected.column("reason").to_pylist()))


def _row_table(frame: "pd.DataFrame") -> pa.Table:
    return pa.Table.from_pydict(
        {name: frame[name].tolist() for name in ROW_SCHEMA.names}, schema=ROW_SCHEMA
    )


def _rejected_table(frame: "pd.DataFrame", failing: dict[int, list[str]]) -> pa.Table:
    rows = [
        {
            "location": f"{row['source']}:{row['source_line']}",
            "row_id": row["row_id"],
            "reason": "; ".join(failing[int(label)]),
            "raw": row["raw"] if row["raw"] is not None else (row["text"] or "")[:RAW_CHARS],
        }
        for label, row in zip(frame.index, frame.to_dict("records"), strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=REJECTED_SCHEMA)
