"""What is handed to other packages and read back, without them; refusals where they are absent."""

import json
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluate_samples import labelled_texts, prepared_task
from tiny import tiny_model
from transformers.models.auto import AutoModelForCausalLM, AutoTokenizer

import tasks.evaluate.ekfac as ekfac_module
from tasks.backbone import TokenRow, load_tokenizer
from tasks.config import ModelConfig
from tasks.evaluate.ekfac import EkFac
from tasks.evaluate.ekfac_task import IGNORED, padded_texts, sampled_labels, text_losses
from tasks.evaluate.gradient_parameters import linear_layers
from tasks.evaluate.gradient_settings import TrackStarConfig
from tasks.evaluate.method import LabelledText, MethodRefused
from tasks.evaluate.trackstar import TrackStar
from tasks.evaluate.trackstar_files import plain_model, special_tokens, write_texts
from tasks.trainer import load_whole

PROGRAM = f"""#!{sys.executable}
import json, os, sys
from pathlib import Path
import numpy as np
args = sys.argv[1:]
if os.environ.get("FAKE_FAILS"):
    print("the model is too large"); sys.exit(3)
def text(name):
    return [json.loads(line) for line in open(args[args.index(name) + 1])]
rows, queries = text("--data.dataset"), text("--query.dataset")
out = Path(args[1]) / "scores"; out.mkdir(parents=True)
kind = [(n, t) for q in range(len(queries))
        for n, t in ((f"score_{{q}}", "f4"), (f"written_{{q}}", "?"))]
table = np.zeros(len(rows), dtype=np.dtype(kind, align=True))
for q, query in enumerate(queries):
    table[f"score_{{q}}"] = [len(row["completion"]) - len(query["prompt"]) for row in rows]
    table[f"written_{{q}}"] = not os.environ.get("FAKE_UNWRITTEN")
table.tofile(out / "scores.bin")
fields = table.dtype
json.dump({{"num_scores": len(queries), "dtype": {{
    "names": list(fields.names), "formats": [fields[n].str for n in fields.names],
    "offsets": [fields.fields[n][1] for n in fields.names], "itemsize": fields.itemsize}}}},
    open(out / "info.json", "w"))
json.dump({{"args": args, "env": dict(os.environ)}}, open(os.environ["FAKE_SEEN"], "w"))
"""


@pytest.fixture
def program(tmp_path, monkeypatch) -> Path:
    file = tmp_path / "bin" / "bergson"
    file.parent.mkdir()
    file.write_text(PROGRAM)
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("FAKE_SEEN", str(tmp_path / "seen.json"))
    return file


def test_bergson_gets_the_texts_and_its_table_is_read_back(program, tiny_llama, tmp_path):
    rows = [*labelled_texts(3), LabelledText("empty", "only a prompt", 13, "a")]
    queries = labelled_texts(2, start=9)
    task = prepared_task(tiny_llama, tmp_path / "work", rows=rows, queries=queries)
    method = TrackStar(TrackStarConfig(program=str(program), projection_dim=7))
    found = method.scores(task)
    completions = [len(row.text) - row.prompt_chars for row in rows[:3]]
    expected = np.subtract.outer(completions, [6, 6])
    np.testing.assert_array_equal(found.scores, [*expected, [0, 0]])
    assert found.scores.dtype == np.float32
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert seen["args"][seen["args"].index("--projection_dim") + 1] == "7"
    model = Path(seen["args"][seen["args"].index("--model") + 1])
    assert model.is_relative_to(task.work)
    assert not model.exists()
    most = seen["args"][seen["args"].index("--token_batch_size") + 1]
    assert most == "512"  # what the model reads; bergson refuses more
    assert seen["env"]["HF_HUB_OFFLINE"] == "1"
    assert seen["env"]["CUDA_VISIBLE_DEVICES"] == ""
    assert Path(seen["env"]["HF_DATASETS_CACHE"]).is_relative_to(task.work)
    assert [path.name for path in task.work.iterdir()] == ["bergson.log"]
    assert "program" not in method.settings


def test_rows_of_all_positions_are_handed_over_without_a_prompt(program, tiny_llama, tmp_path):
    task = prepared_task(tiny_llama, tmp_path / "work")
    method = TrackStar(TrackStarConfig(program=str(program), positions="all"))
    found = method.scores(task)
    assert found.scores[:, 0].tolist() == [len(row.text) - 6 for row in task.rows]


