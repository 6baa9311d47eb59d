import json
import pickle
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import tiny_gguf, tiny_model
from transformers.models.auto import AutoModelForCausalLM

from storage.files import exclusive_lock, file_sha256
from tasks import models
from tasks.backbone import load_tokenizer
from tasks.config import ModelConfig
from tasks.models import (
    REGISTRY,
    RegistryModel,
    cache_folder,
    fetch_model,
    list_models,
    model_fingerprint,
    resolve_model,
    weight_files,
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RISE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("qwen")
    model = tiny_model(folder / "model", "qwen-2")
    return model, tiny_gguf(folder / "tiny.gguf", model)


@pytest.fixture
def tiny_registry(
    qwen: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[RegistryModel, Path]:
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(qwen[1], "tiny/tiny.gguf")
    entry = RegistryModel(
        name="tiny",
        requirement="tiny==1.0",
        wheel_sha256=file_sha256(wheel),
        gguf_in_wheel="tiny/tiny.gguf",
        n_parameters=1,
        download_bytes=1,
        license="none",
        about="",
    )
    monkeypatch.setitem(REGISTRY, "tiny", entry)
    return entry, wheel


def test_listing_needs_no_torch(home: Path):
    code = "import sys; from tasks.models import list_models; list_models(); "
    code += "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_listing_says_what_is_fetched(home: Path):
    assert [listing.fetched for listing in list_models()] == [False]
    (cache_folder() / "models" / "smollm2-135m-instruct").mkdir(parents=True)
    assert list_models()[0].folder == home / "models" / "smollm2-135m-instruct"


def test_unknown_name_lists_what_was_tried(home: Path):
    with pytest.raises(ValueError, match="registry") as caught:
        resolve_model(ModelConfig(name="nobody/nothing"))
    for tried in ("smollm2-135m-instruct", "nobody/nothing", "Hugging Face cache", "online: false"):
        assert tried in str(caught.value)


def test_registry_name_that_is_not_fetched_says_how(home: Path):
    with pytest.raises(ValueError, match="rise models fetch smollm2-135m-instruct"):
        resolve_model(ModelConfig())


def test_folder_resolves_to_itself(tiny_llama: Path):
    assert resolve_model(ModelConfig(name=str(tiny_llama))).path == tiny_llama


def test_folder_without_config_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"config\.json"):
        resolve_model(ModelConfig(name=str(tmp_path)))


def test_hub_id_resolves_from_the_local_cache(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repository, revision = tmp_path / "models--somebody--tiny", "0" * 40
    shutil.copytree(tiny_llama, repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    resolved = resolve_model(ModelConfig(name="somebody/tiny"))
    assert resolved.path == repository / "snapshots" / revision
    assert resolved.revision == revision
    assert resolve_model(ModelConfig(name="somebody/tiny", revision=revision)) == resolved
    with pytest.raises(ValueError, match="no model 'somebody/tiny'"):
        resolve_model(ModelConfig(name="somebody/tiny", revision="other"))


def test_pickled_weights_are_refused_and_not_opened(tiny_llama: Path, tmp_path: Path):
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "exploded",))

    folder = tmp_path / "model"
    shutil.copytree(tiny_llama, folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="safetensors or GGUF only"):
        resolve_model(ModelConfig(name=str(folder)))
    assert not (tmp_path / "exploded").exists()


def test_missing_part_of_the_weights_is_named(tmp_path: Path):
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "model-1.safetensors").touch()
    with pytest.raises(ValueError, match=r"model-2\.safetensors"):
        weight_files(tmp_path)


def test_fingerprint_follows_content_not_place(tiny_llama: Path, tmp_path: Path):
    moved = tmp_path / "moved"
    shutil.copytree(tiny_llama, moved)
    config = json.loads((moved / "config.json").read_text())
    config |= {"_name_or_path": "elsewhere", "transformers_version": "0"}
    (moved / "config.json").write_text(json.dumps(config))
    assert model_fingerprint(moved) == model_fingerprint(tiny_llama)

    config["rms_norm_eps"] = 1e-3
    (moved / "config.json").write_text(json.dumps(config))
    assert model_fingerprint(moved) != model_fingerprint(tiny_llama)


