"""Which process has which GPU: claims are locks, so they end with whoever holds them."""

from pathlib import Path

import pytest

from tasks import backbone, devices
from tasks.devices import claim_device, claim_one


def test_things_are_claimed_one_each_and_then_evenly(tmp_path: Path):
    held = [claim_one(["gpu-a", "gpu-b"], tmp_path) for _ in range(5)]
    assert [number for number, _ in held] == [0, 1, 0, 1, 0]
    held[1][1].close()  # whoever had the second one ends
    again = claim_one(["gpu-a", "gpu-b"], tmp_path)
    assert again[0] == 1
    other_order = claim_one(["gpu-c", "gpu-a"], tmp_path)
    assert other_order[0] == 0, "names count, not places"
    for _, file in (*held, again, other_order):
        file.close()


def test_a_named_device_is_not_claimed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(devices, "claim_one", lambda *_: pytest.fail("claimed"))
    for device in ("cpu", "cuda:1", "mps"):
        claim_device(device)
    assert devices.claimed_device() is None


def test_in_a_worker_auto_means_what_it_has_claimed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backbone, "claimed_device", lambda: "cuda:3")
    assert backbone.resolve_device("auto") == "cuda:3"
    assert backbone.resolve_device("cuda") == "cuda:3"
    assert backbone.resolve_device("cpu") == "cpu"
