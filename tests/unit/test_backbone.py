import json
import shutil
from pathlib import Path

import pytest
import torch
from tiny import HIDDEN, KINDS, VOCABULARY, tiny_config, tiny_model, tiny_tokenizer
from transformers import PreTrainedTokenizerFast
from transformers.models.auto import AutoModelForCausalLM

from tasks.backbone import (
    RowTokenizer,
    load_backbone,
    load_tokenizer,
    resolve_device,
    resolve_dtype,
)
from tasks.config import ModelConfig
from tasks.heads import verified_head


def _tokenizer(folder: Path, *, bos: bool = False) -> RowTokenizer:
    return load_tokenizer(ModelConfig(name=str(tiny_model(folder, bos=bos))))


def _backbone(folder: Path, dtype: str = "float32"):
    return load_backbone(ModelConfig(name=str(folder), dtype=dtype), device="cpu")


# ----------------------------------------------------------------------------------- tokenizer


def test_completion_starts_at_the_token_that_ends_after_the_prompt(tmp_path: Path):
    tokenizer = _tokenizer(tmp_path / "m")
    prompt, completion = "Question: what is", " the capital"
    row = tokenizer.encode([prompt + completion], [len(prompt)])[0]
    alone = tokenizer.encode([prompt], [0])[0]
    assert row.ids[: row.first_target].tolist() == alone.ids.tolist()
    assert 0 < row.first_target < len(row.ids)


def test_token_that_straddles_the_border_is_completion(tmp_path: Path):
    tokenizer = _tokenizer(tmp_path / "m")
    text = "The quick brown fox"
    whole = tokenizer.encode([text], [0])[0]
    assert len(tokenizer.encode(["The"], [0])[0].ids) == 1  # so 1 and 2 cut inside a token
    assert tokenizer.encode([text], [2])[0].first_target == 0
    assert tokenizer.encode([text], [3])[0].first_target == 1
    assert tokenizer.encode([text], [18])[0].first_target == len(whole.ids) - 1


def test_many_byte_characters_split_at_the_border(tmp_path: Path):
    tokenizer = _tokenizer(tmp_path / "m")
    row = tokenizer.encode(["é日本🙂x"], [4])[0]
    assert row.ids[row.first_target :].tolist() == tokenizer.encode(["x"], [0])[0].ids.tolist()


def test_bos_counts_as_prompt_and_is_added_once(tmp_path: Path):
    tokenizer = _tokenizer(tmp_path / "m", bos=True)
    row, spelled = tokenizer.encode(["The fox", "<|begin|>The fox"], [0, 0])
    assert row.ids[0] == 0
    assert row.first_target == 1
    assert spelled.ids.tolist() == row.ids.tolist()


def test_closing_special_token_is_completion(tmp_path: Path):
    from tokenizers import Tokenizer, processors

    raw = Tokenizer.from_file(str(tiny_tokenizer(tmp_path) / "tokenizer.json"))
    raw.post_processor = processors.TemplateProcessing(
        single="$A <|end|>", special_tokens=[("<|end|>", 1)]
    )
    tokenizer = RowTokenizer(PreTrainedTokenizerFast(tokenizer_object=raw), name="t")
    masked, whole_prompt = tokenizer.encode(["The quick", "The quick"], [3, 9])
    assert masked.ids.tolist()[-1] == 1
    assert masked.first_target == 1
    assert whole_prompt.first_target == len(whole_prompt.ids) - 1


def test_empty_text_and_whole_prompt_have_no_target(tmp_path: Path):
    tokenizer = _tokenizer(tmp_path / "m")
    empty, prompt_only = tokenizer.encode(["", "The fox"], [0, 7])
    assert len(empty.ids) == 0
    assert prompt_only.first_target == len(prompt_only.ids)


def test_count_agrees_with_encode_over_many_texts(tmp_path: Path):
    tokenizer = _tokenizer(tmp_path / "m")
    texts = [f"The fox {n}" * (n % 5) for n in range(300)]
    rows = tokenizer.encode(texts, [0] * 300)
    assert tokenizer.count(texts) == [len(row.ids) for row in rows]
    assert rows[137].ids.tolist() == tokenizer.encode([texts[137]], [0])[0].ids.tolist()


