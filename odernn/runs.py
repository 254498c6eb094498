"""Run directories: the files of a training, written atomically and verified when they are read.

config.json      what was asked for; enough to rebuild the experiment
metrics.csv      a row per epoch
checkpoint.pt    all that the run has come to after the last epoch: the other files but the config are made from it
best.pt          the weights with the best validation error
summary.json     what came out
training.png, memory.png

Every file is replaced atomically, what is read back carries a seal (`odernn.seals`), and one process writes at a time
(`odernn.run_lock`). Readers need no lock.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import json_values
from .run_lock import LOCK, RunLock
from .seals import Damaged, opened_json, opened_weights, sealed_json, sealed_weights
from .tables import csv_text

CONFIG, METRICS, CHECKPOINT, BEST, SUMMARY = "config.json", "metrics.csv", "checkpoint.pt", "best.pt", "summary.json"
PICTURES = ("training.png", "memory.png")
# In the order in which an old run makes room for a new one: what the others are made from goes last.
_RESULTS = (*PICTURES, SUMMARY, METRICS, BEST, CHECKPOINT)
_KIND = "odernn run"
# 1 had no seals.
_FORMAT, _UNSEALED_FORMAT = 2, 1
# Files that a killed writer of these leaves: '.best.pt.14142'.
_LEFTOVER = re.compile("|".join(rf"\.{re.escape(name)}\.\d+" for name in (CONFIG, *_RESULTS)))


class RunDirectory:
    """One run's files. A reader or a crash sees of each file the old one or the new one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = RunLock(path)

    @classmethod
    def create(cls, path: Path, config: dict[str, Any], *, overwrite: bool = False, hold: bool = False) -> RunDirectory:
        """Makes a new run directory and writes its config.

        A directory whose run was killed before its first checkpoint holds no run yet: it is taken over.

        Args:
            path: of the directory; its parents are made too.
            config: JSON values.
            overwrite: whether a run that stands there is removed.
            hold: whether the lock is kept, until `unlock`.

        Raises:
            ValueError: the path exists and is not empty (unless it is a run and `overwrite` is set), is being written by another
                process, or cannot be written.
        """
        run = cls(path)
        try:
            run._require_ours()  # before anything is made
            path.mkdir(parents=True, exist_ok=True)
            run.lock()
            try:
                run._require_ours()
                run._require_unused(config, overwrite)
                for name in _RESULTS:
                    (path / name).unlink(missing_ok=True)
                run.write_config(config)
            except BaseException:
                run.unlock()
                raise
        except OSError as error:
            raise ValueError(f"cannot write the run directory {path}: {error.strerror or error}: choose another --out") from error
        if not hold:
            run.unlock()
        return run

    @classmethod
    def create_beside(cls, path: Path, config: dict[str, Any], *, hold: bool = False) -> RunDirectory:
        """As `create`, in a directory that nobody had: `path`, or path-2, path-3, ... where that exists."""
        for number in itertools.count(1):
            new = path if number == 1 else path.with_name(f"{path.name}-{number}")
            try:
                new.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise ValueError(f"cannot make the run directory {new}: {error.strerror}: choose another --out") from error
            return cls.create(new, config, hold=hold)
        raise AssertionError

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """An existing run directory.

        Raises:
            ValueError: it is missing or not a run.
        """
        if not path.is_dir():
            raise ValueError(f"there is no run directory {path}: give the --out of an earlier run")
        run = cls(path)
        if run._kind() is not None:
            return run
        try:
            (path / CONFIG).open("rb").close()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise ValueError(f"cannot read {path / CONFIG}: {error.strerror}") from error
        if (path / CONFIG).exists() and any((path / name).exists() for name in (BEST, CHECKPOINT)):
            raise ValueError(f"{path / CONFIG} is damaged or not a config of odernn: put back the one that the run wrote")
        if not run._strangers():
            if (path / LOCK).exists():
                run.lock()  # says so where another process is about to write
                run.unlock()
            raise ValueError(f"{path} is not a run directory (nothing is written there yet): give the command of its run again")
        raise ValueError(f"{path} is not a run directory of odernn (no {CONFIG} of its kind): give the --out of a run")

    def lock(self) -> None:
        """Makes this the one writer of the directory until `unlock`, and removes what killed writers left.

        Raises:
            ValueError: another process writes there, or the directory cannot be written.
        """
        try:
            self._lock.acquire()
            try:
                for file in self.path.iterdir():
                    if _LEFTOVER.fullmatch(file.name):
                        file.unlink(missing_ok=True)
            except BaseException:
                self.unlock()
                raise
        except OSError as error:
            remedy = "mend that, then give the same command again"
            raise ValueError(f"cannot write in the run directory {self.path} ({error.strerror}): {remedy}") from error

    def unlock(self) -> None:
        self._lock.release()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """The lock for the time of a block; a holder may take it again."""
        self.lock()
        try:
            yield
        finally:
            self.unlock()

    def config(self) -> dict[str, Any]:
        """The config that was written last.

        Raises:
            ValueError: damaged, changed or of another version.
        """
        return self.config_and_seal()[0]

    def config_and_seal(self) -> tuple[dict[str, Any], bool]:
        """The config, and whether it had a seal: one without may have been edited by hand."""
        path = self.path / CONFIG
        try:
            config, sealed = opened_json(path.read_bytes())
        except Damaged as error:
            raise ValueError(f'{path} {error}: undo the change, or delete its entry "sha256" if the change is meant') from error
        except OSError as error:
            raise ValueError(f"cannot read {path}: {error.strerror}") from error
        written = config.get("format")
        if type(written) is not int or written not in (_FORMAT, _UNSEALED_FORMAT) or (written == _UNSEALED_FORMAT and sealed):
            raise ValueError(
                f"{self.path} was written in format {written!r}, this version reads {_UNSEALED_FORMAT} and {_FORMAT}"
            )
        return {key: value for key, value in config.items() if key not in ("kind", "format")}, sealed

    def write_config(self, config: dict[str, Any]) -> None:
        self._write(CONFIG, sealed_json({"kind": _KIND, "format": _FORMAT, **config}))

    def save_checkpoint(self, state: dict[str, Any], of: str | None = None) -> None:
        """Saves the state after an epoch, with the fingerprint of what it belongs to."""
        self._write(CHECKPOINT, sealed_weights(state, of))

    def load_checkpoint(self, of: str | None = None) -> dict[str, Any]:
        """The state after the last finished epoch.

        Raises:
            ValueError: missing, damaged, foreign, or not of `of`.
        """
        return self._load(CHECKPOINT, of, "start the run again")

    def save_best(self, weights: dict[str, Any], of: str | None = None) -> None:
        """Saves the weights with the best validation error, with the fingerprint of what they belong to."""
        self._write(BEST, sealed_weights(weights, of))

    def load_best(self, of: str | None = None) -> dict[str, Any]:
        """The weights with the best validation error; raises as `load_checkpoint`."""
        return self._load(BEST, of, f"restore it from {CHECKPOINT} with --resume {self.path}")

    def write_metrics(self, history: list[dict[str, float]]) -> None:
        """All rows so far, as CSV."""
        if not history:
            return
        self._write(METRICS, csv_text(history).encode())

    def write_summary(self, summary: dict[str, Any]) -> None:
        self._write(SUMMARY, (json_values.dumps(summary, indent=2) + "\n").encode())

    def files(self) -> list[str]:
        """Names of the run's own files that there are."""
        return sorted(name for name in (CONFIG, *_RESULTS) if (self.path / name).exists())

    def others(self) -> list[str]:
        """Names of what else stands in the directory: notes, results of other scripts."""
        try:
            return sorted(set(self._strangers()) - set(self.files()))
        except OSError:  # removed meanwhile, which the next write says
            return []

    def _load(self, name: str, of: str | None, remedy: str) -> dict[str, Any]:
        path = self.path / name
        try:
            state, belongs_to, sealed = opened_weights(path.read_bytes())
        except FileNotFoundError:
            if name == BEST and (self.path / CHECKPOINT).exists():
                raise ValueError(f"{path} is missing: {remedy}") from None
            raise ValueError(f"{path} is missing: the run stopped before its first epoch; start it again") from None
        except OSError as error:
            raise ValueError(f"cannot read {path}: {error.strerror}") from error
        except Damaged as error:
            raise ValueError(f"{path} {error}: {remedy}") from error
        if not isinstance(state, dict):
            raise ValueError(f"{path} holds a {type(state).__name__}, not a checkpoint: {remedy}")
        if not sealed:
            if self._kind() != _UNSEALED_FORMAT:
                raise ValueError(f"{path} carries no seal, so this run did not write it: {remedy}")
            warnings.warn(f"{path} is of an earlier version and carries no seal: not every damage would show", stacklevel=4)
        elif of is not None and belongs_to != of:
            raise ValueError(f"{path} belongs to other settings than those in {CONFIG}: undo the change there, or {remedy}")
        return state

    def _require_ours(self) -> None:
        """Nothing, an empty directory or a run."""
        if not self.path.exists() and not self.path.is_symlink():
            return
        if self.path.is_dir() and (not self._strangers() or self._kind() is not None or self._is_damaged_run()):
            return
        raise ValueError(f"{self.path} exists and is not a run directory: choose another --out (nothing was touched)")

    def _require_unused(self, config: dict[str, Any], overwrite: bool) -> None:
        if self._strangers() and not overwrite and not self._is_before_first_checkpoint(config):
            raise ValueError(
                f"{self.path} holds a run already: choose another --out, or add --overwrite to replace that run (in Python: "
                "overwrite=True)"
            )

    def _is_before_first_checkpoint(self, config: dict[str, Any]) -> bool:
        """Whether a run of the same config was begun here and has come to nothing yet."""
        if self._strangers() != [CONFIG]:
            return False
        try:
            return self.config() == json.loads(json.dumps(config))
        except ValueError:
            return False

    def _is_damaged_run(self) -> bool:
        """Whether the checkpoint is ours: then a config that is not readable any more was ours too."""
        try:
            return opened_weights((self.path / CHECKPOINT).read_bytes())[2]
        except (OSError, ValueError):
            return False

    def _strangers(self) -> list[str]:
        """Names in the directory, but for the lock and leftovers of killed writers."""
        return sorted(file.name for file in self.path.iterdir() if file.name != LOCK and not _LEFTOVER.fullmatch(file.name))

    def _kind(self) -> int | None:
        """The format of the config where it is one of ours, 0 where its format is no number."""
        try:
            config = json.loads((self.path / CONFIG).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(config, dict) or config.get("kind") != _KIND:
            return None
        return config["format"] if type(config.get("format")) is int else 0

    def _write(self, name: str, content: bytes) -> None:
        path = self.path / name
        try:
            replace_file(path, content, self._require_standing)
        except OSError as error:
            again = f"go on with --resume {self.path}" if (self.path / CHECKPOINT).exists() else "give the same command again"
            raise OSError(f"cannot write {path} ({error.strerror or error}): mend that, then {again}") from error

    def _require_standing(self) -> None:
        if self._lock.held and not self._lock.stands():
            raise FileNotFoundError("the run directory was removed or replaced while it was being written")


def replace_file(path: Path, content: bytes | str, check: Callable[[], None] | None = None) -> None:
    """Writes a file atomically: a reader or a crash sees the old file or the new one. Text goes out as UTF-8.

    Args:
        path: of the file.
        content: all of it.
        check: called before anything is written, and once more before the old file is replaced; raises where that must not be.

    Raises:
        OSError: no such directory, or no room; the old file is then as it was.
    """
    # The process id keeps two writers apart.
    part = path.with_name(f".{path.name}.{os.getpid()}")
    check = check or (lambda: None)
    check()
    try:
        with open(part, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        check()
        part.replace(path)
    except OSError as error:
        # A full disk names no file by itself.
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    finally:
        part.unlink(missing_ok=True)
