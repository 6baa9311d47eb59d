"""What two signatures must share to be compared: model, tokenizer, number format, sketch, windows.

The space's identity needs fingerprints only, so it is known before any weight is loaded. The sketch
tables enter it by their values.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rise_ops.coarse_product import CoarseHead, coarse_head, fast_dtype
from rise_ops.projection import ProjectionTables
from rise_ops.signature import SignatureSettings, Sketcher
from tasks.backbone import (
    Backbone,
    RowTokenizer,
    load_backbone,
    load_tokenizer,
    resolve_device,
    resolve_dtype,
)
from tasks.config import ModelConfig
from tasks.models import model_fingerprint, resolve_model
from tasks.signature_config import SignatureConfig, WindowConfig
from tasks.sketch_tables import load_tables


@dataclass(frozen=True, eq=False)
class SignatureSpace:
    """Everything that turns text into signatures, loaded.

    Attributes:
        backbone: The model.
        tokenizer: Its tokenizer.
        sketcher: Head and sketch tables.
        window: How long rows are cut.
    """

    backbone: Backbone
    tokenizer: RowTokenizer
    sketcher: Sketcher
    window: WindowConfig

    @property
    def vocabulary(self) -> int:
        """Token ids that both the model's input and its head know."""
        return min(self.backbone.n_input_ids, self.sketcher.head.vocab_size)


def space_identity(
    model: ModelConfig, signature: SignatureConfig, *, device: str
) -> dict[str, Any]:
    """Return what decides the values of a signature, all but the sketch tables.

    Args:
        model: Which model; its fingerprints enter, not its name or place.
        signature: Residual, sketch and windows; every field enters but how rows are stored (code,
            floats beside it), which queries are not: a query set fits every code of its space.
        device: Decides what dtype ``auto`` means.
    """
    return {
        "model": model_fingerprint(resolve_model(model).path),
        "tokenizer": load_tokenizer(model).fingerprint,
        "dtype": resolve_dtype(model.dtype, device=resolve_device(device)),
        "signature": signature.model_dump(mode="json", exclude={"code", "keep_floats"}),
    }


def tables_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the sha256 of named arrays: names, types, shapes and bytes."""
    state = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        state.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        state.update(array.tobytes())
    return state.hexdigest()


def load_space(
    model: ModelConfig, signature: SignatureConfig, tables: Mapping[str, np.ndarray], *, device: str
) -> SignatureSpace:
    """Load model and sketch.

    Args:
        model: Which model.
        signature: Residual, sketch and windows.
        tables: Sketch tables, as their ``to_arrays`` gives them.
        device: Where to compute.

    Raises:
        ValueError: The model does not fit the tables, or is not read rightly.
    """
    return make_space(model, signature, load_tables(signature.sketch, tables), device=device)


def make_space(
    model: ModelConfig, signature: SignatureConfig, tables: ProjectionTables, *, device: str
) -> SignatureSpace:
    """Load a model for tables that are at hand; see `load_space`."""
    backbone = load_backbone(model, device=device)
    sketcher = Sketcher(
        backbone.head,
        backbone.embedding(signature.sketch.embedding),
        tables,
        sketch_settings(signature, vocabulary=backbone.head.vocab_size),
        coarse=coarse_head_of(backbone) if signature.head == "two_pass" else None,
    )
    return SignatureSpace(backbone, load_tokenizer(model), sketcher, signature.window)


def coarse_head_of(backbone: Backbone) -> CoarseHead:
    """Return a model's head in the dtype that its device multiplies fast."""
    states = getattr(torch, backbone.dtype)
    return coarse_head(backbone.head, dtype=fast_dtype(backbone.device), states=states)


def sketch_settings(signature: SignatureConfig, *, vocabulary: int) -> SignatureSettings:
    """Return the settings of the numerics; more logits than the vocabulary has means all of it."""
    residual, sketch = signature.residual, signature.sketch
    top_k = min(residual.top_k, vocabulary)
    return SignatureSettings(
        temperature=residual.temperature,
        top_k=top_k,
        mass=residual.mass,
        min_tokens=min(residual.min_tokens, top_k),
        residual_weight=sketch.residual_weight,
        projected_weight=sketch.projected_weight,
        cross_weight=sketch.cross_weight,
        weighting=sketch.weighting,
    )
