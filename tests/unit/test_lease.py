"""Leases: one holder at a time, waiting, refusal, takeover of the dead, nothing after a loss."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from child import TESTS

from storage import lease_owner
from storage.errors import BusyError, LeaseLostError, StorageError
from storage.lease import Lease, Patience, Waiting, held, hold, holder_of, with_patience
from storage.lease_backend import FileBackend
from storage.lease_holder import Holder, Pulse
from storage.lease_owner import Owner, this_process

QUICK = Pulse(beat_seconds=0.05, expires_seconds=0.4)
STILL = Pulse(beat_seconds=60.0, expires_seconds=0.4)
"""Of a holder that shows no sign of life for as long as a test takes."""

HOLDER = """
import sys, time
from pathlib import Path
from storage.lease import hold
with hold(Path(sys.argv[1]), what="it"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(name="path")
def lease_path(tmp_path: Path) -> Path:
    return tmp_path / "store" / "thing" / ".lease.json"


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Make this process seem to run on a machine of another name."""

    def move(name: str) -> None:
        for module in (lease_owner,):
            monkeypatch.setattr(module, "this_machine", lambda: name)

    return move


def holding_child(path: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent)}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_one_holds_and_says_who_it_is_and_leaves_nothing(path: Path) -> None:
    with hold(path, what="index 'main'") as lease:
        body = json.loads(path.read_text())
        assert body["owner"]["pid"] == os.getpid()
        assert (body["format"], body["what"]) == ("rise-lease", "index 'main'")
        assert held(path, what="it") is lease
        lease.check()
        lease.fence.check()
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert list(path.parent.iterdir()) == []
    assert holder_of(path) is None
    with pytest.raises(ValueError, match="without its lease"):
        held(path, what="it")


def test_of_many_at_once_one_is_in(path: Path) -> None:
    inside, most, refused = 0, 0, 0
    one_at_a_time = threading.Lock()

    def work() -> None:
        nonlocal inside, most, refused
        try:
            with hold(path, what="it", wait_seconds=0.0):
                with one_at_a_time:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.02)
                with one_at_a_time:
                    inside -= 1
        except BusyError:
            with one_at_a_time:
                refused += 1

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert refused > 0


def test_the_second_is_refused_with_who_where_since_and_what_to_do(path: Path) -> None:
    with holding_child(path) as process:
        try:
            with pytest.raises(BusyError) as refusal, hold(path, what="index 'main'"):
                pass
        finally:
            process.kill()
    text = str(refusal.value)
    me = this_process()
    assert text.startswith(f"index 'main' is being written by {me.user}@{me.host} (process ")
    for part in (
        f"process {process.pid}: -c",
        " since 20",
        " UTC, last sign of life 0 s ago",
        f"`kill {process.pid}` on {me.host}",
        "runtime.wait_seconds",
        str(path),
    ):
        assert part in text
    assert "Waited" not in text


def test_the_second_waits_says_for_whom_and_comes_next(path: Path) -> None:
    told: list[Waiting] = []
    with hold(path, what="it", wait_seconds=0):
        first = holder_of(path)
        taken = threading.Event()

        def second() -> None:
            patience = Patience(10.0, told.append, run="refresh-main")
            with with_patience(patience), hold(path, what="it"):
                taken.set()

        thread = threading.Thread(target=second)
        thread.start()
        while not told:
            time.sleep(0.01)
        assert not taken.is_set()
    thread.join(10)
    assert taken.is_set()
    assert first is not None
    assert {one.holder.token for one in told} == {first.token}
    assert str(told[0]).startswith(f"it is being written by {this_process()}")


def test_patience_ends_and_says_how_long_it_was(path: Path) -> None:
    with holding_child(path) as process:
        try:
            with (
                pytest.raises(BusyError, match=r"Waited [1-9] s for it\."),
                hold(path, what="it", wait_seconds=1.0),
            ):
                pass
        finally:
            process.kill()


def test_whoever_waits_for_itself_is_told_at_once(path: Path) -> None:
    with (
        hold(path, what="it"),
        pytest.raises(BusyError, match="by this very call"),
        hold(path, what="it", wait_seconds=3600.0),
    ):
        pass


def test_a_killed_holder_is_followed_at_once_and_that_is_said(path: Path) -> None:
    said: list[str] = []
    with holding_child(path) as process:
        process.kill()
        # a zombie is dead as well: it stays one until its status is asked for
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with with_patience(Patience(say=said.append)), hold(path, what="it") as lease:
            lease.check()
    assert len(said) == 1
    assert f"process {process.pid}" in said[0]
    assert said[0].endswith("is taken over: its process has ended.")


def test_a_process_number_that_was_given_again_is_another_process() -> None:
    me = this_process()
    assert me.is_me
    assert not me.is_gone()
    before = Owner(**{**me.as_dict(), "started": "1"})
    assert before.is_gone()
    assert not before.is_me
    far = Owner(**{**before.as_dict(), "machine": "another"})
    assert not far.is_gone()  # that cannot be known


def test_a_stopped_holder_of_this_machine_is_not_taken_for_dead(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with holding_child(path) as process:
        monkeypatch.setattr(Holder, "silent_seconds", 3600.0)
        try:
            with (
                pytest.raises(BusyError, match="last sign of life 3600 s ago"),
                hold(path, what="it"),
            ):
                pass
        finally:
            process.kill()


def test_a_silent_holder_of_another_machine_is_followed_and_notices(
    path: Path, elsewhere: Callable[[str], None]
) -> None:
    elsewhere("sleeper")
    said: list[str] = []
    with hold(path, what="index 'main'", pulse=STILL) as first:
        first.check()
        elsewhere("other")
        time.sleep(0.5)
        with with_patience(Patience(say=said.append)), hold(path, what="index 'main'") as second:
            second.check()
            for check in (first.check, first.fence.check):
                with pytest.raises(LeaseLostError, match=r"lost its lease.* written by"):
                    check()
    assert "no sign of life for more than 0.4 s" in said[0]
    assert holder_of(path) is None
    with pytest.raises(LeaseLostError, match="nobody holds it now"):
        first.fence.check()


def test_a_beating_holder_of_another_machine_is_waited_for_whatever_the_clocks_say(
    path: Path, elsewhere: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere("first")
    with hold(path, what="it", pulse=QUICK) as first:
        elsewhere("second")
        # the clocks of the two machines are an hour apart
        monkeypatch.setattr(Holder, "silent_seconds", 3600.0)
        with (
            pytest.raises(BusyError, match="it is being written by"),
            hold(path, what="it", wait_seconds=1.0),
        ):
            pass
        first.check()
        assert first.holder.n_beats > 5


def test_a_lease_that_cannot_be_read_expires(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.mkdir(parents=True)
    path.write_text('{"format": "rise-le')
    monkeypatch.setattr("storage.lease_holder.STEADY", STILL)
    with hold(path, what="it", wait_seconds=0.0) as lease:
        lease.check()
    assert list(path.parent.iterdir()) == []


def test_a_lease_that_this_process_left_behind_does_not_block_it(path: Path) -> None:
    with hold(path, what="it"):
        left = path.read_bytes()
    path.write_bytes(left)
    with hold(path, what="it") as lease:
        lease.check()


def test_a_holder_whose_lease_was_deleted_stops_and_deletes_nobody_elses(path: Path) -> None:
    with hold(path, what="it") as lease:
        other = path.read_bytes().replace(lease.holder.token.encode(), b"0" * 32)
        path.write_bytes(other)
        with pytest.raises(LeaseLostError):
            lease.check()
    assert path.read_bytes() == other


def test_a_lease_that_cannot_be_renewed_says_so_and_is_kept_until_it_can(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hold(path, what="it", pulse=QUICK) as lease:
        with monkeypatch.context() as patched:

            def fail(*_: object) -> bool:
                raise StorageError("the disk is full")

            patched.setattr(FileBackend, "replace_if", fail)
            time.sleep(0.2)
            with pytest.raises(StorageError, match="disk is full"):
                lease.check()
        lease.check()


def test_a_file_changes_only_for_who_knows_its_tag(tmp_path: Path) -> None:
    backend = FileBackend(tmp_path / "folder" / "lease")
    assert backend.read() is None
    assert not backend.replace_if("0", b"x")
    assert not backend.delete_if("0")
    assert backend.create_if_absent(b"one")
    assert not backend.create_if_absent(b"two")
    data, tag = backend.read() or (b"", "")
    assert data == b"one"
    assert backend.replace_if(tag, b"two")
    assert not backend.replace_if(tag, b"three")
    assert not backend.delete_if(tag)
    data, tag = backend.read() or (b"", "")
    assert (data, backend.delete_if(tag), backend.read()) == (b"two", True, None)
    assert list((tmp_path / "folder").iterdir()) == []


def test_whoever_is_interrupted_while_it_takes_a_lease_leaves_none(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupt)
    with pytest.raises(KeyboardInterrupt), hold(path, what="it"):
        pass
    assert list(path.parent.iterdir()) == []


def test_whoever_waited_holds_since_it_got_the_lease(path: Path) -> None:
    begun = threading.Event()
    with hold(path, what="it", wait_seconds=0.0):

        def second() -> None:
            with hold(path, what="it", wait_seconds=10.0, on_wait=lambda _: begun.set()) as lease:
                since.append(lease.holder.since)

        since: list[float] = []
        thread = threading.Thread(target=second)
        thread.start()
        begun.wait(10)
        time.sleep(0.2)
        ended = time.time()
    thread.join(10)
    assert since[0] >= ended


def test_a_fork_holds_nothing(path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from storage.lease import *\n"
        "path = Path(sys.argv[1])\n"
        "with hold(path, what='it'):\n"
        "    if os.fork() == 0:\n"
        "        try: held(path, what='it')\n"
        "        except ValueError: os._exit(0)\n"
        "        os._exit(1)\n"
        "    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(TESTS.parent)}
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout == "0\n", done.stderr


def test_a_lease_in_a_copy_of_its_folder_is_nobodys_though_its_holder_lives(path: Path) -> None:
    said: list[str] = []
    with holding_child(path) as process:
        try:
            copied = path.parents[1] / "copy"
            shutil.copytree(path.parent, copied)
            link = path.parents[1] / "link"
            link.symlink_to(path.parent.name)
            with (
                with_patience(Patience(say=said.append)),
                hold(copied / path.name, what="it") as lease,
            ):
                lease.check()
            with pytest.raises(BusyError), hold(link / path.name, what="it"):
                pass  # another way to the same folder is no copy
        finally:
            process.kill()
    assert "it is a copy" in said[0]


def test_a_lease_is_taken_where_files_have_one_name_only(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    with hold(path, what="it") as lease:
        lease.check()
        assert not FileBackend(path).create_if_absent(b"another")
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    assert list(path.parent.iterdir()) == []


def test_whoever_is_interrupted_twice_does_not_keep_itself_out(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt), hold(path, what="it"):
        patched.setattr(Lease, "release", interrupt)
    assert path.exists()
    with hold(path, what="it") as lease:
        lease.check()