def test_fingerprint_sees_one_changed_byte(tiny_llama: Path, tmp_path: Path):
    changed = tmp_path / "changed"
    shutil.copytree(tiny_llama, changed)
    assert model_fingerprint(changed) == model_fingerprint(tiny_llama)
    weights = changed / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert model_fingerprint(changed) != model_fingerprint(tiny_llama)


def test_gguf_is_converted_once_without_loss(home: Path, qwen: tuple[Path, Path]):
    original, gguf = qwen
    resolved = resolve_model(ModelConfig(name=str(gguf)))
    weights = resolved.path / "model.safetensors"
    written = weights.stat().st_mtime_ns
    assert resolve_model(ModelConfig(name=str(gguf))).path == resolved.path
    assert weights.stat().st_mtime_ns == written

    ids = torch.arange(2, 40)[None]
    logits = [
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(ids).logits
        for folder in (original, resolved.path)
    ]
    assert torch.equal(logits[0], logits[1])
    text = "The quick brown fox, 12 dogs"
    rows = [
        load_tokenizer(ModelConfig(name=str(folder))).encode([text], [0])[0]
        for folder in (original, resolved.path)
    ]
    assert rows[0].ids.tolist() == rows[1].ids.tolist()


def test_a_converted_gguf_is_found_while_another_process_holds_the_lock(
    home: Path, qwen: tuple[Path, Path]
):
    config = ModelConfig(name=str(qwen[1]))
    folder = resolve_model(config).path
    with exclusive_lock(folder.with_name(f".{folder.name}.lock"), what="the test"):
        assert resolve_model(config).path == folder


def test_fetch_from_a_wheel_then_resolve_by_name(
    home: Path, tiny_registry: tuple[RegistryModel, Path], capfd: pytest.CaptureFixture[str]
):
    entry, wheel = tiny_registry
    folder = fetch_model("tiny", wheel=wheel)
    assert resolve_model(ModelConfig(name="tiny")).path == folder
    about = json.loads((folder / "model.json").read_text())
    assert about["wheel_sha256"] == entry.wheel_sha256
    assert about["package"] == "tiny==1.0"
    assert fetch_model("tiny") == folder
    assert capfd.readouterr() == ("", "")


def test_other_package_of_the_same_name_is_refused(
    home: Path, tiny_registry: tuple[RegistryModel, Path], tmp_path: Path
):
    forged = tmp_path / "forged.whl"
    forged.write_bytes(tiny_registry[1].read_bytes() + b"x")
    with pytest.raises(ValueError, match="expected sha256"):
        fetch_model("tiny", wheel=forged)
    assert not (home / "models" / "tiny").exists()


def test_a_wheel_cannot_write_elsewhere(
    home: Path, tiny_registry: tuple[RegistryModel, Path], tmp_path: Path
):
    """Only the named member is taken out, and a name that climbs stays below the folder."""
    wheel, into = tmp_path / "hostile.whl", tmp_path / "a" / "b" / "into"
    into.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("../../escaped", "/escaped", "../../climbs.gguf"):
            archive.writestr(name, b"x")
    entry = replace(
        tiny_registry[0], wheel_sha256=file_sha256(wheel), gguf_in_wheel="../../climbs.gguf"
    )
    found = models._unpack(entry, wheel, into)
    assert found.resolve().is_relative_to(into.resolve())
    assert [path for path in (tmp_path / "a").rglob("*") if path.is_file()] == [found]
    assert not Path("/escaped").exists()


def test_interrupted_conversion_leaves_nothing(
    home: Path, tiny_registry: tuple[RegistryModel, Path], monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "write_json", fail)
    with pytest.raises(KeyboardInterrupt):
        fetch_model("tiny", wheel=tiny_registry[1])
    assert [p for p in (home / "models").iterdir() if p.is_dir()] == []


def test_failed_download_says_what_to_do(home: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(ConnectionError, match="--wheel"):
        fetch_model("smollm2-135m-instruct")


def test_unknown_registry_name(home: Path):
    with pytest.raises(ValueError, match="smollm2-135m-instruct"):
        fetch_model("nothing")
