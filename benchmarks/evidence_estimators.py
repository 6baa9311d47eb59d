"""Which estimators does the evidence compare? Settings only, no arithmetic.

`paper` is the paper's; `compact` the project's default: principal directions of the projected error
and the hidden state, lightly whitened, temperature 1 without the tail of the probability, gradient
weighting, few bits. Every difference between the two is switched on alone, from `paper` up and from
`compact` down, and what `compact` was chosen from stands beside it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from rise_ops.principal import PrincipalSettings
from rise_ops.signature import SignatureSettings

CALIBRATION_TOKENS = 20_000
CALIBRATION_SIZES = (200, 500, 2_000, 50_000)
SEEDS = (0, 1, 2)
TEMPERATURES = (0.1, 0.5, 0.8)
MASSES = (0.6, 0.7, 0.9, 0.92, 1.0)
DAMPINGS = (0.1, 1.0, 10.0, 30.0)
CHOICE = "compact, how it was chosen"
RESIDUAL_SKETCH = 1_024
"""Numbers of the count-sketched residual that a principal basis of the residual is made from."""

PAPER = SignatureSettings()
SMALL = replace(PAPER, residual_weight=0.7, projected_weight=1.0)
DAMPING = 3.0
COMPACT = SignatureSettings(
    temperature=1.0,
    top_k=64,
    mass=0.8,
    residual_weight=0.0,
    projected_weight=1.0,
    weighting="gradient",
)


@dataclass(frozen=True)
class Separable:
    """Outer products of count sketches; `whiten`: of the hidden state whitened in full before."""

    residual: int = 128
    hidden: int = 128
    projected: int = 64
    whiten: bool = False


@dataclass(frozen=True)
class Tensor:
    """A tensor sketch; numbers of each channel."""

    residual_hidden: int
    projected_hidden: int
    whiten: bool = False


@dataclass(frozen=True)
class Estimator:
    """One way to make and to keep signatures.

    `calibration` is the pool whose rows calibrate ("own": the task's). `seed` draws what is random:
    sketch tables, and which rows calibrate.
    """

    name: str
    group: str
    settings: SignatureSettings
    projection: Separable | Tensor | PrincipalSettings
    code: Literal["float16", "int8", "sign"] = "float16"
    seed: int = 0
    calibration: str = "own"
    calibration_tokens: int = CALIBRATION_TOKENS
    positions: Literal["all", "completion"] = field(default="all")


def principal(
    projected: int, hidden: int, whiten: str = "hidden", damping: float = DAMPING
) -> PrincipalSettings:
    """Return principal settings of a GH channel."""
    return PrincipalSettings(
        hidden_dim=hidden,
        projected_dim=projected,
        whiten=whiten,  # type: ignore[arg-type]
        damping=damping,
    )


SIZES = (
    ("256 B", principal(64, 32), "sign"),
    ("512 B", principal(64, 64), "sign"),
    ("2 KiB", principal(128, 128), "sign"),
    ("8 KiB", principal(128, 64, "both"), "int8"),
    ("16 KiB", principal(256, 64, "both"), "int8"),
)
"""The presets of `compact`: name, projection, code."""


def estimators(pools: tuple[str, ...]) -> Iterator[Estimator]:
    """Yield every estimator; those of one temperature and mass stand together (speed only)."""
    yield from _paper()
    yield from _from_paper()
    yield from _compact()
    yield from _from_compact()
    yield from _by_temperature()
    yield from _around_compact()
    yield from _calibrations(pools)


def _paper() -> Iterator[Estimator]:
    sizes = (
        ("paper, 24,576 numbers", PAPER, Separable()),
        ("paper, 4,096 numbers", SMALL, Separable(48, 64, 16)),
        ("paper, 352 numbers", SMALL, Separable(16, 8, 28)),
    )
    for seed in SEEDS:
        for name, settings, projection in sizes:
            yield Estimator(name, "main", settings, projection, seed=seed)


def _from_paper() -> Iterator[Estimator]:
    group = "paper, one change"

    def changed(name: str, projection=None, code="float16", **settings) -> Iterator[Estimator]:
        changed_settings = replace(PAPER, **settings)
        for seed in SEEDS:
            yield Estimator(
                name, group, changed_settings, projection or Separable(), code=code, seed=seed
            )

    yield from changed("sign code, rotated", code="sign")
    yield from changed("int8 code, rotated", code="int8")
    yield from changed("hidden state whitened", Separable(whiten=True))
    yield from changed("GH channel alone", residual_weight=0.0, projected_weight=1.0)
    yield from changed("gradient weighting", weighting="gradient")
    bases = PrincipalSettings(128, 64, 128, whiten="none")
    yield from changed("principal projection, same sizes", bases)
    whitened = PrincipalSettings(128, 64, 128, whiten="hidden")
    yield from changed("principal projection, hidden state whitened", whitened)
    yield from changed("temperature 0.5", temperature=0.5)
    yield from changed("temperature 1", temperature=1.0)
    yield from changed("temperature 1, mass 1", temperature=1.0, mass=1.0)
    for seed in SEEDS:
        sketch = Tensor(residual_hidden=3_072, projected_hidden=1_024)
        yield Estimator("tensor sketch, 4,096 numbers", group, SMALL, sketch, seed=seed)


def _compact() -> Iterator[Estimator]:
    for seed in SEEDS:
        for name, projection, code in SIZES:
            called = f"compact, {name}"
            yield Estimator(called, "main", COMPACT, projection, code=code, seed=seed)  # type: ignore[arg-type]


def _from_compact() -> Iterator[Estimator]:
    def changed(name: str, projection=None, code="sign", **settings) -> Estimator:
        return Estimator(
            name,
            "compact 512 B, one change",
            replace(COMPACT, **settings),
            projection or principal(64, 64),
            code=code,
        )

    yield changed("float16 code", code="float16")
    yield changed("int8 code", code="int8")
    for code in ("sign", "float16"):
        yield changed(f"nothing whitened, {code}", principal(64, 64, "none"), code)
        yield changed(f"g whitened too, {code}", principal(64, 64, "both"), code)
        yield changed(f"g whitened, h not, {code}", principal(64, 64, "projected"), code)
    yield changed("32 x 64 directions (256 B)", principal(32, 64))
    yield changed("32 x 128 directions", principal(32, 128))
    yield changed("128 x 32 directions", principal(128, 32))
    yield changed("64 x 128 directions (1 KiB)", principal(64, 128))
    yield changed("128 x 64 directions (1 KiB)", principal(128, 64))
    yield changed("256 x 64 directions (2 KiB)", principal(256, 64))
    yield changed("64 x 128, both whitened, int8 (8 KiB)", principal(64, 128, "both"), "int8")
    for seed in SEEDS:
        yield replace(changed("support 256", top_k=256), seed=seed)
    yield changed("support 256, mass 1", top_k=256, mass=1.0)
    yield Estimator(
        "prompts of rows masked",
        "compact 512 B, one change",
        COMPACT,
        principal(64, 64),
        code="sign",
        positions="completion",
    )
    yield changed("unit weighting", weighting="unit")
    with_rh = PrincipalSettings(64, 64, 64, damping=DAMPING)
    for code in ("sign", "float16"):
        yield changed(
            f"RH 64 x 64 beside it, weight 0.5, {code}", with_rh, code, residual_weight=0.5
        )
    for seed in SEEDS:
        random_gh = Separable(16, 64, 64)
        yield replace(changed("random projection (rotated)", random_gh), seed=seed)
        yield replace(
            changed("random projection, h whitened (rotated)", replace(random_gh, whiten=True)),
            seed=seed,
        )


def _by_temperature() -> Iterator[Estimator]:
    for temperature in TEMPERATURES:
        settings = replace(COMPACT, temperature=temperature)
        for name, projection, code in SIZES[1:]:
            called = f"{name}, temperature {temperature:g}"
            yield Estimator(called, "compact by temperature", settings, projection, code=code)  # type: ignore[arg-type]


def _around_compact() -> Iterator[Estimator]:
    sizes = {name: (projection, code) for name, projection, code in SIZES}
    for mass in MASSES:
        settings = replace(COMPACT, mass=mass)
        for size in ("512 B", "16 KiB"):
            projection, code = sizes[size]
            yield Estimator(f"{size}, mass {mass:g}", CHOICE, settings, projection, code=code)  # type: ignore[arg-type]
    for damping in DAMPINGS:
        for size in ("512 B", "16 KiB"):
            projection, code = sizes[size]
            other, name = replace(projection, damping=damping), f"{size}, damping {damping:g}"
            yield Estimator(name, CHOICE, COMPACT, other, code=code)  # type: ignore[arg-type]
    projection, code = sizes["16 KiB"]
    wide, name = replace(COMPACT, top_k=256), "16 KiB, support 256"
    for seed in SEEDS:
        yield Estimator(name, CHOICE, wide, projection, code=code, seed=seed)  # type: ignore[arg-type]


def _calibrations(pools: tuple[str, ...]) -> Iterator[Estimator]:
    base = Estimator("", "calibration", COMPACT, principal(64, 64), code="sign")
    for tokens in CALIBRATION_SIZES:
        for seed in SEEDS:
            name = f"{tokens:,} positions"
            yield replace(base, name=name, calibration_tokens=tokens, seed=seed)
    for pool in pools:
        yield replace(base, name=f"on {pool}", calibration=pool)
