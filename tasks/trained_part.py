"""Which parameters of a model are trained, and how what lies before them is run only once.

Of "the last blocks", whatever the first blocks give a row is the same at every step. A
`FrozenPrefix` takes it once, and later puts it in their place while the model's own code runs
around it: embeddings are looked up and thrown away, masks and positions are made as the family
makes them, the skipped blocks hand through. So no family's forward pass is written anew here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from tasks.training_config import BlocksTraining, LoraTraining, Trained


def choose_trained(model: Any, trained: Trained, *, seed: int, name: str) -> "FrozenPrefix | None":
    """Let gradients flow to what is trained, and to nothing else.

    Args:
        model: A causal language model of transformers.
        trained: What to train.
        seed: Of the adapters' start.
        name: Of the model, for messages.

    Returns:
        What lies before the trained blocks; None where nothing does.

    Raises:
        ValueError: The model has not so many blocks, no layer of the adapted names, or peft is
            not installed.
    """
    if isinstance(trained, LoraTraining):
        _add_adapters(model, trained, seed=seed, name=name)
        return None
    if not isinstance(trained, BlocksTraining):
        model.requires_grad_(requires_grad=True)
        return None
    blocks, norms = _blocks_and_norms(model, name=name)
    if trained.blocks > len(blocks):
        raise ValueError(
            f"training.trained.blocks is {trained.blocks}, but {name} has {len(blocks)} blocks. "
            "Lower it, or train everything (kind: full)."
        )
    model.requires_grad_(requires_grad=False)
    first = len(blocks) - trained.blocks
    for module in (*blocks[first:], *norms):
        module.requires_grad_(requires_grad=True)
    return FrozenPrefix(model, blocks, first) if first else None


def find_blocks(model: Any) -> tuple[str, nn.ModuleList] | None:
    """Return the name of the model's list of blocks, and the list; None where there is none."""
    n_blocks = model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == n_blocks:
            return name, module
    return None


def adapted_layers(model: Any) -> dict[str, Any]:
    """Return the layers that carry an adapter, by their names without it."""
    return {
        name: module
        for name, module in model.named_modules()
        if hasattr(module, "base_layer") and hasattr(module, "get_delta_weight")
    }


class FrozenPrefix:
    """The blocks before the first trained one."""

    def __init__(self, model: Any, blocks: nn.ModuleList, first: int) -> None:
        self._model = model
        self._seen: Tensor | None = None
        self._injected: Tensor | None = None
        self._gives_tuple = False
        self._stopping = False
        for block in blocks[:first]:
            cast(Any, block).forward = self._skippable(block.forward)
        blocks[first].register_forward_pre_hook(self._at_border, with_kwargs=True)

    @torch.no_grad()
    def states(self, ids: Tensor) -> Tensor:
        """Return what the first trained block reads, [rows, tokens, hidden].

        Args:
            ids: Token ids, int64 [rows, tokens].
        """
        self._stopping = True
        try:
            self._model(input_ids=ids, use_cache=False)
        except _BorderReachedError:
            pass
        finally:
            self._stopping = False
        seen, self._seen = self._seen, None
        if seen is None:
            raise ValueError(
                f"{type(self._model).__name__} does not run the blocks it lists, so they cannot "
                "be cut; train everything (kind: full)."
            )
        return seen

    @contextmanager
    def replaced_by(self, states: Tensor) -> Iterator[None]:
        """Within the block, the model reads ``states`` where the prefix would have given them."""
        self._injected = states
        try:
            yield
        finally:
            self._injected = None

    def _skippable(self, own: Any) -> Any:
        def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
            if self._injected is None:
                given = own(hidden_states, *args, **kwargs)
                self._gives_tuple = isinstance(given, tuple)
                return given
            return (hidden_states,) if self._gives_tuple else hidden_states

        return forward

    def _at_border(self, _block: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        named = "hidden_states" in kwargs
        if self._stopping:
            self._seen = kwargs["hidden_states"] if named else args[0]
            raise _BorderReachedError
        if self._injected is None:
            return None
        if named:
            return args, {**kwargs, "hidden_states": self._injected}
        return (self._injected, *args[1:]), kwargs


class _BorderReachedError(Exception):
    """Ends a forward pass before the first trained block."""


def _blocks_and_norms(model: Any, *, name: str) -> tuple[nn.ModuleList, list[nn.Module]]:
    """Return the model's blocks, and the norms behind them."""
    found = find_blocks(model)
    if found is None:
        raise ValueError(
            f"{name} ({type(model).__name__}) has no list of blocks that could be cut; train "
            "everything (kind: full) or adapters (kind: lora)."
        )
    place, blocks = found
    parent = model.get_submodule(place.rpartition(".")[0])
    norms = [own for own in parent.children() if "norm" in type(own).__name__.lower()]
    return blocks, norms


def _add_adapters(model: Any, trained: LoraTraining, *, seed: int, name: str) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ValueError(
            "training.trained.kind is lora, which needs the package peft. "
            "Install it (pip install 'rise-pipeline[lora]'), or train the last blocks."
        ) from error
    model.requires_grad_(requires_grad=False)
    config = LoraConfig(
        r=trained.rank,
        lora_alpha=trained.alpha,  # type: ignore[arg-type]  # multiplies; a float is as good
        target_modules=list(trained.targets),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(config, model)
        except ValueError as error:
            raise ValueError(
                f"training.trained.targets are {list(trained.targets)}, and {name} has no such "
                f"layers ({error}). Name linear layers of the model."
            ) from error
