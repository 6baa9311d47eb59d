"""The programs that measure speed: records, the README's table, timing, and that they run."""

from pathlib import Path

import evidence_machine
import extraction
import gpu
import head
import numpy as np
import performance_table
import pytest
import speed_timing
import torch
from evidence_tables import filled
from speed_texts import token_rows
from tiny import tiny_model

from rise_ops.residual import SparseResidual
from tasks.backbone import load_tokenizer
from tasks.config import ModelConfig

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def record(**changes):
    made = evidence_machine.performance(
        {"rows": 3},
        {"speed": 3.25, "seconds": 1234.5},
        [
            evidence_machine.target("a ratio", "speed", "x", at_least=3.0),
            evidence_machine.target("a time", "seconds", "s", at_most=15.0),
            evidence_machine.target("only known", "speed", "x"),
        ],
    )
    return made | changes


def test_readme_holds_the_table_that_the_records_give():
    records = performance_table.read_records(ROOT / "docs" / "performance")
    assert records
    text = (ROOT / "README.md").read_text()
    assert text == filled(text, "performance", performance_table.table(records))


def test_a_line_says_what_is_met_and_what_is_missed():
    made = record(hardware={"processor": "P", "cores": 2, "threads": 1})
    lines = performance_table.table({"a.json": made}).splitlines()[2:]
    where = "P, threads: 1, [a](docs/performance/a.json) |"
    assert lines == [
        f"| a ratio | 3.25 x | at least 3 x | yes | {where}",
        f"| a time | 1,234 s | at most 15 s | **no** | {where}",
    ]
    made["hardware"]["gpu"] = "G"
    assert "| G, [a]" in performance_table.table({"a.json": made})


def test_records_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "a.json"
    evidence_machine.write_record(record(), path)
    assert list(performance_table.read_records(tmp_path)) == ["a.json"]
    evidence_machine.write_record(record(medians={}), path)
    with pytest.raises(ValueError, match=r"a\.json: targets of medians .*'seconds', 'speed'"):
        performance_table.read_records(tmp_path)
    path.write_text('{"command": ""}')
    with pytest.raises(ValueError, match=r"a\.json lacks date, hardware"):
        performance_table.read_records(tmp_path)


def test_ways_take_turns():
    order = []
    ways = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    seconds = speed_timing.in_turns(ways, repeats=3, device="cpu", clock="cpu")
    assert order == ["a", "b"] * 3
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}
    assert speed_timing.medians({"a": [3.0, 1.0, 2.0]}) == {"a": 2.0}


def test_texts_come_in_one_order_and_stop_when_there_are_enough(tmp_path):
    tokenizer = load_tokenizer(ModelConfig(name=str(tiny_model(tmp_path))))
    first, again = (token_rows(tokenizer, n_tokens=500, path=None) for _ in range(2))
    assert [row.ids.tolist() for row in first] == [row.ids.tolist() for row in again]
    assert sum(len(row.ids) for row in first[:-1]) < 500 <= sum(len(row.ids) for row in first)
    path = tmp_path / "rows.jsonl"
    path.write_text('{"instruction": "Say", "output": "hi"}\n{"text": "Bye", "label": "x"}\n')
    rows = token_rows(tokenizer, n_tokens=10**6, path=path)
    texts = ["".join(tokenizer.token_texts(row.ids)) for row in rows]
    assert ["Say\nhi" in texts[0], "Bye" in texts[1], len(texts)] == [True, True, 2]


def test_the_largest_difference_of_residuals_is_over_all_tokens():
    first = SparseResidual(torch.tensor([[1, 2]]), torch.tensor([[0.5, -0.5]]))
    second = SparseResidual(torch.tensor([[2, 3]]), torch.tensor([[-0.5, 0.25]]))
    assert head.largest_difference(first, second, 5) == 0.5
    assert head.largest_difference(first, first, 5) == 0.0


def test_head_runs_and_its_ways_agree(tmp_path):
    words = ["--vocab", "600", "--hidden", "16", "--positions", "40", "--repeats", "1"]
    arguments = head.read_arguments([*words, "--device", "cpu", "--out", str(tmp_path / "a.json")])
    hidden, targets, readout = head.read_problem(arguments)
    coarse = head.coarse_head(readout, dtype=torch.bfloat16, states=torch.bfloat16)
    assert not coarse.rounds_inputs
    found = head.measure(coarse, hidden, targets, arguments)
    assert set(found["exactness"]) == set(head.RULES)
    for name, exactness in found["exactness"].items():
        assert exactness["largest_difference_after_repair"] < 1e-3, name
    evidence_machine.write_record(found, arguments.out)
    assert len(performance_table.table(performance_table.read_records(tmp_path)).splitlines()) == 4


def test_gpu_runs_anywhere_at_tiny_shapes(tmp_path):
    words = ["--tiny", "--device", "cpu", "--repeats", "1", "--calls", "1", "--rules", "paper"]
    table = tmp_path / "profile.txt"
    found = gpu.measure(gpu.TINY, gpu.read_arguments([*words, "--profile", str(table)]))
    assert set(found["medians"]) == {
        "tokens/s, head without repair, paper",
        "tokens/s, head, paper",
        "tokens/s, end to end into Zarr",
    }
    assert min(found["medians"].values()) > 0
    assert "aten::mm" in table.read_text()
    # the targets name medians that a run has
    assert {one["median"] for one in gpu.speed_targets()} <= set(found["medians"])


def test_extraction_runs_and_fast_ways_stay_close(tmp_path):
    model = tiny_model(tmp_path, hidden_size=64)
    words = ["--model", str(model), "--tokens", "200", "--repeats", "1", "--device", "cpu"]
    arguments = extraction.read_arguments(words)
    rows = token_rows(load_tokenizer(ModelConfig(name=str(model))), n_tokens=300, path=None)
    found = extraction.measure(rows, arguments)
    cosines = found["cosine_to_float32"]
    assert cosines[extraction.PLAIN.name] == {"median": 1.0, "lowest": 1.0}
    assert min(cosine["median"] for cosine in cosines.values()) > 0.9
    assert {one["median"] for one in found["targets"]} <= set(found["medians"])


def test_likeness_and_changes_of_metrics():
    first, second = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)
    second[2] = [0.0, 1.0, 0.0]
    assert extraction.likeness(first, second) == {"median": 1.0, "lowest": 0.0}
    metrics = {}
    for way in extraction.FAST:
        lost = 0.03 if way.preset == "paper" else 0.01
        metrics[way.exact.name] = {"q": {"precision@10": 0.4}, "r": {"precision@10": 0.4}}
        metrics[way.name] = {"q": {"precision@10": 0.402}, "r": {"precision@10": 0.4 - lost}}
    assert extraction.metric_changes(metrics) == {
        "precision@10, `paper`": 0.03,
        "precision@10, `compact`": 0.01,
    }
