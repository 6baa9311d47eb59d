"""Text to tokens, tokens to final hidden states: the only place that runs a language model.

A `RowTokenizer` turns a row into token ids and says where its completion begins. A `Backbone` gives
the exact input of the model's LM head at every position, with the head itself as a float32
`ReadoutHead`. The hidden states are taken where the head would read them (a tap stands in the
head's place), and at load the head is held against the model's own logits, so that a family that
scales, caps or shifts its logits in a way unknown here is refused instead of being read wrongly.
"""

import functools
import json
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from storage.files import digest
from tasks.config import ModelConfig
from tasks.devices import claimed_device
from tasks.models import (
    ResolvedModel,
    model_fingerprint,
    quiet_transformers,
    resolve_model,
    weight_files,
)

if TYPE_CHECKING:
    import torch

ENCODE_TEXTS = 128
"""Texts tokenised at a time: enough for every core, few enough that offsets stay small."""

CONTENT_MARK = "\ue000rise\ue001"
"""Stands for the last message while a chat is rendered; private-use characters, so in no text."""


@dataclass(frozen=True)
class TokenRow:
    """A row as the model reads it.

    ``ids`` are the tokens, int32 [n]; tokens at index ``first_target`` and after (never index 0)
    are predicted positions: position ``t`` predicts token ``t + 1``.
    """

    ids: np.ndarray
    first_target: int


