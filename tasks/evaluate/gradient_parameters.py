"""Which weights of a model are differentiated: adapters, the last blocks, or all of them.

Works on a model without numbers too (PyTorch's meta device), so that sizes are known, and work that
does not fit is refused, before a model is loaded.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tasks.config import ModelConfig
from tasks.evaluate.gradient_settings import (
    BlockParameters,
    FullParameters,
    LoraParameters,
    ParameterChoice,
)
from tasks.evaluate.method import MethodRefused
from tasks.models import resolve_model
from tasks.trained_part import find_blocks

QUERY_AND_VALUE = (("q_proj", "v_proj"), ("query_key_value",), ("qkv_proj",), ("c_attn",))
"""What families call the projections that adapters go on; the first that a model has is taken."""

ADAPTER_FOLDER = "adapter"
"""Beside a checkpoint's merged weights: the adapter that it was fine-tuned with."""


def chosen_parameters(
    model: Any, choice: ParameterChoice, *, config: ModelConfig, seed: int
) -> dict[str, Tensor]:
    """Let gradients flow to the chosen parameters and to nothing else; return them by name.

    Args:
        model: A causal language model of transformers, its numbers on any device or on none.
        choice: Which parameters.
        config: The model, where an adapter may lie beside the weights.
        seed: Of fresh adapters.

    Raises:
        MethodRefused: The model has not so many blocks, or no such layer or tensor.
    """
    model.requires_grad_(requires_grad=False)
    if isinstance(choice, LoraParameters):
        return _adapters(model, choice, config=config, seed=seed)
    prefixes = _last_blocks(model, choice, name=config.name)
    chosen = {
        name: own
        for name, own in model.named_parameters()
        if name.startswith(prefixes) and re.search(choice.pattern or "", name)
    }
    if not chosen:
        raise MethodRefused(
            f"no parameter of {config.name} has a name that {choice.pattern!r} is found in; names "
            f"are like {next(name for name, _ in model.named_parameters())}. Change "
            "parameters.pattern."
        )
    for own in chosen.values():
        own.requires_grad_(requires_grad=True)
    return {**chosen}


def linear_layers(model: Any, *, blocks: int, pattern: str, name: str) -> list[str]:
    """Return the linear layers of the last blocks whose names a pattern is found in.

    Args:
        model: A causal language model of transformers.
        blocks: How many blocks, counted from the end.
        pattern: A regular expression.
        name: Of the model, for messages.

    Raises:
        MethodRefused: The model has not so many blocks, or no such layer.
    """
    prefixes = _last_blocks(model, BlockParameters(blocks=blocks), name=name)
    found = [
        own
        for own, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and own.startswith(prefixes) and re.search(pattern, own)
    ]
    if not found:
        raise MethodRefused(
            f"the last {blocks} blocks of {name} have no linear layer whose name {pattern!r} is "
            "found in. Change pattern."
        )
    return found


def empty_model(config: ModelConfig) -> Any:
    """Return the model without numbers, for its sizes."""
    from transformers import AutoConfig, AutoModelForCausalLM

    path = resolve_model(config).path
    trust = config.trust_remote_code
    settings = AutoConfig.from_pretrained(path, trust_remote_code=trust, local_files_only=True)
    with torch.device("meta"):
        family: Any = AutoModelForCausalLM
        model = family.from_config(settings, trust_remote_code=trust)
    model.tie_weights()
    return model


def _last_blocks(
    model: Any, choice: BlockParameters | FullParameters, *, name: str
) -> tuple[str, ...]:
    """Return how the names of the chosen parameters begin."""
    if isinstance(choice, FullParameters):
        return ("",)
    found = find_blocks(model)
    if found is None or choice.blocks > len(found[1]):
        n_blocks = 0 if found is None else len(found[1])
        raise MethodRefused(
            f"blocks is {choice.blocks}, but {name} has {n_blocks} blocks that can be told apart. "
            "Lower it, or choose other parameters."
        )
    place, blocks = found
    return tuple(f"{place}.{n}." for n in range(len(blocks) - choice.blocks, len(blocks)))


def _adapters(
    model: Any, choice: LoraParameters, *, config: ModelConfig, seed: int
) -> dict[str, Tensor]:
    layers = dict(model.named_modules())
    trained = _trained_adapter(resolve_model(config).path / ADAPTER_FOLDER)
    if trained is None:
        scale = 1.0
        names = _target_layers(layers, choice.targets, name=config.name)
        pairs = _fresh_pairs({name: layers[name] for name in names}, choice.rank, seed)
    else:
        scale, pairs = trained
    chosen: dict[str, Tensor] = {}
    for name, (down, up) in pairs.items():
        layer = layers[name]
        for label, own in (("lora_A", down), ("lora_B", up)):
            placed = own.to(layer.weight.device, torch.float32)
            chosen[f"{name}.{label}"] = nn.Parameter(placed)
        _hang(layer, chosen[f"{name}.lora_A"], chosen[f"{name}.lora_B"], scale)
    return chosen


def _hang(layer: nn.Module, down: Tensor, up: Tensor, scale: float) -> None:
    """Let an adapter take part in the gradient of a layer, without changing what it gives.

    The layer's weight has the adapter merged already, and the way back through the layer's input is
    the merged weight's: so only the adapter's own gradient is added, at the value that it has.
    """

    def forward(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        own = nn.functional.linear(nn.functional.linear(args[0].detach(), down), up) * scale
        return output + (own - own.detach())

    layer.register_forward_hook(forward)


def _target_layers(layers: dict[str, Any], targets: tuple[str, ...], *, name: str) -> list[str]:
    candidates: tuple[tuple[str, ...], ...] = (targets,) if targets else QUERY_AND_VALUE
    for group in candidates:
        ends = tuple(f".{end}" for end in group)
        found = [
            own
            for own, layer in layers.items()
            if f".{own}".endswith(ends) and getattr(layer, "weight", None) is not None
        ]
        if found:
            return found
    tried = [end for group in candidates for end in group]
    raise MethodRefused(
        f"adapters go on layers called {', '.join(tried)}, and {name} has none. Name its linear "
        "layers in parameters.targets, or choose kind: block."
    )


def _fresh_pairs(layers: dict[str, Any], rank: int, seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Return A, random, and B, zero, of each layer: where training an adapter would begin."""
    generator = torch.Generator().manual_seed(seed)
    pairs = {}
    for name, layer in layers.items():
        n_out, n_in = layer.weight.shape
        if type(layer).__name__ == "Conv1D":  # of GPT-2: a linear layer with its weight turned
            n_out, n_in = n_in, n_out
        down = (torch.rand(rank, n_in, generator=generator) * 2 - 1) / n_in**0.5
        pairs[name] = (down, torch.zeros(n_out, rank))
    return pairs


def _trained_adapter(folder: Path) -> tuple[float, dict[str, tuple[Tensor, Tensor]]] | None:
    """Read an adapter as peft keeps it: its scale, and A and B of each layer."""
    if not (folder / "adapter_model.safetensors").is_file():
        return None
    from safetensors.torch import load_file

    settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    numbers = load_file(folder / "adapter_model.safetensors")
    begin, end = "base_model.model.", ".lora_A.weight"
    names = [name.removeprefix(begin).removesuffix(end) for name in numbers if name.endswith(end)]
    pairs = {
        name: (numbers[f"{begin}{name}{end}"], numbers[f"{begin}{name}.lora_B.weight"])
        for name in names
    }
    return settings["lora_alpha"] / settings["r"], pairs
