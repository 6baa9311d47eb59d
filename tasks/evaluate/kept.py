"""Results as they are kept: found again by what they depend on, never made twice.

A result's folder appears whole or not at all. What was measured on it lies beside, by the settings
of the measuring, so that other cuts need no method to run again.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.errors import CorruptionError
from storage.files import published_folder, read_json, short_id, write_json
from tasks.evaluate.machine import machine, now
from tasks.evaluate.method import Cost, MethodScores

RESULT_VERSION = 2
"""Part of what every result is known by; raised when the same things would give other scores, or
another account of their cost."""

RESULTS = "results"
MEASURED = "measured"
ABOUT_FILE = "result.json"
SCORES_FILE = "scores.npy"


@dataclass(frozen=True)
class KeptResult:
    """Scores on disk.

    Attributes:
        result_id: Short id of what they depend on.
        folder: Where they are.
        about: ``identity``, ``cost``, ``notes``, ``machine``, ``pool``, ``made``, and names for
            people.
    """

    result_id: str
    folder: Path
    about: Mapping[str, Any]

    @property
    def cost(self) -> Cost:
        """What the method took."""
        return Cost(**self.about["cost"])

    @property
    def notes(self) -> list[str]:
        """What a reader should know."""
        return list(self.about["notes"])

    def scores(self) -> npt.NDArray[np.float32]:
        """Return the scores, float32 ``[rows, queries]``.

        Raises:
            CorruptionError: The file is missing or damaged.
        """
        path = self.folder / SCORES_FILE
        try:
            return np.asarray(np.load(path, allow_pickle=False), dtype=np.float32)
        except (OSError, ValueError, EOFError) as error:
            raise CorruptionError(
                f"{path} cannot be read ({error}). Delete {self.folder} and run again."
            ) from error

    def measured(self, settings: Mapping[str, Any], measure: Any) -> dict[str, Any]:
        """Return what was measured with these settings; call ``measure`` where nothing was."""
        path = self.folder.parent.parent / MEASURED / f"{self.result_id}-{short_id(settings)}.json"
        if not path.is_file():
            write_json(path, measure())
        return read_json(path)


def result_id(identity: Mapping[str, Any]) -> str:
    """Return the short id of what scores depend on."""
    return short_id({"version": RESULT_VERSION, **identity})


def find_result(work: Path, identity: Mapping[str, Any]) -> KeptResult | None:
    """Return kept scores; None when there are none."""
    found = result_id(identity)
    folder = work / RESULTS / found
    about = folder / ABOUT_FILE
    return KeptResult(found, folder, read_json(about)) if about.is_file() else None


def keep_result(
    work: Path,
    identity: Mapping[str, Any],
    scores: MethodScores,
    *,
    device: str,
    pool: str,
    names: Mapping[str, str],
) -> KeptResult:
    """Keep scores under what they depend on; another process may have done so meanwhile.

    Args:
        work: The evaluation's folder.
        identity: Everything that decides the scores.
        scores: What the method gave.
        device: Where it ran, resolved.
        pool: Id of its rows and model, which several tasks may share.
        names: Task, paradigm and method, for people who look into the folder.
    """
    known = result_id(identity)
    folder = work / RESULTS / known
    about = {
        "identity": {"version": RESULT_VERSION, **identity},
        "cost": asdict(scores.cost),
        "notes": list(scores.notes),
        "machine": machine(device),
        "pool": pool,
        "made": now(),
        "shape": list(scores.scores.shape),
        **names,
    }
    if not folder.is_dir():
        with published_folder(folder) as staging:
            np.save(staging / SCORES_FILE, scores.scores)
            write_json(staging / ABOUT_FILE, about)
    return KeptResult(known, folder, read_json(folder / ABOUT_FILE))
