"""Tiny models and tokenizers, made in a moment, of every family that the backbone must read."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    Olmo2Config,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)
from transformers.models.auto import AutoModelForCausalLM
from transformers.utils import logging

VOCABULARY = 320
HIDDEN = 32
TEXT = [
    "The quick brown fox jumps over the lazy dog.",
    "Question: what is the capital of France? Answer: Paris.",
    "User: hello there, how are you? Assistant: fine, thank you.",
]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>\n"
    "{% endfor %}"
)
_SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
_GPT2 = {
    "vocab_size": VOCABULARY,
    "n_embd": HIDDEN,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 512,
    "initializer_range": 0.3,
    "bos_token_id": 0,
    "eos_token_id": 1,
}

_FAMILIES: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "llama": (LlamaConfig, {**_SHAPE, "tie_word_embeddings": True}),
    "llama-untied": (LlamaConfig, {**_SHAPE, "tie_word_embeddings": False}),
    "gpt-neox": (GPTNeoXConfig, _SHAPE),
    "olmo-2": (Olmo2Config, _SHAPE),
    "gpt-2": (GPT2Config, _GPT2),
    "qwen-2": (Qwen2Config, _SHAPE),
    "gemma-2": (
        Gemma2Config,
        {**_SHAPE, "head_dim": 16, "final_logit_softcapping": 3.0, "sliding_window": 8},
    ),
    "cohere": (CohereConfig, {**_SHAPE, "logit_scale": 0.0625}),
    "granite": (GraniteConfig, {**_SHAPE, "logits_scaling": 8.0}),
}

KINDS = tuple(_FAMILIES)


def tiny_config(kind: str, **changes: Any) -> PreTrainedConfig:
    """Return the config of a tiny model; see ``KINDS``."""
    family, settings = _FAMILIES[kind]
    return family(**(settings | changes))


def tiny_tokenizer(folder: Path, *, bos: bool = False) -> Path:
    """Save a byte-level BPE tokenizer with a chat template; with ``bos`` it adds BOS in front."""
    tokenizer = Tokenizer(BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|begin|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A", special_tokens=[("<|begin|>", 0)]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|begin|>",
        eos_token="<|end|>",
        chat_template=CHAT_TEMPLATE,
    )
    fast.save_pretrained(folder)
    return folder


def tiny_model(
    folder: Path, kind: str = "llama", *, seed: int = 0, bos: bool = False, **changes: Any
) -> Path:
    """Save a tiny random model of a family, with `tiny_tokenizer`; return its folder."""
    logging.disable_progress_bar()
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(tiny_config(kind, **changes))
    model.save_pretrained(folder)
    tiny_tokenizer(folder, bos=bos)
    return folder


def tiny_gguf(file: Path, model_folder: Path) -> Path:
    """Write a "qwen-2" `tiny_model` as a GGUF file with float32 tensors."""
    from gguf import MODEL_ARCH, GGUFWriter, get_tensor_name_map

    model = AutoModelForCausalLM.from_pretrained(model_folder)
    config: Any = model.config
    tokenizer = Tokenizer.from_file(str(model_folder / "tokenizer.json"))
    names = get_tensor_name_map(MODEL_ARCH.QWEN2, config.num_hidden_layers)
    writer = GGUFWriter(file, "qwen2")
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())])
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    for name, tensor in model.state_dict().items():
        writer.add_tensor(names.get_name(name, (".weight", ".bias")), tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
