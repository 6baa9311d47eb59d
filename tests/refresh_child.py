"""A process to be killed while it refreshes: forks once a command, after the slow imports.

Commands come as JSON lines on standard input: the settings, and the moment of death as in
`index_child`. The answer is the fork's exit code: -9 when it was killed.
"""

import json
import os
import sys

import great_expectations.expectations  # noqa: F401 - for the gates; the forks share it
import torch
from index_child import arm
from refresh_samples import refresh

from tasks.backbone import load_backbone
from tasks.config import PipelineConfig


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        command = json.loads(line)
        config = PipelineConfig.model_validate_json(command["config"])
        load_backbone(config.indexing.model, device="cpu")  # the forks share it
        child = os.fork()
        if child == 0:
            code = 1
            try:
                arm(command["moment"])
                refresh(config)
                code = 0
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        status = os.waitpid(child, 0)[1]
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
