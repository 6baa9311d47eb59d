"""The section on costs: what was not measured is empty, and machines are those of the results."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from evaluation_tables import CLEAR, leave_evaluation

from tasks.evaluate.report_cost import cost_section, seconds_of_rows
from tasks.evaluate.report_data import Results, read_results
from tasks.evaluate.tables import lines_table


def _shown(found: Results) -> str:
    section = cost_section(found)
    assert section is not None
    return str(section)


def _with_costs(found: Results, **changes: Any) -> Results:
    lines = [{**line, **changes} for line in found.tables.costs.to_pylist()]
    return Results(found.folder, replace(found.tables, costs=lines_table("costs", lines)))


def test_memory_is_the_increase_and_empty_where_it_was_not_measured(tmp_path: Path):
    found = read_results(leave_evaluation(tmp_path, {"clear": CLEAR}))
    shown = _shown(found)
    assert shown.count("2.0 GB") == len(CLEAR)  # the increase, not the 3.0 GB of the process
    assert "3.0 GB" not in shown
    assert "device memory" not in shown
    assert "a chip, 2 cores, 1 thread, cpu" in shown
    assert "2.0 GB" not in _shown(_with_costs(found, increase_bytes=None))
    on_device = _shown(_with_costs(found, device_peak_bytes=5 * 10**9))
    assert on_device.count("5.0 GB") == len(CLEAR)


def test_results_of_several_machines_are_not_given_one(tmp_path: Path):
    found = read_results(leave_evaluation(tmp_path, {"clear": CLEAR}))
    about = {"machine": {"machines": 2, "processor": "a chip or another"}}
    shown = _shown(Results(found.folder, replace(found.tables, about=about)))
    assert "Seconds of 2 machines" in shown


def test_a_pool_that_tasks_share_takes_its_seconds_once():
    lines = [("a", 10.0), ("a", 10.0), ("b", 10.0), ("a", 3.0)]
    costs = [{"pool": pool, "index_seconds": seconds} for pool, seconds in lines]
    assert seconds_of_rows(costs) == 23.0
