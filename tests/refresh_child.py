"""A process to be killed while it refreshes: forks once a command, after the slow imports.

Commands come as JSON lines on standard input: the settings, and the moment of death as in
`index_child`. The answer is the fork's exit code: -9 when it was killed.
"""

import great_expectations.expectations  # noqa: F401 - for the gates; the forks share it
from index_child import arm, fork_for_each_command
from refresh_samples import refresh

from tasks.backbone import load_backbone
from tasks.config import PipelineConfig


def share(command: dict[str, str]) -> None:
    config = PipelineConfig.model_validate_json(command["config"])
    load_backbone(config.indexing.model, device="cpu")


def work(command: dict[str, str]) -> None:
    arm(command["moment"])
    refresh(PipelineConfig.model_validate_json(command["config"]))


if __name__ == "__main__":
    fork_for_each_command(share, work)
