"""Compiled kernels kept on disk, where there is a place for them; what comes back damaged is compiled again.

Numba's own cache ends with a traceback where it finds no directory to write to, on a full disk and on a truncated file, and would
run code of which a bit has flipped, or code that was inlined from a file that has changed since.
"""

from __future__ import annotations

import hashlib
import logging
import pickle
import time
import warnings
from pathlib import Path
from typing import Any

from numba.core.caching import FunctionCache, IndexDataCacheFile

_DIGEST_BYTES = hashlib.sha256().digest_size


def keep_on_disk(dispatcher: Any) -> Any:
    """The compiled function, with a cache on disk if it can have one; warns once where it cannot."""
    try:
        dispatcher._cache = _Cache(dispatcher.py_func)
    except Exception as error:  # numba: RuntimeError without a place; OSError of a place that is none
        _say_once(error)
    return dispatcher


class _Cache(FunctionCache):
    def __init__(self, function: Any) -> None:
        super().__init__(function)
        self._cache_file = _CheckedFiles(
            self._cache_path, self._impl.filename_base, _source_stamp(Path(function.__code__.co_filename))
        )

        self._name, self._started = function.__name__, 0.0

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """None has it compiled, and then handed to `save_overload`."""
        found = None
        try:
            found = super().load_overload(sig, target_context)
        except Exception as error:
            _say_once(error)
        if found is None:
            self._started = time.perf_counter()
            _announce(self.cache_path)
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        _logger.warning("compiled %s in %.1f s", self._name, time.perf_counter() - self._started)
        try:
            super().save_overload(sig, data)
        except Exception as error:
            _say_once(error)


def _source_stamp(file: Path) -> str:
    """A hash of all source files of a folder: kernels inline functions of other files, and numba watches their own alone."""
    digest = hashlib.sha256()
    for source in sorted(file.parent.glob("*.py")):
        digest.update(source.name.encode() + b"\0" + hashlib.sha256(source.read_bytes()).digest())
    return digest.hexdigest()


class _CheckedFiles(IndexDataCacheFile):
    """Numba's files with a checksum in front: a file that is not what was written counts as missing, and is written anew."""

    def _load_index(self) -> dict[Any, str]:
        try:
            version, stamp, overloads = pickle.loads(_read(self._index_path))
        except (OSError, _Damaged):
            return {}
        return overloads if (version, stamp) == (self._version, self._source_stamp) else {}

    def _save_index(self, overloads: dict[Any, str]) -> None:
        self._write(self._index_path, pickle.dumps((self._version, self._source_stamp, overloads)))

    def _load_data(self, name: str) -> Any:
        try:
            return pickle.loads(_read(self._data_path(name)))
        except _Damaged as error:
            raise OSError(str(error)) from error  # for numba: as a file that has gone

    def _save_data(self, name: str, data: Any) -> None:
        self._write(self._data_path(name), self._dump(data))

    def _write(self, path: str, content: bytes) -> None:
        with self._open_for_write(path) as file:
            file.write(hashlib.sha256(content).digest() + content)


class _Damaged(ValueError):
    pass


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        content = file.read()
    digest, content = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(content).digest() != digest:
        raise _Damaged(path)
    return content


# Warnings are what a program shows that has set up no logging: a first run takes seconds longer than the next.
_logger = logging.getLogger("odernn")
_announced: list[bool] = []


def _announce(place: str) -> None:
    if not _announced:
        _announced.append(True)
        _logger.warning("compiling kernels for this machine (once; kept in %s)", place)


_said: list[bool] = []


def _say_once(error: Exception) -> None:
    if not _said:
        _said.append(True)
        reason = str(error).split("\n")[0] or type(error).__name__
        warnings.warn(
            f"there is no place to keep compiled kernels ({reason}): every process compiles them anew, which takes some ten "
            "seconds; set NUMBA_CACHE_DIR to a directory that can be written",
            RuntimeWarning,
            stacklevel=2,
        )
