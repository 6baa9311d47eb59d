import os
import subprocess
import sys

import pytest

from tasks import offline

PROBE = """
import sys
from tasks.offline import forbid_network
if sys.argv[1] == "late":
    import huggingface_hub, datasets
forbid_network(online=False)
import huggingface_hub, datasets
print(huggingface_hub.constants.is_offline_mode(), datasets.config.HF_HUB_OFFLINE)
forbid_network(online=True)
print(huggingface_hub.constants.is_offline_mode(), datasets.config.HF_HUB_OFFLINE)
"""


@pytest.mark.parametrize("given", [{}, {"HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0"}])
@pytest.mark.parametrize("when", ["early", "late"])
def test_libraries_obey_whether_imported_before_or_after(when: str, given: dict[str, str]):
    env = {k: v for k, v in os.environ.items() if "OFFLINE" not in k} | given
    out = subprocess.run(
        [sys.executable, "-c", PROBE, when], capture_output=True, text=True, env=env, check=True
    )
    assert out.stdout.split() == ["True", "True", "False", "False"]


def test_switch_of_the_user_is_obeyed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(offline, "_set_here", set())
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    offline.forbid_network(online=True)
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