@pytest.mark.parametrize("template", [True, False])
def test_bergson_reads_the_tokens_that_everybody_reads(template, tmp_path):
    source = tiny_model(tmp_path / "model", bos=True)
    if not template:
        (source / "chat_template.jinja").unlink()
    tokenizer = load_tokenizer(ModelConfig(name=str(source)))
    texts = [*labelled_texts(3), LabelledText("spelled", "<|begin|>hello there", 11, "a")]
    around = special_tokens(tokenizer)
    assert around == ("<|begin|>", "")
    write_texts(tmp_path / "rows.jsonl", texts, around, masked=True)
    home = plain_model(source, tmp_path / "plain")
    theirs: Any = AutoTokenizer.from_pretrained(home)
    expected = tokenizer.encode([one.text for one in texts], [one.prompt_chars for one in texts])
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    for line, text, row in zip(map(json.loads, lines), texts, expected, strict=True):
        messages = [{"role": name, "content": line[name]} for name in ("prompt", "completion")]
        rendered = theirs.apply_chat_template(messages, tokenize=False)
        read = theirs(rendered, add_special_tokens=False)
        assert read["input_ids"] == row.ids.tolist()
        assert read.char_to_token(0, len(line["prompt"])) == row.first_target
        assert line["completion"] == text.text[text.prompt_chars :]
    assert (home / "model.safetensors").samefile(source / "model.safetensors")
    loaded = AutoModelForCausalLM.from_pretrained(home)
    assert loaded.config.vocab_size == 320


def test_an_end_that_the_tokenizer_adds_is_spelled_out_and_predicted(tmp_path):
    source = tiny_model(tmp_path / "model", bos=True)
    file = source / "tokenizer.json"
    known = json.loads(file.read_text())
    ending = known["post_processor"]
    ending["single"].append({"SpecialToken": {"id": "<|end|>", "type_id": 0}})
    ending["special_tokens"]["<|end|>"] = {"id": "<|end|>", "ids": [1], "tokens": ["<|end|>"]}
    file.write_text(json.dumps(known))
    around = special_tokens(load_tokenizer(ModelConfig(name=str(source))))
    assert around == ("<|begin|>", "<|end|>")
    write_texts(tmp_path / "rows.jsonl", labelled_texts(1), around, masked=False)
    line = json.loads((tmp_path / "rows.jsonl").read_text())
    text = labelled_texts(1)[0].text
    assert line == {"prompt": "<|begin|>", "completion": f"{text}<|end|>"}


def test_a_program_that_fails_is_an_error_with_its_last_lines(
    program, tiny_llama, tmp_path, monkeypatch
):
    task = prepared_task(tiny_llama, tmp_path / "work")
    method = TrackStar(TrackStarConfig(program=str(program)))
    monkeypatch.setenv("FAKE_UNWRITTEN", "1")
    with pytest.raises(RuntimeError, match="left scores unwritten"):
        method.scores(task)
    monkeypatch.setenv("FAKE_FAILS", "1")
    with pytest.raises(RuntimeError, match=r"code 3 and no scores.*the model is too large"):
        method.scores(task)


def test_what_is_not_installed_is_refused(tiny_llama, tmp_path, monkeypatch):
    task = prepared_task(tiny_llama, tmp_path)
    absent = TrackStar(TrackStarConfig(program=str(tmp_path / "bergson")))
    with pytest.raises(MethodRefused, match="pip install bergson"):
        absent.scores(task)
    assert absent.settings["bergson"] is None
    monkeypatch.setattr(ekfac_module, "PACKAGE", "no-such-package")
    with pytest.raises(MethodRefused, match="pip install no-such-package"):
        EkFac().scores(task)


def _batch() -> dict[str, torch.Tensor]:
    texts = [TokenRow(np.array([5, 6, 7, 8]), 2), TokenRow(np.array([9, 3]), 1)]
    return padded_texts(texts)


def test_a_batch_masks_prompts_and_padding():
    batch = _batch()
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8], [9, 3, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED, IGNORED, 7, 8], [IGNORED, 3, IGNORED, IGNORED]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


@pytest.mark.parametrize("mean", [True, False])
def test_losses_of_texts_are_over_the_positions_that_count(mean):
    logits = torch.randn(2, 4, 12, generator=torch.Generator().manual_seed(0))
    found = text_losses(logits, _batch()["labels"], mean=mean)
    chances = logits.double().log_softmax(-1)
    first = -(chances[0, 1, 7] + chances[0, 2, 8])
    expected = [float(first) / (2 if mean else 1), -float(chances[1, 0, 3])]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_labels_are_drawn_where_they_count_and_as_the_model_predicts():
    labels = _batch()["labels"]
    logits = torch.full((2, 4, 12), -30.0)
    logits[..., 4] = 30.0
    drawn = sampled_labels(logits, labels)
    assert drawn.tolist() == [[IGNORED, IGNORED, 4, 4], [IGNORED, 4, IGNORED, IGNORED]]


def test_linear_layers_are_found_by_block_and_name(tiny_llama, tmp_path):
    task = prepared_task(tiny_llama, tmp_path)
    model = load_whole(task.model)
    found = linear_layers(model, blocks=1, pattern="mlp", name="tiny")
    assert found == [f"model.layers.1.mlp.{side}_proj" for side in ("gate", "up", "down")]
    with pytest.raises(MethodRefused, match="Change pattern"):
        linear_layers(model, blocks=1, pattern="conv", name="tiny")
    with pytest.raises(MethodRefused, match="has 2 blocks"):
        linear_layers(model, blocks=3, pattern="mlp", name="tiny")
