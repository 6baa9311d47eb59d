"""A store in S3: written, read from another machine, killed in the middle, fought over."""

from pathlib import Path

import pytest
from refresh_samples import refresh, refresh_settings, rows, write_inbox_file

from storage.release_pointer import latest
from storage.releases import open_release
from tasks.catalog import list_store, verify_store


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def test_store_in_s3_is_the_store_on_disk(
    s3_bucket: str, tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_inbox_file(tmp_path / "inbox" / "a.jsonl", rows(0, 20))
    local = refresh_settings(tmp_path, tiny_llama)
    url = f"{s3_bucket}/team/store"
    remote = local.model_copy(update={"store": url})
    on_disk, in_s3 = refresh(local), refresh(remote)
    assert on_disk.release is not None
    assert in_s3.release is not None
    assert on_disk.release.ref.release_id == in_s3.release.ref.release_id
    monkeypatch.setenv("RISE_MIRROR", str(tmp_path / "another-machine"))
    assert verify_store(url) == []
    strip = [{k: v for k, v in line.items() if k != "created"} for line in list_store(url)]
    assert strip == [
        {k: v for k, v in line.items() if k != "created"} for line in list_store(local.store)
    ]
    ref = latest(url, "main")
    there, here = open_release(ref), open_release(latest(local.store, "main"))
    assert there.manifest == here.manifest
    assert there.rows() == here.rows()
    assert refresh(remote).outlook.nothing
