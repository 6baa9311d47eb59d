"""Whether a new release is close enough to the one before for ``latest`` to move to it.

A release that is too far away is *held*: published, so that it can be looked at, compared and
accepted, but not pointed to. Whoever reads ``latest`` keeps what was there.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from storage.errors import NotFoundError, StorageError
from storage.files import read_json, write_json
from storage.layout import release_folder
from storage.refs import ReleaseRef
from storage.release_pointer import is_latest, latest, moves
from storage.releases import DRIFT_FILE, all_releases
from tasks.drift_config import MEASURES, DriftConfig
from tasks.release_diff import ReleaseDiff, diff_releases

Outcome = Literal["fails", "warns", "within", "no limit", "not measured"]


class ReleaseHeld(ValueError):  # noqa: N818 - a verdict on a release, not a fault of the program
    """A release is published, but drifted too far for ``latest`` to move to it."""


@dataclass(frozen=True)
class Verdict:
    """One measure against its limits.

    Attributes:
        measure: Its name, one of `MEASURES`.
        value: 0 is no drift; None where there was nothing to measure.
        warn: Limit for a warning; None: none.
        fail: Limit for `latest`; None: none.
        outcome: What follows.
    """

    measure: str
    value: float | None
    warn: float | None
    fail: float | None
    outcome: Outcome

    def __str__(self) -> str:
        """Return the measure, its value and the limit that it passed, with the setting's name."""
        kind = "fail" if self.outcome == "fails" else "warn"
        limit = getattr(self, kind)
        value = "not measured" if self.value is None else f"{self.value:.3g}"
        return f"{MEASURES[self.measure]}: {value}, limit {limit:g} (drift.{self.measure}.{kind})"


@dataclass(frozen=True)
class DriftReport:
    """How a release compares with the one that `latest` named when it was published.

    Attributes:
        ref: The release.
        against: Id of the one that `latest` named.
        diff: The comparison; None when it could not be made.
        verdicts: Every measure, in the order of `MEASURES`.
        problem: Why there is no comparison; empty when there is one.
    """

    ref: ReleaseRef
    against: str
    diff: ReleaseDiff | None
    verdicts: tuple[Verdict, ...]
    problem: str = ""

    @property
    def held(self) -> bool:
        """`latest` must stay."""
        return any(verdict.outcome == "fails" for verdict in self.verdicts)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is beyond a limit, or could not be compared."""
        told = [str(one) for one in self.verdicts if one.outcome in ("warns", "fails")]
        return (*[f"drift: {text}" for text in told], *([self.problem] if self.problem else []))


def judge(measures: Mapping[str, float | None], limits: DriftConfig) -> tuple[Verdict, ...]:
    """Hold the measures of a comparison against limits."""
    found = []
    for name in MEASURES:
        limit, value = limits.limit(name), measures[name]
        outcome: Outcome = "within"
        if value is None:
            outcome = "not measured"
        elif limit.fail is not None and value > limit.fail:
            outcome = "fails"
        elif limit.warn is not None and value > limit.warn:
            outcome = "warns"
        elif limit.warn is None and limit.fail is None:
            outcome = "no limit"
        found.append(Verdict(name, value, limit.warn, limit.fail, outcome))
    return tuple(found)


def drift_from_latest(ref: ReleaseRef, limits: DriftConfig, *, fresh: bool) -> DriftReport | None:
    """Compare a published release with what ``latest`` of its name names, and note the verdict.

    Args:
        ref: The release.
        limits: What it is held against.
        fresh: It was published now. What was published before stays as it is, unless it is held.

    Returns:
        None when there is nothing to compare with: it is the first of its name, or the latest.

    Raises:
        StorageError: Limits are set, and the latest release cannot be read.
    """
    try:
        against = latest(ref.root, ref.name)
    except NotFoundError:
        return None
    if against == ref:
        return None
    try:
        diff = diff_releases(against, ref)
    except StorageError as error:
        if limits.is_set:
            raise
        problem = f"drift: {against.release_id}, the latest until now, cannot be compared: {error}"
        return DriftReport(ref, against.release_id, None, (), problem)
    report = DriftReport(ref, against.release_id, diff, judge(diff.measures, limits))
    if fresh or report.held:
        _note(report)
    return report


def require_not_held(report: DriftReport | None) -> None:
    """Raise `ReleaseHeld` if ``latest`` did not move because of drift."""
    if report is None or not report.held:
        return
    ref = report.ref
    # one that was the latest before, and was rolled back from, is no longer held back
    take = f"accept {ref.name} --id" if is_held(ref) else f"rollback {ref.name} --to"
    lines = [f"- {one}" for one in report.verdicts if one.outcome == "fails"]
    raise ReleaseHeld(
        f"release {ref.release_id} of {ref.name!r} is too far from {report.against}, the latest "
        "one, so it is published but held: `latest` stays where it was.\n"
        + "\n".join(lines)
        + f"\nLook at it: rise diff {report.against} {ref.release_id} --store {ref.root}\n"
        f"To take it: rise release {take} {ref.release_id} --store {ref.root}\n"
        "To take such releases from now on, raise the limits (settings: drift)."
    )


def is_held(ref: ReleaseRef) -> bool:
    """Tell whether ``latest`` was kept from a release, and never moved to it since."""
    noted = noted_drift(ref)
    if noted is None or not noted["held"] or is_latest(ref):
        return False
    return all(move.to != ref.release_id for move in moves(ref.root, ref.name))


def held_back(root: str, name: str) -> list[ReleaseRef]:
    """Return the releases of a name that are held and were compared with the present latest one.

    Those that another release passed by are no longer in question.
    """
    now = latest(root, name)
    found = [one for one in all_releases(root) if one.name == name and is_held(one)]
    return [one for one in found if (noted_drift(one) or {}).get("against") == now.release_id]


def noted_drift(ref: ReleaseRef) -> dict[str, Any] | None:
    """Return the verdict noted in a release's folder: against, held, verdicts; None without one."""
    try:
        return read_json(release_folder(ref) / DRIFT_FILE)
    except StorageError:
        return None  # a hint: the comparison can be made again


def _note(report: DriftReport) -> None:
    body = {
        "against": report.against,
        "held": report.held,
        "verdicts": [asdict(verdict) for verdict in report.verdicts],
    }
    write_json(release_folder(report.ref) / DRIFT_FILE, body)
