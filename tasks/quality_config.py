"""Where the expectation suites of the quality gates come from.

No part of an identity as such: what the ingest suite says, where it differs from the shipped one,
enters the identity of a batch; the other gates decide whether something is published, never a byte.
"""

from pydantic import Field

from tasks.stage_config import StageConfig


class QualityConfig(StageConfig):
    """The suites of the gates: those of a folder, and the shipped ones for gates it lacks."""

    folder: str | None = Field(
        None,
        title="Folder of suites",
        description="With ingest.yaml, index.yaml, scores.yaml or release.yaml; `rise quality "
        "init` writes them for editing. Empty: the shipped suites.",
        min_length=1,
    )


SHIPPED = QualityConfig()
"""The shipped suites of every gate."""
