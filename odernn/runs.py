"""Run directories: what a training leaves on disk, written so that nothing is lost half-way.

config.json      what was asked for; enough to rebuild the experiment
metrics.csv      a row per epoch
checkpoint.pt    the trainer's state after the last epoch, for resuming
best.pt          the weights with the best validation error
summary.json     what came out
training.png, memory.png
"""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

import torch

CONFIG, METRICS, CHECKPOINT, BEST, SUMMARY = "config.json", "metrics.csv", "checkpoint.pt", "best.pt", "summary.json"
PICTURES = ("training.png", "memory.png")
_KIND = "odernn run"
_FORMAT = 1


class RunDirectory:
    """One run's files. Every file is replaced in one step, so a reader or a crash sees the old one or the new one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, config: dict[str, Any], *, overwrite: bool = False) -> RunDirectory:
        """Makes a new run directory and writes its config.

        Raises:
            ValueError: the path exists and is not empty (unless it is a run and `overwrite` is set), or cannot be written.
        """
        run = cls(path)
        try:
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                if not (path.is_dir() and run._is_run()):
                    raise ValueError(f"{path} exists and is not a run directory: choose another --out (nothing was touched)")
                if not overwrite:
                    raise ValueError(f"{path} holds a run already: choose another --out, or add --overwrite to replace that run")
                for name in (METRICS, CHECKPOINT, BEST, SUMMARY, *PICTURES):
                    (path / name).unlink(missing_ok=True)
            path.mkdir(parents=True, exist_ok=True)
            run.write_config(config)
        except OSError as error:
            raise ValueError(f"cannot write the run directory {path}: {error.strerror or error}: choose another --out") from error
        return run

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """An existing run directory.

        Raises:
            ValueError: it is missing or not a run.
        """
        if not path.is_dir():
            raise ValueError(f"there is no run directory {path}: give the --out of an earlier run")
        run = cls(path)
        if not run._is_run():
            raise ValueError(f"{path} is not a run directory of odernn (no {CONFIG} of its kind): give the --out of a run")
        return run

    def config(self) -> dict[str, Any]:
        """The config that `create` was given."""
        config = json.loads((self.path / CONFIG).read_text())
        if config.get("format") != _FORMAT:
            raise ValueError(f"{self.path} was written in format {config.get('format')!r}, this version reads {_FORMAT}")
        return {key: value for key, value in config.items() if key not in ("kind", "format")}

    def write_config(self, config: dict[str, Any]) -> None:
        self._write(CONFIG, _json_bytes({"kind": _KIND, "format": _FORMAT, **config}))

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        self._write(CHECKPOINT, _torch_bytes(state))

    def load_checkpoint(self) -> dict[str, Any]:
        """The trainer's state after the last finished epoch.

        Raises:
            ValueError: missing, truncated or foreign.
        """
        return self._load(CHECKPOINT)

    def save_best(self, weights: dict[str, Any]) -> None:
        self._write(BEST, _torch_bytes(weights))

    def load_best(self) -> dict[str, Any]:
        """The weights with the best validation error; raises as `load_checkpoint`."""
        return self._load(BEST)

    def write_metrics(self, history: list[dict[str, float]]) -> None:
        """All rows so far, as CSV."""
        if not history:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        self._write(METRICS, text.getvalue().encode())

    def write_summary(self, summary: dict[str, Any]) -> None:
        self._write(SUMMARY, _json_bytes(summary))

    def _load(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise ValueError(f"{path} is missing: the run stopped before its first epoch; start it again") from None
        except Exception as error:  # torch.load reports a damaged file by whatever its parser stumbled on
            raise ValueError(f"{path} is truncated or not a checkpoint ({type(error).__name__}): start the run again") from error
        if not isinstance(state, dict):
            raise ValueError(f"{path} holds a {type(state).__name__}, not a checkpoint: start the run again")
        return state

    def _is_run(self) -> bool:
        try:
            config = json.loads((self.path / CONFIG).read_text())
        except (OSError, ValueError):
            return False
        return isinstance(config, dict) and config.get("kind") == _KIND

    def _write(self, name: str, content: bytes) -> None:
        replace_file(self.path / name, content)


def replace_file(path: Path, content: bytes | str) -> None:
    """Writes a file in one move: a reader or a crash sees the old file or the new one. Text goes out as UTF-8.

    Raises:
        OSError: no such directory, or no room; the old file is then as it was.
    """
    # The process id keeps two writers apart.
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(part, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _json_bytes(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _torch_bytes(state: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()
