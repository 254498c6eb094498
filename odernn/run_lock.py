"""The lock on a run directory: one writer at a time."""

from __future__ import annotations

import contextlib
import os
import socket
import warnings
from datetime import datetime
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"


class RunLock:
    """A file in the directory that names its holder, locked in the kernel: the lock ends with the process, however it ends.

    Not the `filelock` package: it keeps no holder's name, leaves its file behind, and on file systems without locks falls back to
    one that a killed process holds for ever.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / LOCK
        self._descriptor: int | None = None
        self._depth = 0

    def acquire(self) -> None:
        """Takes the lock, or takes it once more.

        Raises:
            ValueError: another holds it; names the holder.
            OSError: the directory cannot be written.
        """
        if self._depth == 0:
            self._descriptor = self._lock()
            _HELD.add(self)
        self._depth += 1

    def release(self) -> None:
        """Gives back one `acquire`."""
        self._depth = max(self._depth - 1, 0)  # 0 already in a child that was forked in between
        if self._depth or self._descriptor is None:
            return
        if self.stands():
            with contextlib.suppress(OSError):
                self.path.unlink()
        self._close()

    @property
    def held(self) -> bool:
        return self._depth > 0

    def stands(self) -> bool:
        """Whether the lock is held and its file still the one in the directory: neither removed nor replaced."""
        if self._descriptor is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self.path))
        except OSError:
            return False

    def _lock(self) -> int:
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _lock_in_kernel(descriptor, self.path)
                self._descriptor = descriptor
                # The holder before may have removed the file between our open and our lock.
                if self.stands():
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {_now()}".encode())
                    return descriptor
            except BlockingIOError:
                holder = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
                os.close(descriptor)
                raise ValueError(
                    f"{self.path.parent} is being written by {holder}: wait for it, stop it, or choose another --out"
                ) from None
            except BaseException:
                self._descriptor = None
                os.close(descriptor)
                raise
            self._close()

    def _close(self) -> None:
        _HELD.discard(self)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


_HELD: set[RunLock] = set()


def _leave_to_the_parent() -> None:
    """In a forked child: its copies of the descriptors would keep the locks after the parent has ended."""
    for lock in list(_HELD):
        lock._close()
        lock._depth = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_the_parent)


def _lock_in_kernel(descriptor: int, path: Path) -> None:
    """Raises BlockingIOError where another holds it."""
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:  # some network file systems have no locks
        warnings.warn(f"{path.parent} cannot be locked ({error.strerror}): let no second process write there", stacklevel=2)


def _now() -> str:
    return f"{datetime.now():%Y-%m-%d %H:%M:%S}"
