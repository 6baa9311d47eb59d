import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import ThreadpoolController

from tasks.scoring_graph import _one_thread


def blas_threads() -> list[int]:
    pools = ThreadpoolController().select(user_api="blas").info()
    return [pool["num_threads"] for pool in pools]


def test_every_task_multiplies_with_one_blas_thread_whichever_thread_it_is_in():
    np.ones((2, 2)) @ np.ones((2, 2))
    before = blas_threads()
    both_in = threading.Barrier(2)

    def task(_: int) -> list[int]:
        with _one_thread():
            both_in.wait()
            return blas_threads()

    for _ in range(3):
        # threads that end: the next ones meet limits that these have set and lifted
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(task, range(8)))
        assert found == [[1] * len(before)] * 8
        assert blas_threads() == before