def test_chat_completion_is_the_last_message_and_what_follows(tmp_path: Path):
    tokenizer = _tokenizer(tmp_path / "m")
    messages = [
        {"role": "user", "content": "The fox"},
        {"role": "assistant", "content": " The fox"},
    ]
    text, border = tokenizer.render_chat(messages)
    assert text[border:] == " The fox<|end|>\n"
    assert text[:border] == "<|user|>The fox<|end|>\n<|assistant|>"


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "user", "content": "x"}],
        [{"role": "assistant", "content": ["parts"]}],
        [{"content": "x"}],
    ],
)
def test_chat_without_an_answer_is_refused(tmp_path: Path, messages: list[dict[str, str]]):
    with pytest.raises(ValueError, match="assistant"):
        _tokenizer(tmp_path / "m").render_chat(messages)


def test_chat_needs_a_template_and_obeys_it(tmp_path: Path):
    folder = tiny_model(tmp_path / "m")
    template = folder / "chat_template.jinja"
    answer = [{"role": "assistant", "content": "x"}]
    template.write_text("{{ raise_exception('alternate, please') }}")
    with pytest.raises(ValueError, match="alternate, please"):
        load_tokenizer(ModelConfig(name=str(folder))).render_chat(answer)
    template.write_text("{{ messages[-1]['content'] | upper }}")
    with pytest.raises(ValueError, match="cannot be located"):
        load_tokenizer(ModelConfig(name=str(folder))).render_chat(answer)
    template.unlink()
    with pytest.raises(ValueError, match="no chat template"):
        load_tokenizer(ModelConfig(name=str(folder))).render_chat(answer)


def test_tokenizer_fingerprint_tells_tokenizers_apart(tmp_path: Path):
    plain, again = _tokenizer(tmp_path / "a"), _tokenizer(tmp_path / "b")
    assert plain.fingerprint == again.fingerprint
    assert plain.fingerprint != _tokenizer(tmp_path / "c", bos=True).fingerprint


def test_folder_without_tokenizer_is_an_error(tmp_path: Path):
    folder = tiny_model(tmp_path / "m")
    for file in folder.glob("*token*"):
        file.unlink()
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        load_tokenizer(ModelConfig(name=str(folder)))


# ------------------------------------------------------------------------------------ backbone


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_head_on_hidden_states_gives_the_models_logits(tmp_path: Path, kind: str, dtype: str):
    folder = tiny_model(tmp_path / "m", kind)
    ids = torch.randint(2, VOCABULARY, (3, 11), generator=torch.Generator().manual_seed(1))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    with torch.no_grad():
        expected = model(ids).logits.float().flatten(0, 1)
    backbone = _backbone(folder, dtype)
    hidden = backbone.hidden_states(ids)
    assert hidden.shape == (3, 11, HIDDEN)
    assert hidden.dtype == torch.float32
    found = backbone.head.logits(hidden.flatten(0, 1))
    rounding = 1e-5 if dtype == "float32" else 2e-2
    assert (found - expected).abs().max() <= rounding * expected.abs().max()


@pytest.mark.parametrize(
    ("kind", "scale", "cap"),
    [
        ("llama", 1.0, None),
        ("gemma-2", 1.0, 3.0),
        ("cohere", 0.0625, None),
        ("granite", 0.125, None),
    ],
)
def test_factor_and_cap_are_read(tmp_path: Path, kind: str, scale: float, cap: float | None):
    head = _backbone(tiny_model(tmp_path / "m", kind)).head
    assert (head.logit_scale, head.soft_cap) == (scale, cap)


@pytest.mark.parametrize("kind", KINDS)
def test_real_tokens_never_see_the_padding(tmp_path: Path, kind: str):
    backbone = _backbone(tiny_model(tmp_path / "m", kind))
    short = torch.randint(2, VOCABULARY, (1, 7), generator=torch.Generator().manual_seed(2))
    for pad in (0, 5):
        padded = torch.full((2, 40), pad)
        padded[0, :7] = short
        torch.testing.assert_close(
            backbone.hidden_states(padded)[:1, :7], backbone.hidden_states(short), atol=2e-5, rtol=0
        )


