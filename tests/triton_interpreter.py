"""Triton kernels in Triton's interpreter, which runs on the CPU, in a process of its own; or compiled where there is a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
needs_gpu = pytest.mark.skipif(not (INTERPRETED or torch.cuda.is_available()), reason="no GPU")


def require_passed(file: str) -> None:
    """Runs the tests of a file in the interpreter."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider", "-W", "ignore", file]
    outcome = subprocess.run(command, env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=300)
    assert outcome.returncode == 0, outcome.stdout[-3000:]
    assert " passed" in outcome.stdout


def on_device(model, arguments):
    device = "cpu" if INTERPRETED else "cuda"
    return model.float().to(device), [a.float().to(device) if isinstance(a, torch.Tensor) else a for a in arguments]
