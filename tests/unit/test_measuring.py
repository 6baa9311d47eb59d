"""What a method costs: memory, of children too."""

import subprocess
import sys
import time

import numpy as np
import psutil

from tasks.evaluate.measuring import MemoryWatch

MEGABYTES = 160
CHILD = f"import time; held = bytearray(b'x') * ({MEGABYTES} * 10**6); time.sleep(0.5)"


def test_memory_that_was_held_for_a_moment_is_seen():
    before = psutil.Process().memory_info().rss
    with MemoryWatch() as memory:
        held = np.ones(MEGABYTES * 10**6 // 8)
        time.sleep(0.15)
        del held
    assert memory.peak_bytes > before + 0.8e6 * MEGABYTES


def test_memory_of_a_child_counts():
    before = psutil.Process().memory_info().rss
    with MemoryWatch() as memory:
        subprocess.run([sys.executable, "-c", CHILD], check=True)
    assert memory.peak_bytes > before + 0.8e6 * MEGABYTES
