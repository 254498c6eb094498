"""A package of jobs in a folder of its own, which workers can import."""

from __future__ import annotations

import importlib
import sys

import pytest

# Jobs that note each run of theirs in a file, in a package of their own that workers can import.
TOY = """
import os
import signal
import time
from pathlib import Path

import torch

from analysis.papers.engine.figure import job

from .{used} import value


@job("note")
def note(log, name, seconds=0.0, gate=None):
    time.sleep(seconds)
    while gate is not None and not Path(gate).exists():
        time.sleep(0.05)
    with open(log, "a") as file:
        file.write(name + "\\n")
    return {{"value": value(), "threads": torch.get_num_threads(), "pid": os.getpid()}}


@job("special")
def special():
    return {{"values": [1.5, float("inf"), float("-inf"), float("nan")], "array": torch.ones(2), "tuple": (1, 2)}}


@job("begin_and_end")
def begin_and_end(log, name, seconds):
    for word in ("begin", "end"):
        with open(log, "a") as file:
            file.write(f"{{word}} {{name}}\\n")
        time.sleep(seconds if word == "begin" else 0)
    return {{"name": name}}


@job("refuse")
def refuse(reason):
    raise RuntimeError(reason)


@job("unkeepable")
def unkeepable():
    return {{"function": unkeepable}}


@job("kill_once")
def kill_once(marker):
    if not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {{"survived": True}}
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of jobs: toy imports used, unused stands beside it. Its name is new for each test, as imports are kept."""
    name = f"toy_{tmp_path.name}".replace("-", "_")
    folder = tmp_path / "modules" / name
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("from .unused import other\n")
    (folder / "toy.py").write_text(TOY.format(used="used"))
    (folder / "used.py").write_text("def value():\n    return 1\n")
    (folder / "unused.py").write_text("def other():\n    return 1\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    yield folder
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]


@pytest.fixture
def toy(package):
    return importlib.import_module(f"{package.name}.toy")
