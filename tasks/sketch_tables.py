"""The tables of each kind of sketch: what it needs to know, how it is made, how it is read back.

Random tables need the seed alone. Calibrated ones need moments, which a sketcher of the tables of
`measuring` gives: the same channels, unsketched.
"""

from collections.abc import Mapping

import numpy as np

from rise_ops.calibration import Moments, principal_basis
from rise_ops.principal import PrincipalSettings, PrincipalTables, plain_tables, principal_tables
from rise_ops.projection import ProjectionTables
from rise_ops.sketch import SketchTables, TableSizes, draw_tables
from rise_ops.tensor_sketch import TensorTables, draw_tensor_tables
from tasks.backbone import Backbone
from tasks.signature_config import (
    PrincipalProjection,
    SeparableSketch,
    SignatureConfig,
    Sketch,
    TensorSketch,
)


def load_tables(sketch: Sketch, arrays: Mapping[str, np.ndarray]) -> ProjectionTables:
    """Return the tables of a sketch from the arrays that they were stored as.

    Raises:
        ValueError: An array is missing, or cannot be such a table.
    """
    if isinstance(sketch, SeparableSketch):
        return SketchTables.from_arrays(arrays)
    if isinstance(sketch, PrincipalProjection):
        return PrincipalTables.from_arrays(arrays)
    return TensorTables.from_arrays(arrays)


def input_sizes(backbone: Backbone, sketch: Sketch) -> TableSizes:
    """Return vocabulary, hidden and embedding size of a model, as a sketch's tables are for.

    Raises:
        ValueError: The sketch keeps more directions than the model has.
    """
    sizes = TableSizes(
        residual=backbone.head.vocab_size,
        hidden=backbone.head.hidden_size,
        projected=backbone.embedding(sketch.embedding).shape[1],
    )
    if isinstance(sketch, PrincipalProjection):
        for field, size in (("hidden_dim", sizes.hidden), ("projected_dim", sizes.projected)):
            if getattr(sketch, field) > size:
                raise ValueError(
                    f"signature.sketch.{field} is {getattr(sketch, field)}, but {backbone.name} "
                    f"has {size} directions there. Lower it to {size} or less, or use preset "
                    "'paper', which fits any model."
                )
    return sizes


def make_tables(sketch: Sketch, sizes: TableSizes, moments: Moments | None) -> ProjectionTables:
    """Draw or calibrate the tables of a sketch.

    Args:
        sketch: Kind, sizes and seed.
        sizes: From `input_sizes`.
        moments: Of the calibration sample; None for a sketch that is not calibrated.

    Raises:
        ValueError: A calibrated sketch got no moments, or such that no directions follow.
    """
    if isinstance(sketch, SeparableSketch):
        dims = TableSizes(
            residual=sketch.residual_dim, hidden=sketch.hidden_dim, projected=sketch.projected_dim
        )
        return draw_tables(sizes, dims, seed=sketch.seed)
    if sketch.is_calibrated and moments is None:
        raise ValueError(f"a {sketch.kind} sketch needs moments of a calibration sample.")
    if isinstance(sketch, TensorSketch):
        return _tensor_tables(sketch, sizes, moments)
    return principal_tables(
        moments or Moments(),
        PrincipalSettings(
            hidden_dim=sketch.hidden_dim,
            projected_dim=sketch.projected_dim,
            residual_dim=sketch.residual_dim,
            whiten=sketch.whiten,
            damping=sketch.damping,
        ),
        residual_sketch=measuring_tables(sketch, sizes).residual,
    )


def measuring_tables(sketch: Sketch, sizes: TableSizes) -> SketchTables:
    """Return the tables that change nothing but a residual, which is too long for moments."""
    n_buckets = sketch.residual_buckets if isinstance(sketch, PrincipalProjection) else 1
    return plain_tables(
        sizes.residual, sizes.hidden, sizes.projected, residual_dim=n_buckets, seed=sketch.seed
    )


def measuring_signature(signature: SignatureConfig) -> SignatureConfig:
    """Return the settings that moments are measured with: those factors that have directions."""
    sketch = signature.sketch
    if not isinstance(sketch, TensorSketch):
        return signature
    # of a tensor sketch only the hidden state is whitened; the cheapest channel that has it
    weights = {"residual_weight": 0.0, "projected_weight": 1.0, "cross_weight": 0.0}
    return signature.model_copy(update={"sketch": sketch.model_copy(update=weights)})


def _tensor_tables(
    sketch: TensorSketch, sizes: TableSizes, moments: Moments | None
) -> TensorTables:
    dims = {
        "residual_hidden": (sketch.residual_weight, sketch.residual_hidden_dim),
        "projected_hidden": (sketch.projected_weight, sketch.projected_hidden_dim),
        "residual_projected": (sketch.cross_weight, sketch.residual_projected_dim),
    }
    whitening = None
    if sketch.whiten == "hidden" and moments is not None:
        whitening = principal_basis(
            moments.second_moment("hidden"),
            n_directions=sizes.hidden,
            whiten=True,
            damping=sketch.damping,
        )
    return draw_tensor_tables(
        sizes,
        {channel: dim for channel, (weight, dim) in dims.items() if weight > 0.0},
        seed=sketch.seed,
        whitening=whitening,
    )