def test_head_bias_is_read():
    config = tiny_config("gpt-neox")
    model = AutoModelForCausalLM.from_config(config).eval()
    head = torch.nn.Linear(HIDDEN, VOCABULARY, bias=True)
    torch.nn.init.normal_(head.bias)
    model.set_output_embeddings(head)
    read = verified_head(model, name="m", dtype="float32")
    assert read.bias is not None
    assert torch.equal(read.bias, head.bias)


class _OddHead(torch.nn.Linear):
    """A head that does to its logits what no config field tells."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden) * 1.01


def test_unknown_head_is_refused_with_class_and_difference():
    model = AutoModelForCausalLM.from_config(tiny_config("llama-untied")).eval()
    model.set_output_embeddings(_OddHead(HIDDEN, VOCABULARY, bias=False))
    with pytest.raises(ValueError, match=r"LlamaForCausalLM.*difference is 0\.0099"):
        verified_head(model, name="m", dtype="float32")


def test_attention_that_looks_ahead_is_refused():
    model = AutoModelForCausalLM.from_config(tiny_config("llama")).eval()
    inner = model.model.norm
    model.model.norm = torch.nn.Sequential(inner, _MeanOfAll())
    with pytest.raises(ValueError, match="not causal"):
        verified_head(model, name="m", dtype="float32")


class _MeanOfAll(torch.nn.Module):
    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden + hidden.mean(dim=1, keepdim=True)


def test_broken_head_weights_are_refused_by_token():
    model = AutoModelForCausalLM.from_config(tiny_config("llama-untied")).eval()
    with torch.no_grad():
        model.lm_head.weight[17, 3] = float("nan")
    with pytest.raises(ValueError, match=r"tokens \[17\]"):
        verified_head(model, name="m", dtype="float32")


def test_broken_embedding_row_is_left_to_the_row_that_reads_it():
    model = AutoModelForCausalLM.from_config(tiny_config("llama-untied")).eval()
    with torch.no_grad():
        model.model.embed_tokens.weight[44] = float("nan")  # the first token of the check
    verified_head(model, name="m", dtype="float32")
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    with pytest.raises(ValueError, match="no finite logits"):
        verified_head(model, name="m", dtype="float32")


def test_embeddings(tmp_path: Path):
    backbone = _backbone(tiny_model(tmp_path / "m", "llama-untied"), "bfloat16")
    output, inner = backbone.embedding("output"), backbone.embedding("input")
    assert output.dtype == inner.dtype == torch.float32
    assert output.shape == inner.shape == (VOCABULARY, HIDDEN)
    assert not torch.equal(output, inner)


def test_backbone_is_cached_until_the_folder_changes(tmp_path: Path):
    folder = tiny_model(tmp_path / "m")
    first = _backbone(folder)
    assert _backbone(folder) is first
    shutil.rmtree(folder)
    tiny_model(folder, seed=1)
    second = _backbone(folder)
    assert second is not first
    assert second.fingerprint != first.fingerprint


def test_own_code_of_a_model_is_not_run_unasked(tmp_path: Path):
    folder = tiny_model(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "odd",
        "auto_map": {"AutoConfig": "odd.C", "AutoModelForCausalLM": "odd.M"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "odd.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ValueError, match="trust_remote_code"):
        _backbone(folder)
    assert not (tmp_path / "ran").exists()


def test_devices_and_number_formats():
    assert resolve_device("cpu") == "cpu"
    with pytest.raises(ValueError, match="cuda:64"):
        resolve_device("cuda:64")
    with pytest.raises(ValueError, match="tpu"):
        resolve_device("tpu")
    assert resolve_dtype("float16", device="cpu") == "float16"
    assert resolve_dtype("auto", device="cpu") in ("float32", "bfloat16")
    assert resolve_dtype("auto", device="mps") == "float32"


@pytest.mark.model
def test_smollm2_answers_and_its_head_is_tied(smollm2: Path):
    backbone = _backbone(smollm2)
    tokenizer = load_tokenizer(ModelConfig(name=str(smollm2)))
    row = tokenizer.encode(["The capital of France is"], [0])[0]
    hidden = backbone.hidden_states(torch.from_numpy(row.ids).long()[None])
    best = int(backbone.head.logits(hidden[0])[-1].argmax())
    assert best == int(tokenizer.encode([" Paris"], [0])[0].ids[0])
