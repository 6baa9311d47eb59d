"""What a method costs: memory, of children too, seconds, and on which machine."""

import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import torch

from tasks.evaluate.machine import together
from tasks.evaluate.measuring import MemoryWatch

MEGABYTES = 160
CHILD = f"import time; held = bytearray(b'x') * ({MEGABYTES} * 10**6); time.sleep(0.5)"


def test_memory_that_was_held_for_a_moment_is_seen():
    before = psutil.Process().memory_info().rss
    with MemoryWatch() as memory:
        held = np.ones(MEGABYTES * 10**6 // 8)
        time.sleep(0.15)
        del held
    assert memory.peak_bytes - memory.start_bytes > 0.8e6 * MEGABYTES
    assert memory.start_bytes > 0.9 * before  # and what children hold, a server of other tests
    assert memory.device_peak_bytes is None


def test_memory_of_a_child_counts():
    with MemoryWatch() as memory:
        subprocess.run([sys.executable, "-c", CHILD], check=True)
    assert memory.peak_bytes > memory.start_bytes + 0.8e6 * MEGABYTES


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_memory_of_a_cuda_device_counts_from_the_start():
    left = torch.zeros(MEGABYTES * 10**6 // 4, device="cuda")
    del left
    with MemoryWatch("cuda") as memory:
        held = torch.zeros(10**6, device="cuda")
        del held
    assert memory.device_peak_bytes is not None
    assert 4e6 <= memory.device_peak_bytes < 0.8e6 * MEGABYTES


def test_several_machines_are_told_as_several():
    one = {"processor": "A", "cores": 2, "threads": 1, "device": "cpu"}
    assert together([one]) == one
    other = {**one, "processor": "B", "threads": 8, "gpu": "G"}
    assert together([one, other]) == {
        "machines": 2,
        "processor": "A or B",
        "cores": "2",
        "threads": "1 or 8",
        "device": "cpu",
        "gpu": "G",
    }
