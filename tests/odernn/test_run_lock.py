from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from odernn.run_lock import LOCK, RunLock

HOLDER = """
import sys, time
from pathlib import Path
from odernn.run_lock import RunLock
RunLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_held_lock_names_its_holder_and_ends_with_it(tmp_path, holder):
    lock = RunLock(tmp_path)
    with pytest.raises(ValueError, match=f"process {holder.pid} on .* wait for it, stop it"):
        lock.acquire()
    assert not lock.held
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    lock.acquire()
    assert lock.stands()
    lock.release()
    assert not (tmp_path / LOCK).exists()


def test_two_objects_of_one_process_exclude_each_other(tmp_path):
    first, second = RunLock(tmp_path), RunLock(tmp_path)
    first.acquire()
    first.acquire()
    first.release()
    with pytest.raises(ValueError, match=f"process {os.getpid()}"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_a_lock_whose_file_was_removed_or_replaced_stands_no_more(tmp_path):
    lock = RunLock(tmp_path)
    lock.acquire()
    (tmp_path / LOCK).unlink()
    assert not lock.stands()
    other = RunLock(tmp_path)
    other.acquire()
    lock.release()
    assert other.stands()  # the file of the other is not removed
    other.release()


def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            lock = RunLock(tmp_path)
            lock.acquire()
            if (grandchild := os.fork()) == 0:
                time.sleep(30)
                os._exit(0)
            os.write(writing, str(grandchild).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    grandchild = int(os.read(reading, 20))
    try:
        lock = RunLock(tmp_path)
        lock.acquire()
        lock.release()
    finally:
        os.kill(grandchild, signal.SIGKILL)


def test_a_file_system_without_locks_is_written_with_a_warning(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)
    lock = RunLock(tmp_path)
    with pytest.warns(UserWarning, match="No locks available"):
        lock.acquire()
    lock.release()