class RowTokenizer:
    """A fast tokenizer that knows which tokens belong to the completion.

    ``fingerprint`` covers vocabulary, merges, normalisation, the special tokens that are added, and
    the chat template: two tokenizers of one fingerprint cut every row alike.
    """

    def __init__(self, tokenizer: Any, *, name: str) -> None:
        if not tokenizer.is_fast:
            raise ValueError(
                f"The tokenizer of {name} ({type(tokenizer).__name__}) has no fast version, which "
                "is needed to tell prompt from completion. Save it as tokenizer.json first."
            )
        self.name = name
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_padding()
        self._backend.no_truncation()
        self._bos = tokenizer.bos_token_id
        self.fingerprint = digest(
            {
                "version": 1,
                "tokenizer": json.loads(self._backend.to_str()),
                "added": self._backend.encode("").ids,
                "bos": self._bos,
                "chat_template": tokenizer.chat_template,
            }
        )

    def encode(self, texts: Sequence[str], prompt_chars: Sequence[int]) -> list[TokenRow]:
        """Tokenise rows; ``prompt_chars`` is the length of each row's prompt in characters.

        A token belongs to the completion if it ends after the prompt: one that straddles the border
        is predicted from prompt tokens only, and carries completion text. Special tokens in front
        of the text (BOS) count as prompt, those behind the first completion token as completion.
        A BOS that the text already spells out is not added a second time.
        """
        rows: list[TokenRow] = []
        for start in range(0, len(texts), ENCODE_TEXTS):
            encodings = self._backend.encode_batch(list(texts[start : start + ENCODE_TEXTS]))
            borders = prompt_chars[start : start + ENCODE_TEXTS]
            rows += [self._row(*pair) for pair in zip(encodings, borders, strict=True)]
        return rows

    def save(self, folder: Path) -> None:
        """Write the tokenizer into a model's folder, so that it loads from there."""
        self._tokenizer.save_pretrained(folder)

    def ends(self, texts: Sequence[str], *, n_tokens: int) -> list[int]:
        """Return where each text's token number ``n_tokens`` ends, in characters; or the text."""
        encodings = self._backend.encode_batch(list(texts))
        return [
            len(text) if len(own.ids) <= n_tokens else int(own.offsets[n_tokens - 1][1])
            for text, own in zip(texts, encodings, strict=True)
        ]

    def count(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, special tokens included."""
        return [len(row.ids) for row in self.encode(texts, [0] * len(texts))]

    def token_texts(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """Return the text of each token; a part of a character shows as a replacement mark."""
        return [self._backend.decode([int(one)], skip_special_tokens=False) for one in ids]

    def render_chat(self, messages: Sequence[Mapping[str, Any]]) -> tuple[str, int]:
        """Write a conversation in the model's chat template.

        Returns:
            The text, and the number of its characters before the last message's content: that
            content and what follows it (end-of-turn marks) are the completion.

        Raises:
            ValueError: The model has no chat template, the last message is not the assistant's, or
                the template refuses the messages.
        """
        if self._tokenizer.chat_template is None:
            raise ValueError(
                f"{self.name} has no chat template; use fields of kind prompt_completion or text."
            )
        last = messages[-1] if messages else {}
        if last.get("role") != "assistant" or not isinstance(last.get("content"), str):
            raise ValueError(
                "the last message must have role 'assistant' and a string as content (it is the "
                f"completion); found role {last.get('role')!r}"
            )
        text = self._render(messages)
        marked = self._render([*messages[:-1], {**last, "content": CONTENT_MARK}])
        border = marked.find(CONTENT_MARK)
        if border < 0 or text[:border] != marked[:border]:
            raise ValueError(
                f"the chat template of {self.name} does not write the last message as it stands, "
                "so its completion cannot be located; use fields of kind prompt_completion."
            )
        return text, border

    def _render(self, messages: Sequence[Mapping[str, Any]]) -> str:
        from jinja2 import TemplateError

        try:
            text = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages], tokenize=False
            )
        except (TemplateError, TypeError, KeyError) as error:
            raise ValueError(
                f"the chat template of {self.name} refuses the messages: {error}"
            ) from error
        return str(text)

    def _row(self, encoding: Any, border: int) -> TokenRow:
        ids = np.asarray(encoding.ids, dtype=np.int32)
        offsets = np.asarray(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        if len(ids) > 1 and ids[0] == ids[1] == self._bos and offsets[0, 1] == 0:
            ids, offsets = ids[1:], offsets[1:]
        ends = offsets[:, 1]
        within = np.flatnonzero(ends > 0)
        last_of_text = int(within[-1]) if within.size else len(ids)
        after = np.flatnonzero((ends > border) | (np.arange(len(ids)) > last_of_text))
        return TokenRow(ids=ids, first_target=int(after[0]) if after.size else len(ids))


def load_tokenizer(config: ModelConfig) -> RowTokenizer:
    """Load a model's tokenizer, without its weights; cached for the life of the process.

    Raises:
        ValueError: No such model, or it carries no usable tokenizer.
    """
    resolved = resolve_model(config)
    files = sorted(resolved.path.glob("*token*")) + sorted(resolved.path.glob("*.jinja"))
    stamp = tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
    return _load_tokenizer(resolved, stamp, trust_remote_code=config.trust_remote_code)


@functools.lru_cache(maxsize=4)
def _load_tokenizer(
    resolved: ResolvedModel, stamp: tuple[tuple[str, int, int], ...], *, trust_remote_code: bool
) -> RowTokenizer:
    del stamp  # part of the cache's key: a folder that changed is read again
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            resolved.path, trust_remote_code=trust_remote_code, local_files_only=True
        )
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(
            f"{resolved.path} has no tokenizer that can be loaded ({error}). Put the model's "
            "tokenizer.json and tokenizer_config.json into that folder."
        ) from error
    return RowTokenizer(tokenizer, name=resolved.name)


class Backbone:
    """A causal language model that stops where its LM head would begin.

    Attributes:
        name: As the config calls it, for messages.
        fingerprint: Identity of config and weights; see `model_fingerprint`.
        dtype: Number format that the model runs in, resolved ("bfloat16", never "auto").
        device: Where it runs.
        head: The LM head, float32, on that device.
        n_input_ids: Token ids that the input embedding has rows for.
    """

    def __init__(self, resolved: ResolvedModel, model: Any, *, dtype: str, device: str) -> None:
        self.name = resolved.name
        self.fingerprint = model_fingerprint(resolved.path)
        self.dtype = dtype
        self.device = device
        self.n_input_ids: int = model.get_input_embeddings().weight.shape[0]
        from tasks.heads import tap_head, verified_head

        self._model = model
        self.head = verified_head(model, name=resolved.name, dtype=dtype)
        self._tap = tap_head(model)
        self._one_at_a_time = threading.Lock()  # threads share the tap

    def embedding(self, which: Literal["output", "input"]) -> "torch.Tensor":
        """Return the read-out weight or the input embedding, float32 [vocabulary, size].

        Raises:
            ValueError: The model's input embedding does not cover the head's vocabulary.
        """
        if which == "output":
            return self.head.weight
        weight: torch.Tensor = self._model.get_input_embeddings().weight.detach()
        if weight.shape[0] < self.head.vocab_size:
            raise ValueError(
                f"the input embedding of {self.name} has {weight.shape[0]} rows but its head "
                f"{self.head.vocab_size}; set embedding: output."
            )
        return weight[: self.head.vocab_size].float()

    def hidden_states(self, ids: "torch.Tensor") -> "torch.Tensor":
        """Return what the LM head would read at every position.

        Shorter windows are padded on the right with any valid id: attention is causal, so no real
        token sees the padding, and no mask is needed.

        Args:
            ids: Token ids, int64 [windows, tokens], on the backbone's device.

        Returns:
            float32 [windows, tokens, hidden size].
        """
        import torch

        with self._one_at_a_time, torch.inference_mode():
            self._model(input_ids=ids, use_cache=False)
            return self._tap.take().float()


def load_backbone(config: ModelConfig, *, device: str) -> Backbone:
    """Load a model's weights; cached for the life of the process.

    Args:
        config: Which model, in which number format.
        device: auto, cpu, cuda, cuda:1 or mps.

    Raises:
        ValueError: No such model or device, or a model that is not read rightly: its attention is
            not causal, or its head is of an unknown kind.
    """
    resolved = resolve_model(config)
    place = resolve_device(device)
    return _load_backbone(
        resolved,
        model_fingerprint(resolved.path),
        dtype=resolve_dtype(config.dtype, device=place),
        device=place,
        trust_remote_code=config.trust_remote_code,
    )


@functools.lru_cache(maxsize=1)
def _load_backbone(
    resolved: ResolvedModel, fingerprint: str, *, dtype: str, device: str, trust_remote_code: bool
) -> Backbone:
    del fingerprint  # part of the cache's key: a folder that changed is read again
    import torch
    from transformers import AutoModelForCausalLM

    quiet_transformers()
    model: Any = AutoModelForCausalLM.from_pretrained(
        resolved.path,
        dtype=getattr(torch, dtype),
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
        local_files_only=True,
    )
    model.eval().requires_grad_(requires_grad=False)
    return Backbone(resolved, model.to(device), dtype=dtype, device=device)


def backbone_loads() -> int:
    """Return how many times this process has read weights for `load_backbone`."""
    return _load_backbone.cache_info().misses


def model_is_loaded() -> bool:
    """Tell whether this process holds a model."""
    return _load_backbone.cache_info().currsize > 0


def forget_model() -> None:
    """Let go of the model that this process holds, so that others have its memory."""
    _load_backbone.cache_clear()


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a model; ``max_tokens`` is its longest window, None when it knows no bound."""

    n_parameters: int
    vocabulary: int
    hidden: int
    max_tokens: int | None


def model_shape(config: ModelConfig) -> ModelShape:
    """Return the sizes of a model, from its config and the headers of its weight files."""
    from transformers import AutoConfig

    path = resolve_model(config).path
    settings = AutoConfig.from_pretrained(
        path, trust_remote_code=config.trust_remote_code, local_files_only=True
    ).get_text_config()
    return ModelShape(
        n_parameters=sum(_stored_numbers(file) for file in weight_files(path)),
        vocabulary=settings.vocab_size,
        hidden=settings.hidden_size,
        max_tokens=getattr(settings, "max_position_embeddings", None),
    )


def _stored_numbers(file: Path) -> int:
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    tensors = (entry for name, entry in header.items() if name != "__metadata__")
    return sum(math.prod(tensor["shape"]) for tensor in tensors)


def device_kind(device: str) -> str:
    """Return cpu, cuda or mps: what numbers may depend on, and not which card it is."""
    return device.partition(":")[0]


def resolve_device(device: str) -> str:
    """Return the device that ``auto`` means here, or the named one if this machine has it.

    In a worker process ``auto`` and ``cuda`` mean the GPU that it has claimed.

    Raises:
        ValueError: This machine has no such device.
    """
    import torch

    claimed = claimed_device()
    if claimed is not None and device in ("auto", "cuda"):
        return claimed
    has_mps = torch.backends.mps.is_available()
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
    kind, _, number = device.partition(":")
    n_devices = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(has_mps)}.get(kind, 0)
    if not (number or "0").isdigit() or int(number or "0") >= n_devices:
        raise ValueError(
            f"device {device!r} is not on this machine (it has {n_devices} of kind {kind!r}). "
            "Use auto, cpu, cuda, cuda:1 or mps."
        )
    return device


def resolve_dtype(dtype: str, *, device: str) -> str:
    """Return the number format that ``auto`` means on a device: bfloat16 where it is native."""
    import torch

    if dtype != "auto":
        return dtype
    if device.startswith("cuda"):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = device == "cpu" and _cpu_has_bfloat16()
    return "bfloat16" if native else "float32"


def _cpu_has_bfloat16() -> bool:
    # the kernel's list, because torch offers no public question; elsewhere float32 is always right
    listing = Path("/proc/cpuinfo")
    words = set(listing.read_text().split()) if listing.is_file() else set()
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})
